"""From the options of `emuvisor run` to the guests' configurations. Every conflict is an error."""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emuvisor.errors import UsageError
from emuvisor.images import cache
from emuvisor.images.recipes import RECIPES
from emuvisor.machine.choices import ClockMode
from emuvisor.machine.config import (
    USER_NETWORK,
    DiskConfig,
    FlatConfig,
    GuestConfig,
    KernelConfig,
    NicConfig,
    ShareConfig,
)
from emuvisor.machine.config_file import load_config, load_networks
from emuvisor.memory.stage2 import MAX_FRAMES
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB, PAGE_SIZE

__all__ = ["configs", "names_guest", "networks", "pool_size"]

_SOURCES = ("image", "kernel", "flat", "firmware")
_KERNEL_PARTS = ("initrd", "append", "decompressor")
_BOOT_OPTIONS = (
    *_SOURCES,
    *_KERNEL_PARTS,
    *("disk", "disk_bus", "option_rom", "device", "firmware_variables"),
    *("nic", "share", "console_port", "input"),
)
_VALUES = (
    *("name", "board", "cpu", "vcpus", "clock", "seed", "until", "rng", "balloon", "vsock", "ring"),
    *("cpu_weight", "cpu_cap", "cpu_reservation", "cpu_limit", "cpu_affinity"),
    *("cpu_period_us", "cpu_latency_us"),
    *("memory", "memory_max", "memory_reservation", "memory_limit", "memory_shares", "memory_priority"),
)

FIRMWARE_SIZE = MIB
"""A guest's ROMs, which count beside its RAM."""


def configs(args: argparse.Namespace, default_clock: ClockMode) -> list[GuestConfig]:
    """The guests that the options describe; `default_clock` holds where neither options nor a file name one.

    Raises UsageError for options that contradict each other, ConfigError and ImageError for what they name.
    """
    values = {key: getattr(args, key) for key in _VALUES if getattr(args, key) is not None}
    if args.timeout is not None:
        values["timeout_s"] = args.timeout
    if args.config:
        return _from_files(args, values)
    values.setdefault("clock", "host" if args.nic else default_clock)
    return [GuestConfig(**values, **_boot(args))]


def names_guest(args: argparse.Namespace) -> bool:
    """Whether an option says anything of a guest; a timeout alone does not."""
    return bool(_given(args, (*_BOOT_OPTIONS, *_VALUES, "config")))


def networks(path: Path | None, guests: Sequence[GuestConfig]) -> list[NetworkConfig]:
    """The networks of the file `path`, and those that `guests` name besides, which have no way out.

    Raises ConfigError.
    """
    defined = [] if path is None else load_networks(path)
    named = {nic.network: None for guest in guests for nic in guest.nics}
    known = {USER_NETWORK, *(network.name for network in defined)}
    return defined + [NetworkConfig(name) for name in named if name not in known]


def pool_size(guests: Iterable[GuestConfig]) -> int:
    """Bytes of host memory with which none of `guests` can ever run short, as far as one pool goes."""
    total = sum((guest.memory_max or guest.memory) + FIRMWARE_SIZE for guest in guests)
    return min(total, (MAX_FRAMES - 1) * PAGE_SIZE)


def _given(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Which options of `names` were given, as they are written."""
    return [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None]


def _from_files(args: argparse.Namespace, values: dict[str, Any]) -> list[GuestConfig]:
    if boot := _given(args, _BOOT_OPTIONS):
        raise UsageError(f"{', '.join(boot)} with --config: what the guest boots stands in the configuration")
    if len(args.config) > 1 and args.name is not None:
        raise UsageError(f"--name is for one guest; there are {len(args.config)} --config")
    guests = [replace(load_config(path), **values) for path in args.config]
    name, count = Counter(guest.name for guest in guests).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{count} guests are called {name!r}; give each configuration a name of its own")
    return guests


def _boot(args: argparse.Namespace) -> dict[str, Any]:
    """The part of a configuration that says what to boot."""
    sources = _given(args, _SOURCES)
    if len(sources) > 1:
        raise UsageError(f"{' and '.join(sources)}: a guest boots from one of them")
    if not sources and not args.disk:
        raise UsageError("nothing to boot: give --image, --kernel, --flat, --firmware, --disk or --config")
    boot: dict[str, Any] = {
        "disks": tuple(DiskConfig(**disk) for disk in args.disk or ()),
        "nics": tuple(NicConfig(**nic) for nic in args.nic or ()),
        "shares": tuple(ShareConfig(**share) for share in args.share or ()),
        "console_ports": tuple(args.console_port or ()),
        "input": tuple(args.input or ()),
        "option_roms": tuple(args.option_rom or ()),
        "devices": tuple(args.device or ()),
        "firmware_variables": args.firmware_variables,
    }
    if args.image is not None:
        boot |= _image(args, boot["disks"])
    elif args.kernel is not None:
        boot["kernel"] = KernelConfig(
            args.kernel, args.initrd, args.append or "", args.decompressor or "host"
        )
    elif parts := _given(args, _KERNEL_PARTS):
        raise UsageError(f"{', '.join(parts)} without --kernel or --image")
    if args.flat is not None:
        path, address, mode = args.flat
        boot["flat"] = FlatConfig(path, address, mode) if mode else FlatConfig(path, address)
    if args.firmware is not None:
        boot["firmware"] = args.firmware
    if args.disk_bus is not None:
        boot["disks"] = tuple(
            replace(disk, bus=args.disk_bus) if disk.bus is None and disk.kind == "disk" else disk
            for disk in boot["disks"]
        )
    return boot


def _image(args: argparse.Namespace, disks: tuple[DiskConfig, ...]) -> dict[str, Any]:
    """How the image `args.image` boots: its kernel, or its disk, which stays as it is."""
    image = cache.find(args.image)
    if image is None:
        if args.image in RECIPES:
            raise UsageError(
                f"the image {args.image!r} is not here yet; get it with: emuvisor images pull {args.image}"
            )
        raise UsageError(f"there is no image {args.image!r}; 'emuvisor images list' shows what there is")
    if image.kernel is not None:
        if args.initrd is not None:
            raise UsageError("--initrd with --image: the image has its own")
        append = " ".join(part for part in (image.append, args.append) if part)
        return {"kernel": KernelConfig(image.kernel, image.initrd, append, args.decompressor or "host")}
    if image.disk is None:
        raise UsageError(f"the image {args.image!r} is firmware; boot a disk with --firmware {args.image}")
    if parts := _given(args, _KERNEL_PARTS):
        raise UsageError(f"{', '.join(parts)} with --image {args.image}, which boots from its disk")
    system = DiskConfig(image.disk, overlay="temporary")
    return {"disks": (system, *disks), "firmware": image.firmware}
