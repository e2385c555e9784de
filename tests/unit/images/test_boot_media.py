"""The recipes of boot media with fake tools, which log what they are asked for."""

import io
import struct
import sys
import tarfile

import pytest
from fake_apt import KERNEL, MEMTEST, FakeApt

from emuvisor.errors import HostError, UsageError
from emuvisor.images import debian_system, efi, fat, grub, mbr, overlay, syslinux, tools
from emuvisor.images.firmware import firmware_file, video_bios_file
from emuvisor.images.recipes import pull

MIB = 1024 * 1024
DISK_SIZE = 4 * MIB
BOOT_IMG = bytes(range(256)) * 2


@pytest.fixture
def apt(tmp_path, monkeypatch):
    monkeypatch.setenv("EMUVISOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "apt"))
    for recipe in (debian_system, efi, grub, syslinux):
        monkeypatch.setattr(recipe, "DISK_SIZE", DISK_SIZE)
    apt = FakeApt(tmp_path / "apt")
    apt.add("memtest86+_6.10-4_amd64.deb", MEMTEST)
    apt.add("grub-pc-bin_2.06_amd64.deb", {"usr/lib/grub/i386-pc/boot.img": BOOT_IMG})
    apt.add("hello_2.10_amd64.deb", {})
    apt.add(
        "syslinux-common_3%3a6.04_all.deb",
        {"usr/lib/syslinux/mbr/mbr.bin": b"M" * 440, "usr/lib/syslinux/modules/bios/ldlinux.c32": b"c32"},
    )
    apt.add("isolinux_3%3a6.04_all.deb", {"usr/lib/ISOLINUX/isolinux.bin": b"iso"})
    return apt


def programs(log):
    return [line.split()[0] for line in log.read_text().splitlines()]


def test_grub(apt):
    log = apt.log_of("grub-mkimage", "mke2fs", "xorriso")
    image = pull("debian-grub")
    assert programs(log) == ["grub-mkimage", "mke2fs", "grub-mkimage", "xorriso"]
    assert (image.disk, image.kernel, image.firmware) == (image.path / "disk.img", None, "seabios")
    disk = image.disk.read_bytes()
    assert len(disk) == DISK_SIZE
    assert disk[:440] == BOOT_IMG[:440]
    assert disk[512:517] == b"made\n"
    assert struct.unpack_from("<II", disk, 446 + 8) == (2048, 3 * 2048)
    mke2fs = log.read_text().splitlines()[1]
    assert "-t ext2 " in mke2fs
    assert ",hash_seed=" in mke2fs
    assert "offset=1048576," in mke2fs
    assert mke2fs.endswith(f"disk.img {3 * 1024}k")
    assert (image.path / "cd.iso").read_bytes() == b"made\n"
    assert set(image.packages) == {"grub-pc-bin", KERNEL, "busybox-static", "memtest86+"}
    # Its kernel and memtest86+ are in the cache now.
    apt.add("memtest86+_6.10-4_amd64.deb", {})
    assert pull("debian-grub").packages == image.packages


def test_syslinux(apt):
    log = apt.log_of("syslinux", "xorriso", "mformat", "mmd", "mcopy")
    image = pull("debian-syslinux")
    assert programs(log) == [
        *("mformat", "mcopy", "mcopy", "mcopy", "mcopy", "syslinux"),
        *("mformat", "mcopy", "mcopy", "syslinux", "xorriso"),
    ]
    lines = log.read_text().splitlines()
    assert lines[5].startswith("syslinux --install --offset 1048576 ")
    assert "disk.img@@2048s -T 6144 -H 2048 " in lines[0]
    assert "floppy.img -f 1440 " in lines[6]
    assert image.disk.read_bytes()[:440] == b"M" * 440
    assert (image.path / "floppy.img").stat().st_size == 1440 * 1024


def test_efi(apt):
    log = apt.log_of("mformat", "mmd", "mcopy")
    image = pull("debian-efi")
    assert image.firmware == "ovmf"
    assert [line.rpartition(" ")[2] for line in log.read_text().splitlines()] == [
        *("::", "::vmlinuz", "::initrd.cpio", "::startup.nsh"),
    ]
    assert image.disk.read_bytes()[446 + 4] == mbr.EFI_SYSTEM
    assert "memtest86+" not in image.packages


def test_folders_in_fat(apt, tmp_path):
    log = apt.log_of("mmd", "mcopy")
    fat.copy_in(tmp_path / "x", 0, {"a/b/c": tmp_path})
    assert [line.rpartition(" ")[2] for line in log.read_text().splitlines()] == ["::a", "::a/b", "::a/b/c"]


SOURCES = """\
Debian|http://mirror/debian/|bookworm|bookworm|main
Debian|http://mirror/debian-security/|bookworm-security|bookworm|main
Other|http://other/|x|x|main
"""


def fake_mmdebstrap(apt, log):
    packages = "".join(
        f"Package: {name}\\nStatus: installed\\nVersion: 1-{name}\\n\\n" for name in debian_system.PACKAGES
    )
    apt.script(
        "mmdebstrap",
        f"#!{sys.executable}\nimport io, sys, tarfile\n"
        f"open({str(log)!r}, 'a').write('mmdebstrap ' + ' '.join(sys.argv[1:]) + chr(10))\n"
        "target = next(a for a in sys.argv if a.endswith('root.tar'))\n"
        "with tarfile.open(target, 'w') as tar:\n"
        "    info = tarfile.TarInfo('./var/lib/dpkg/status')\n"
        f"    data = b'{packages}'\n"
        "    info.size = len(data)\n"
        "    tar.addfile(info, io.BytesIO(data))\n",
    )


@pytest.fixture
def system(apt):
    """apt that knows sources, and the log of the programs that build the system."""
    log = apt.log_of("grub-mkimage", "mke2fs", "tar", "fakeroot")
    fake_mmdebstrap(apt, log)
    copying = (apt.folder / "apt-get").read_text().partition("\n")[2].replace("\n", "\n    ")
    apt.script(
        "apt-get",
        f"#!{sys.executable}\nimport sys\n"
        f"if 'indextargets' in sys.argv:\n    print({SOURCES!r}, end='')\nelse:\n    {copying}",
    )
    apt.script("sh", '#!/bin/sh\nexec /bin/sh "$@"\n')
    return log


def test_debian_system(apt, system, monkeypatch):
    monkeypatch.setattr(debian_system, "AS_ROOT", ())
    image = pull("debian-system")
    assert programs(system) == ["mmdebstrap", "grub-mkimage", "tar", "mke2fs"]
    command = system.read_text().splitlines()[0]
    assert " bookworm " in command
    signed = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert command.endswith(
        f"{signed} http://mirror/debian/ bookworm main {signed} http://mirror/debian-security/ "
        "bookworm-security main"
    )
    assert image.packages["lz4"] == "1-lz4"
    assert image.packages["grub-pc-bin"] == "2.06"
    assert image.disk.stat().st_size == DISK_SIZE


def test_debian_system_without_root(apt, system, monkeypatch):
    monkeypatch.setattr(debian_system, "AS_ROOT", ("fakeroot",))
    pull("debian-system")
    assert "fakeroot sh -c tar -C " in system.read_text()


def test_no_source_of_debian(apt, system):
    apt.script("apt-get", (apt.folder / "apt-get").read_text().replace("Debian|", "Devuan|"))
    with pytest.raises(HostError) as error:
        pull("debian-system")
    assert str(error.value) == "apt knows no package source of Debian (apt-get update)"


def test_firmware(apt):
    with pytest.raises(UsageError) as error:
        firmware_file("seabios")
    assert str(error.value) == (
        "the firmware 'seabios' is not here yet; get it with: emuvisor images pull seabios"
    )
    files = {"usr/share/seabios/bios-256k.bin": b"bios", "usr/share/seabios/vgabios-stdvga.bin": b"vga"}
    apt.add("seabios_1.16_all.deb", files)
    image = pull("seabios")
    assert (image.kernel, image.disk) == (None, None)
    assert firmware_file("seabios").read_bytes() == b"bios"
    assert video_bios_file().read_bytes() == b"vga"


def test_missing_programs_are_named_at_once(apt, monkeypatch):
    monkeypatch.setattr(tools, "SYSTEM_FOLDERS", ())
    with pytest.raises(HostError) as error:
        pull("debian-grub")
    assert str(error.value) == (
        "grub-mkimage, mke2fs and xorriso are not installed; "
        "on Debian: apt-get install e2fsprogs grub-common xorriso"
    )


def test_no_end(apt):
    apt.script("xorriso", "#!/bin/sh\nwhile :; do :; done\n")
    with pytest.raises(HostError) as error:
        tools.run(["xorriso", "-x"], timeout_s=0.1)
    assert str(error.value) == "xorriso -x: no end after 0.1 s"


def test_boot_sector():
    sector = mbr.boot_sector(b"\xff" * 512, mbr.Partition(mbr.LINUX, 2048, 100), 0x12345678)
    assert len(sector) == 512
    assert sector[:440] == b"\xff" * 440
    assert sector[440:446] == b"\x78\x56\x34\x12\0\0"
    assert sector[446:462] == b"\x80\xfe\xff\xff\x83\xfe\xff\xff" + struct.pack("<II", 2048, 100)
    assert sector[462:] == bytes(48) + b"\x55\xaa"


def test_overlay():
    data = overlay.archive({"etc/hostname": "x\n"}, {"etc/unit": "/dev/null"}, 5)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file, link = tar.getmembers()
        assert tar.extractfile(file).read() == b"x\n"
    assert (file.name, file.mtime, file.uid, file.mode) == ("etc/hostname", 5, 0, 0o644)
    assert (link.name, link.linkname, link.issym()) == ("etc/unit", "/dev/null", True)
