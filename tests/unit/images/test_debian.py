"""The Debian recipes with a fake apt on PATH."""

import sys

import pytest
from fake_apt import KERNEL, MEMTEST, MODULE, RELEASE, FakeApt
from packages import module

from emuvisor.errors import HostError, ImageError, UsageError
from emuvisor.images.cache import find
from emuvisor.images.recipes import RECIPES, pull


@pytest.fixture
def apt(tmp_path, monkeypatch):
    monkeypatch.setenv("EMUVISOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "apt"))
    return FakeApt(tmp_path / "apt")


def test_debian(apt, tmp_path):
    steps = []
    image = pull("debian", lambda *step: steps.append(step))
    assert image == find("debian")
    assert image.kernel.read_bytes() == b"kernel"
    assert (image.path / "config").read_bytes() == b"config"
    assert image.initrd is not None
    assert MODULE.encode() in image.initrd.read_bytes()
    assert image.append == "console=ttyS0"
    assert image.packages == {KERNEL: "6.1.9-1", "busybox-static": "1:1.35-4"}
    assert steps == [
        ("finding the newest kernel", 0, 4),
        (f"downloading {KERNEL} and busybox-static", 1, 4),
        ("building the initramfs", 2, 4),
        ("installing", 3, 4),
        ("done", 4, 4),
    ]
    assert not list((tmp_path / "cache" / "images").glob(".work-*"))


def test_i386(apt, tmp_path):
    """Its own package lists, of the machine's sources, without the machine's packages."""
    apt.script(
        "apt-cache",
        '#!/bin/sh\nfor a; do last=$a; done\necho "  Depends: linux-image-6.1.0-9-${last#linux-image-}"\n',
    )
    for flavour in ("686", "686-pae"):
        release = f"6.1.0-9-{flavour}"
        apt.add(
            f"linux-image-{release}_6.1.9-1_i386.deb",
            {
                f"boot/vmlinuz-{release}": flavour.encode(),
                f"boot/config-{release}": b"config",
                f"lib/modules/{release}/virtio.ko": module("virtio"),
            },
        )
    log = tmp_path / "arguments"
    lists = "for a; do case $a in Dir::State::Lists=*) : > ${a#*=}/x_Packages;; esac; done"
    copies = (apt.folder / "apt-get").read_text().partition("\n")[2]
    apt.script("copy", f"#!{sys.executable}\n{copies}")
    # A mirror that lacks one list makes the update fail; the others are used.
    apt.script(
        "apt-get",
        f'#!/bin/sh\necho "$@" >> {log}\n{lists}\ncase "$*" in *update*) exit 100;; esac\ncopy\n',
    )
    image = pull("debian-i386")
    assert (image.path / "vmlinuz").read_bytes() == b"686"
    assert (image.path / "vmlinuz-pae").read_bytes() == b"686-pae"
    assert b"6.1.0-9-686-pae" in (image.path / "initrd-pae.cpio").read_bytes()
    assert image.append == "console=ttyS0"
    assert list(image.packages) == [*sorted(image.packages)]
    update, download = log.read_text().splitlines()
    for line in (update, download):
        assert line.startswith("-o APT::Architecture=i386 -o APT::Architectures=i386 -o Dir::State::Lists=")


def test_no_package_lists_for_i386(apt):
    apt.script("apt-get", "#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
    message = refused(HostError, "debian-i386")
    assert message.startswith("apt-get -o APT::Architecture=i386 ")
    assert message.endswith(" update --quiet: E: no network")


def test_modules_below_usr(apt):
    apt.add(
        f"{KERNEL}_6.1.9-1_amd64.deb",
        {
            f"boot/vmlinuz-{RELEASE}": b"kernel",
            f"boot/config-{RELEASE}": b"config",
            f"usr/{MODULE}": module("virtio"),
        },
    )
    assert MODULE.encode() in pull("debian").initrd.read_bytes()


def test_memtest(apt):
    apt.add("memtest86+_6.10-4_amd64.deb", MEMTEST)
    image = pull("debian-memtest")
    assert (image.kernel.read_bytes(), image.initrd, image.append) == (b"32", None, "")
    assert (image.path / "cd.iso").read_bytes() == b"iso"
    assert (image.path / "floppy.img").read_bytes() == b"32".ljust(1440 * 1024, b"\0")


def test_ipxe(apt):
    apt.add("ipxe_1.0.0+git-2_all.deb", {"boot/ipxe.lkrn": b"kernel", "usr/lib/ipxe/ipxe.iso": b"iso"})
    image = pull("ipxe")
    assert (image.disk.read_bytes(), image.firmware, image.kernel) == (b"iso", "seabios", None)
    assert (image.path / "ipxe.lkrn").read_bytes() == b"kernel"
    assert image.packages == {"ipxe": "1.0.0+git-2"}


def refused(kind: type[Exception], name: str = "debian") -> str:
    with pytest.raises(kind) as error:
        pull(name)
    return str(error.value)


def test_unknown_image():
    assert refused(UsageError, "plan9") == f"unknown image 'plan9'; known images: {', '.join(RECIPES)}"


def test_no_apt(apt):
    (apt.folder / "apt-cache").unlink()
    assert refused(HostError) == "apt-cache is not installed; on Debian: apt-get install apt"


def test_no_package_lists(apt):
    apt.script("apt-cache", "#!/bin/sh\n")
    assert refused(HostError) == (
        "apt-cache knows no kernel for linux-image-cloud-amd64; it needs Debian's package lists for amd64 "
        "(apt-get update)"
    )


def test_failed_download_names_the_last_line(apt):
    apt.script("apt-get", "#!/bin/sh\necho 'W: one' >&2\necho 'E: no network' >&2\necho >&2\nexit 100\n")
    assert refused(HostError) == f"apt-get download --quiet {KERNEL} busybox-static: E: no network"
    apt.script("apt-get", "#!/bin/sh\nexit 7\n")
    assert refused(HostError) == f"apt-get download --quiet {KERNEL} busybox-static: exit code 7"


def test_a_kernel_without_its_configuration(apt):
    apt.add(f"{KERNEL}_6.1.9-1_amd64.deb", {f"boot/vmlinuz-{RELEASE}": b"kernel"})
    assert refused(ImageError) == f"{KERNEL}_6.1.9-1_amd64.deb: no boot/config-{RELEASE} in it"


def test_incomplete_packages(apt):
    apt.add("busybox-static_1%3a1.35-4_amd64.deb", {"bin/other": b""})
    assert refused(ImageError) == "busybox-static_1%3a1.35-4_amd64.deb: no bin/busybox in it"
    (apt.packages / "busybox-static_1%3a1.35-4_amd64.deb").unlink()
    assert refused(HostError) == "apt-get download left no file of busybox-static"
    apt.add("memtest86+_6.10-4_amd64.deb", {})
    assert refused(ImageError, "debian-memtest") == (
        "memtest86+_6.10-4_amd64.deb: no boot/memtest86+ia32.bin in it"
    )
