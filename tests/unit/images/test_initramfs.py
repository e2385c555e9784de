import gzip
import lzma
import stat
import struct
import subprocess

import pytest
import zstandard
from capstone import CS_ARCH_X86, CS_MODE_32, CS_MODE_64, Cs
from packages import BUSYBOX, module

from emuvisor.errors import ImageError
from emuvisor.images import initramfs, modules, poweroff
from emuvisor.images.cpio import CpioWriter
from emuvisor.machine.loaders.elf import parse


def read_cpio(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Mode, data and device numbers of each entry."""
    entries = {}
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701"
        numbers = [int(archive[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        name_end = offset + 110 + numbers[11]
        name = archive[offset + 110 : name_end - 1].decode()
        start = -(-name_end // 4) * 4
        if name == "TRAILER!!!":
            assert start == len(archive)
            return entries
        entries[name] = (numbers[1], archive[start : start + numbers[6]], (numbers[9], numbers[10]))
        offset = -(-(start + numbers[6]) // 4) * 4


def test_cpio_entries():
    writer = CpioWriter()
    writer.file("a/b/file", b"hello", 0o755)
    writer.symlink("a/link", "b/file")
    writer.character_device("dev/console", 5, 1)
    writer.directory("a", 0o700)
    entries = read_cpio(writer.finish())
    assert list(entries) == ["a", "a/b", "a/b/file", "a/link", "dev", "dev/console"]
    assert entries["a"] == (stat.S_IFDIR | 0o755, b"", (0, 0))
    assert entries["a/b/file"] == (stat.S_IFREG | 0o755, b"hello", (0, 0))
    assert entries["a/link"] == (stat.S_IFLNK | 0o777, b"b/file", (0, 0))
    assert entries["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))


@pytest.mark.parametrize("path", ["", "/abs", "twice"])
def test_cpio_refuses_bad_paths(path):
    writer = CpioWriter()
    writer.file("twice", b"")
    with pytest.raises(ValueError, match="is empty, absolute or already in the archive"):
        writer.file(path, b"")


MODULES = {
    "kernel/drivers/virtio/virtio.ko": module("virtio", "virtio_ring"),
    "kernel/drivers/virtio/virtio_ring.ko": module("virtio_ring"),
    "kernel/drivers/char/hw_random/virtio-rng.ko.xz": lzma.compress(module("virtio_rng", "virtio")),
    "kernel/drivers/net/virtio_net.ko": module("virtio_net", "net_failover", "virtio"),
    "kernel/drivers/net/net_failover.ko": module("net_failover", "builtin"),
    "kernel/drivers/net/e1000.ko": module("e1000"),
    "kernel/drivers/virtio/virtio_pci.ko": module("virtio_pci", "virtio_ring", "virtio"),
    "kernel/drivers/virtio/virtio_input.ko": module("virtio_input", "virtio"),
    "kernel/drivers/input/evdev.ko": module("evdev"),
    "kernel/drivers/ata/ata_piix.ko": module("ata_piix", "libata"),
    "kernel/drivers/ata/libata.ko": module("libata"),
    "kernel/fs/isofs/isofs.ko": module("isofs") + b"alias=iso9660\0alias=fs-iso9660\0",
    "modules.order": b"",
}


def test_initramfs_holds_what_init_needs():
    archive = initramfs.build(BUSYBOX, "6.1.0", MODULES)
    assert archive == initramfs.build(BUSYBOX, "6.1.0", dict(reversed(MODULES.items())))
    entries = read_cpio(archive)
    assert entries["bin/busybox"] == (stat.S_IFREG | 0o755, BUSYBOX, (0, 0))
    links = [path for path, (mode, data, _) in entries.items() if stat.S_ISLNK(mode) and data == b"busybox"]
    assert links == ["bin/[", "bin/[[", "bin/ash", "bin/cat", "bin/poweroff", "bin/sh"]
    assert b"\necho EMUVISOR-BOOT-OK\n" in entries["init"][1]
    scripts = ("init", "sbin/poweroff", "sbin/load-drivers", "sbin/port-poweroff")
    assert all(entries[script][0] == stat.S_IFREG | 0o755 for script in scripts)


def test_the_scripts_parse():
    entries = read_cpio(initramfs.build(BUSYBOX, "6.1.0", MODULES))
    scripts = (
        "init",
        "sbin/poweroff",
        "sbin/load-drivers",
        "etc/udhcpc/default.script",
        "etc/shell-functions",
    )
    for script in scripts:
        subprocess.run(["sh", "-n"], input=entries[script][1], check=True)
    assert entries["etc/udhcpc/default.script"][0] == stat.S_IFREG | 0o755
    assert entries["etc/hosts"][1] == b"127.0.0.1 localhost emuvisor\n::1 localhost\n"


DHCP_TOLD = {
    "interface": "eth0",
    "ip": "10.0.2.15",
    "subnet": "255.255.255.0",
    "router": "10.0.2.2 10.0.2.9",
    "dns": "10.0.2.3 10.0.2.4",
}


@pytest.mark.parametrize(
    ("event", "more", "calls", "resolver"),
    [
        ("deconfig", {}, ["ifconfig eth0 0.0.0.0 up"], None),
        (
            "bound",
            {},
            [
                "ifconfig eth0 10.0.2.15 netmask 255.255.255.0",
                "route del default dev eth0",
                "route add default gw 10.0.2.2 dev eth0",
                "route add default gw 10.0.2.9 dev eth0",
            ],
            "nameserver 10.0.2.3\nnameserver 10.0.2.4\n",
        ),
        (
            "renew",
            {"broadcast": "10.0.2.255", "mtu": "1400", "domain": "lab", "router": "", "dns": ""},
            [
                "ifconfig eth0 10.0.2.15 netmask 255.255.255.0 broadcast 10.0.2.255 mtu 1400",
                "route del default dev eth0",
            ],
            "search lab\n",
        ),
        ("leasefail", {}, [], None),
    ],
)
def test_what_dhcp_tells_is_configured(tmp_path, event, more, calls, resolver):
    entries = read_cpio(initramfs.build(BUSYBOX, "6.1.0", MODULES))
    script = entries["etc/udhcpc/default.script"][1].decode().replace("/etc/", f"{tmp_path}/")
    log = tmp_path / "log"
    log.touch()
    for program, ends_with in (("ifconfig", "exit 0"), ("route", '[ "$1" = add ]')):
        fake = tmp_path / program
        fake.write_text(f'#!/bin/sh\necho "{program} $*" >> {log}\n{ends_with}\n')
        fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/bin:/usr/bin", **DHCP_TOLD, **more}
    subprocess.run(["sh", "-c", script, "sh", event], env=environment, check=True)
    assert log.read_text().splitlines() == calls
    written = tmp_path / "resolv.conf"
    assert (written.read_text() if written.exists() else None) == resolver


def test_modules_load_behind_their_dependencies():
    entries = read_cpio(initramfs.build(BUSYBOX, "6.1.0", MODULES))
    folder = "lib/modules/6.1.0"

    def order(kind: str) -> list[str]:
        return entries[f"{folder}/{kind}.load"][1].decode().split()

    transport = [f"kernel/drivers/virtio/{name}.ko" for name in ("virtio_ring", "virtio", "virtio_pci")]
    rng = "kernel/drivers/char/hw_random/virtio-rng.ko"
    assert order("virtio") == transport
    # What the transport has loaded is not loaded again.
    assert order("virtio-0x0001") == [
        "kernel/drivers/net/net_failover.ko",
        "kernel/drivers/net/virtio_net.ko",
    ]
    assert order("virtio-0x0004") == [rng]
    assert order("virtio-0x0012") == [
        "kernel/drivers/virtio/virtio_input.ko",
        "kernel/drivers/input/evdev.ko",
    ]
    assert order("ide") == ["kernel/drivers/ata/libata.ko", "kernel/drivers/ata/ata_piix.ko"]
    # The kernel has no module for this device.
    assert f"{folder}/virtio-0x0002.load" not in entries
    assert entries[f"{folder}/{rng}"][1] == module("virtio_rng", "virtio")
    dep = entries[f"{folder}/modules.dep"][1].decode().splitlines()
    assert dep[0] == f"{transport[0]}:"
    assert f"{rng}: {transport[1]} {transport[0]}" in dep
    assert f"{folder}/kernel/drivers/net/e1000.ko" not in entries
    assert f"{folder}/kernel/fs/isofs/isofs.ko" in entries
    assert entries[f"{folder}/modules.alias"][1] == b"alias iso9660 isofs\nalias fs-iso9660 isofs\n"


def load_drivers(tmp_path, devices: dict[str, dict[str, str]], lists: dict[str, str]) -> list[str]:
    """What load-drivers loads for the sysfs files `devices` (folder to names and texts)."""
    script = read_cpio(initramfs.build(BUSYBOX, "6.1.0", MODULES))["sbin/load-drivers"][1].decode()
    for folder, files in devices.items():
        (tmp_path / "sys" / folder).mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / "sys" / folder / name).write_text(text + "\n")
    modules_folder = tmp_path / "modules"
    modules_folder.mkdir()
    for name, text in lists.items():
        (modules_folder / f"{name}.load").write_text(text)
    script = script.replace("/sys/", f"{tmp_path}/sys/").replace(
        "/lib/modules/$(uname -r)", str(modules_folder)
    )
    insmod = f'insmod() {{ echo "${{1##*/}}" >> {tmp_path}/log; }}\n'
    (tmp_path / "log").touch()
    subprocess.run(["sh", "-c", insmod + script], check=False)
    return (tmp_path / "log").read_text().split()


LISTS = {
    "virtio": "virtio.ko\nvirtio_pci.ko\n",
    "virtio-0x0001": "virtio_net.ko\n",
    "virtio-0x0002": "virtio_blk.ko\n",
    "ide": "ata_piix.ko\n",
}
VIRTIO_FUNCTION = {"vendor": "0x1af4", "class": "0x010000"}


def test_the_drivers_of_what_is_there_are_loaded(tmp_path):
    assert load_drivers(
        tmp_path,
        {
            "bus/pci/devices/0000:00:00.0": {"vendor": "0x8086", "class": "0x060000"},
            "bus/pci/devices/0000:00:01.1": {"vendor": "0x8086", "class": "0x010180"},
            "bus/pci/devices/0000:00:03.0": VIRTIO_FUNCTION,
            "bus/virtio/devices/virtio0": {"device": "0x0001"},
            "bus/virtio/devices/virtio1": {"device": "0x0001"},
            "bus/virtio/devices/virtio2": {"device": "0x0099"},
        },
        LISTS,
    ) == ["virtio.ko", "virtio_pci.ko", "virtio_net.ko", "ata_piix.ko"]


def test_virtio_announced_by_acpi(tmp_path):
    devices = {
        "bus/acpi/devices/LNRO0005:00": {},
        "bus/virtio/devices/virtio0": {"device": "0x0002"},
    }
    assert load_drivers(tmp_path, devices, LISTS) == ["virtio.ko", "virtio_pci.ko", "virtio_blk.ko"]


def test_nothing_is_loaded_for_nothing(tmp_path):
    assert load_drivers(tmp_path, {}, LISTS) == []


def test_module_names_and_compressions():
    assert modules.module_name("a/virtio-rng.ko.zst") == "virtio_rng"
    assert modules.module_name("a/modules.order") is None
    assert modules.module_name("a/README") is None
    packed = {
        ".ko.gz": gzip.compress(b"m"),
        ".ko.xz": lzma.compress(b"m"),
        ".ko.zst": zstandard.compress(b"m"),
    }
    assert [modules.unpack_module("x" + suffix, data) for suffix, data in packed.items()] == [b"m"] * 3


def test_dependency_cycle_ends():
    available = {"a": module("a", "b"), "b": module("b", "a")}
    assert modules.load_order(["a"], available) == ["b", "a"]


def test_busybox_without_applets():
    with pytest.raises(ImageError) as error:
        initramfs.build(b"\x7fELF", "6.1.0", {})
    assert str(error.value) == "busybox: no table of applets in it"


def test_poweroff_program():
    (segment,) = parse("poweroff", poweroff.program()).segments
    entry = parse("poweroff", poweroff.program()).entry
    code = Cs(CS_ARCH_X86, CS_MODE_64).disasm(segment.data[entry - segment.paddr :], entry)
    assert [f"{i.mnemonic} {i.op_str}".strip() for i in code] == [
        "mov eax, 0xad",
        "mov edi, 0x604",
        "mov esi, 2",
        "mov edx, 1",
        "syscall",
        "mov edx, 0x604",
        "mov eax, 0x2000",
        "out dx, ax",
        "mov eax, 0x3c",
        "mov edi, 1",
        "syscall",
    ]


def test_poweroff_program_for_i386():
    program = poweroff.program("i386")
    kind, machine, _, entry, headers = struct.unpack_from("<HHIII", program, 16)
    load_type, offset, address, _, in_file, in_memory, flags, _ = struct.unpack_from("<8I", program, headers)
    assert (program[4], kind, machine, load_type, offset, flags) == (1, 2, 3, 1, 0, 5)
    assert in_file == in_memory == len(program)
    code = Cs(CS_ARCH_X86, CS_MODE_32).disasm(program[entry - address :], entry)
    assert [f"{i.mnemonic} {i.op_str}".strip() for i in code] == [
        "mov eax, 0x65",
        "mov ebx, 0x604",
        "mov ecx, 2",
        "mov edx, 1",
        "int 0x80",
        "mov edx, 0x604",
        "mov eax, 0x2000",
        "out dx, ax",
        "mov eax, 1",
        "mov ebx, 1",
        "int 0x80",
    ]
