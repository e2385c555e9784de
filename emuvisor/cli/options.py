"""The options that say what guest to run, shared by the commands that run one."""

import argparse
from argparse import ArgumentTypeError
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from emuvisor.cli.scheduler_options import parse_affinity, parse_time
from emuvisor.errors import UsageError
from emuvisor.machine.choices import BoardName, DiskBus, FirmwareName, InputKind, RingLayout
from emuvisor.units import parse_size

if TYPE_CHECKING:
    from emuvisor.devices.limits import Rate

__all__ = [
    "add_guest_options",
    "parse_disk",
    "parse_firmware",
    "parse_flat",
    "parse_nic",
    "parse_rate",
    "parse_seconds",
    "parse_share",
    "parse_size_option",
]

DISK_FORM = (
    "PATH[,readonly][,cdrom|floppy][,format=raw|qcow2|overlay][,bus=ide|virtio][,queues=N][,overlay=PATH|temporary]"
    "[,LIMIT=RATE[:BURST[:ONCE]]]...[,shares=N]"
)
NIC_FORM = (
    "NETWORK[,mac=MAC][,queues=N][,forward=PROTOCOL:[ADDRESS:]PORT:GUEST-PORT]..."
    "[,LIMIT=RATE[:BURST[:ONCE]]]..."
)
SHARE_FORM = "FOLDER,TAG[,writable]"


def parse_size_option(text: str) -> int:
    """A size such as 256M, in bytes."""
    try:
        return parse_size(text)
    except UsageError as error:
        raise ArgumentTypeError(str(error)) from None


def parse_rate(name: str, text: str) -> "Rate":
    """The limit called `name`, such as 10M:64M."""
    from emuvisor.devices.limits import Rate

    try:
        return Rate.parse(text)
    except UsageError as error:
        raise ArgumentTypeError(f"{name}: {error}") from None


def parse_disk(text: str) -> dict[str, Any]:
    """PATH and what is said of it, as the fields of a DiskConfig."""
    from emuvisor.devices.limits import DiskLimits

    limits = [field.name for field in fields(DiskLimits)]
    path, *options = text.split(",")
    disk: dict[str, Any] = {"path": Path(path)}
    for option in options:
        name, _, value = option.partition("=")
        if option == "readonly":
            disk["readonly"] = True
        elif option in ("cdrom", "floppy"):
            disk["kind"] = option
        elif name == "overlay" and value:
            disk["overlay"] = value if value == "temporary" else Path(value)
        elif name in ("format", "bus") and value:
            disk[name] = value
        elif name in ("queues", "shares") and value.isdecimal():
            disk[name] = int(value)
        elif name in limits:
            disk[name] = parse_rate(name, value)
        else:
            path = ""
    if not path:
        raise ArgumentTypeError(f"{text!r} is not {DISK_FORM}")
    return disk


def parse_nic(text: str) -> dict[str, Any]:
    """NETWORK and what is said of the card, as the fields of a NicConfig."""
    from emuvisor.devices.limits import NicLimits

    limits = [field.name for field in fields(NicLimits)]
    network, *options = text.split(",")
    nic: dict[str, Any] = {"network": network}
    forwards: list[str] = []
    for option in options:
        name, _, value = option.partition("=")
        if name == "mac" and value:
            nic["mac"] = value
        elif name == "forward" and value:
            forwards.append(value)
        elif name == "queues" and value.isdecimal():
            nic["queues"] = int(value)
        elif name in limits:
            nic[name] = parse_rate(name, value)
        else:
            network = ""
    if not network:
        raise ArgumentTypeError(f"{text!r} is not {NIC_FORM}")
    return nic | {"forwards": tuple(forwards)}


def parse_share(text: str) -> dict[str, Any]:
    """FOLDER,TAG and whether the guest may write, as the fields of a ShareConfig."""
    path, _, rest = text.partition(",")
    tag, _, option = rest.partition(",")
    if not path or not tag or option not in ("", "writable"):
        raise ArgumentTypeError(f"{text!r} is not {SHARE_FORM}")
    return {"path": Path(path), "tag": tag, "readonly": not option}


def parse_firmware(text: str) -> Path | str:
    """The name of a firmware image, or a path."""
    return text if text in get_args(FirmwareName) else Path(text)


def parse_flat(text: str) -> tuple[Path, int, str | None]:
    """PATH@ADDRESS[,MODE]: path, address, and the mode if there is one."""
    path, at, rest = text.rpartition("@")
    address, comma, mode = rest.partition(",")
    try:
        number = int(address, 0)
    except ValueError:
        number = -1
    if not (path and at) or number < 0 or (comma and not mode):
        raise ArgumentTypeError(f"{text!r} is not PATH@ADDRESS[,MODE], such as guest.bin@0x8000,real16")
    return Path(path), number, mode or None


def parse_seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _add_cpu_options(guest: argparse._ArgumentGroup) -> None:
    """Add the guest's claim to the host's pCPUs."""
    guest.add_argument(
        "--cpu-weight", type=int, metavar="N", help="its share of the pCPUs against others (default: 100)"
    )
    guest.add_argument(
        "--cpu-cap", type=float, metavar="PERCENT", help="of a pCPU, which it never passes (default: 100)"
    )
    guest.add_argument(
        "--cpu-reservation",
        type=float,
        metavar="PERCENT",
        help="of a pCPU, which it gets whenever it wants it (default: 0)",
    )
    guest.add_argument(
        "--cpu-limit",
        type=parse_size_option,
        metavar="SIZE",
        help="of guest code in a second, which it never passes, such as 100M (default: none)",
    )
    guest.add_argument(
        "--cpu-affinity",
        type=parse_affinity,
        metavar="LIST",
        help="the pCPUs that may run it, such as 0,2-3 (default: all)",
    )
    guest.add_argument(
        "--cpu-period",
        type=parse_time,
        dest="cpu_period_us",
        metavar="TIME",
        help="over which cap and reservation hold, such as 5ms (default: 20ms)",
    )
    guest.add_argument(
        "--cpu-latency",
        type=parse_time,
        dest="cpu_latency_us",
        metavar="TIME",
        help="how soon it wants to run when it can, and so how long it runs at a time, such as 500us "
        "(default: 5ms)",
    )


def add_guest_options(parser: argparse.ArgumentParser) -> None:
    """Add what to boot, on which board, with which devices."""
    boot = parser.add_argument_group("what to boot")
    boot.add_argument("--image", metavar="NAME", help="an image of 'emuvisor images', such as debian")
    boot.add_argument("--kernel", type=Path, metavar="FILE", help="a kernel: bzImage, multiboot or ELF")
    boot.add_argument("--initrd", type=Path, metavar="FILE", help="the kernel's initial ramdisk")
    boot.add_argument("--append", metavar="TEXT", help="the kernel's command line; with --image, more of it")
    boot.add_argument(
        "--decompressor",
        choices=("host", "guest"),
        help="who unpacks a bzImage: the host (fast, default) or its own code",
    )
    boot.add_argument(
        "--flat", type=parse_flat, metavar="FILE@ADDRESS[,MODE]", help="a flat binary; default MODE: real16"
    )
    boot.add_argument(
        "--firmware",
        type=parse_firmware,
        metavar="NAME|FILE",
        help="in place of emuvisor's own BIOS: seabios, ovmf, or a ROM image",
    )
    boot.add_argument(
        "--disk",
        type=parse_disk,
        action="append",
        metavar=DISK_FORM,
        help="an image: a hard disk, CD-ROM or floppy; an overlay takes what is written; limits in a second "
        "are total_, read_ and write_bytes and _iops, such as read_bytes=10M (repeatable)",
    )
    boot.add_argument(
        "--disk-bus", choices=get_args(DiskBus), help="how hard disks are connected that do not say it"
    )
    boot.add_argument(
        "--config", type=Path, action="append", metavar="FILE", help="a guest defined in TOML (repeatable)"
    )

    guest = parser.add_argument_group("the guest", "these go before what a configuration says")
    guest.add_argument("--name", help="its name")
    guest.add_argument("--board", choices=get_args(BoardName), help="pc (default), microvm or isa")
    guest.add_argument("--vcpus", type=int, metavar="N", help="processors: 1 (default) to 8")
    guest.add_argument(
        "--memory", type=parse_size_option, metavar="SIZE", help="such as 256M (default) or 4G"
    )
    guest.add_argument(
        "--memory-max",
        type=parse_size_option,
        metavar="SIZE",
        help="what it can grow to while it runs (virtio-mem)",
    )
    guest.add_argument(
        "--reservation",
        type=parse_size_option,
        dest="memory_reservation",
        metavar="SIZE",
        help="memory that it always gets, whatever others do (default: 0)",
    )
    guest.add_argument(
        "--limit",
        type=parse_size_option,
        dest="memory_limit",
        metavar="SIZE",
        help="the host's memory that it never takes more of (default: its size)",
    )
    guest.add_argument(
        "--shares",
        type=int,
        dest="memory_shares",
        metavar="N",
        help="its weight when memory is short (default: 1000)",
    )
    guest.add_argument(
        "--priority",
        type=int,
        dest="memory_priority",
        metavar="N",
        help="guests of a lower one give first (default: 0)",
    )
    _add_cpu_options(guest)
    guest.add_argument("--cpu", metavar="NAME", help="a CPU model")
    guest.add_argument(
        "--clock",
        choices=("virtual", "host"),
        help="virtual: every run is the same; host: the wall clock (default with a terminal)",
    )
    guest.add_argument(
        "--seed", type=int, metavar="N", help="of its random numbers on the virtual clock (default: 0)"
    )
    guest.add_argument(
        "--device",
        action="append",
        metavar="MODULE:CLASS",
        help="a device of your own, written in Python (repeatable)",
    )
    guest.add_argument(
        "--option-rom", type=Path, action="append", metavar="FILE", help="a ROM for the firmware (repeatable)"
    )
    guest.add_argument(
        "--firmware-variables", type=Path, metavar="FILE", help="where OVMF keeps its variables"
    )
    guest.add_argument(
        "--nic",
        type=parse_nic,
        action="append",
        metavar=NIC_FORM,
        help='a network card on a virtual network; "user" is one of its own with a way out; limits in '
        "a second are in_ and out_bytes and _packets, such as in_bytes=1M (repeatable)",
    )
    guest.add_argument(
        "--share",
        type=parse_share,
        action="append",
        metavar=SHARE_FORM,
        help="a folder that the guest can mount: mount -t virtiofs TAG /mnt (repeatable)",
    )
    guest.add_argument("--rng", action="store_true", default=None, help="a source of random numbers")
    guest.add_argument(
        "--balloon", action="store_true", default=None, help="a balloon, to ask for memory back"
    )
    guest.add_argument("--vsock", type=int, metavar="CID", help="sockets to the host, and the guest's number")
    guest.add_argument(
        "--console-port", action="append", metavar="NAME", help="a port of the virtio console (repeatable)"
    )
    guest.add_argument(
        "--input", action="append", choices=get_args(InputKind), help="a virtio input device (repeatable)"
    )
    guest.add_argument(
        "--ring", choices=get_args(RingLayout), help="layout of the virtio queues (default: split)"
    )
    guest.add_argument("--until", metavar="TEXT", help="end when the console prints TEXT")
    guest.add_argument("--timeout", type=parse_seconds, metavar="SECONDS", help="give up after that long")
