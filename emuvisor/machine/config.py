"""A guest's configuration. `config_file` reads one from TOML."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from emuvisor.devices.fair_share import DEFAULT_SHARES, MAX_SHARES
from emuvisor.devices.limits import DiskLimits, NicLimits, Rate
from emuvisor.errors import ConfigError
from emuvisor.machine.choices import (
    BoardName,
    ClockMode,
    DiskBus,
    DiskFormat,
    DiskKind,
    FirmwareName,
    InputKind,
    RingLayout,
)
from emuvisor.machine.loaders.flat import FlatMode
from emuvisor.machine.loaders.linux import Decompressor
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.net.forward import Forward
from emuvisor.units import MIB, PAGE_SIZE, TIB

__all__ = [
    "DEFAULT_EPOCH_S",
    "DiskConfig",
    "FlatConfig",
    "GuestConfig",
    "KernelConfig",
    "NicConfig",
    "ShareConfig",
]

DEFAULT_EPOCH_S = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp())
"""Where a virtual clock starts: a fixed day, so that every run is the same."""
EPOCH_END_S = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
MAX_VCPUS = 8
MAX_SERIAL_PORTS = 4
MAX_IDE_DRIVES = 4
MAX_FLOPPIES = 2
MAX_MEMORY_SHARES = 1_000_000
MAX_MEMORY_PRIORITY = 100
MAX_CPU_WEIGHT = 10_000
MIN_CPU_CAP = 0.01
MAX_CPU_LIMIT = TIB
MIN_CPU_LATENCY_US, MAX_CPU_LATENCY_US = 100, 100_000
MIN_CPU_PERIOD_US, MAX_CPU_PERIOD_US = 1_000, 1_000_000
LAST_PCPU = 31
MAX_TIMEOUT_S = 365 * 24 * 3600
MAX_VIRTIO_DEVICES = 24
"""Slots 3 to 26 of the PCI bus, which leaves some to devices of the user's."""
MAX_DISK_QUEUES = 16
MAX_NIC_QUEUES = 16
FIRST_GUEST_CID, LAST_GUEST_CID = 3, 0xFFFF_FFFE
"""0 to 2 and the last one have meanings of their own (virtio 1.2, section 5.10.4)."""
MAX_TAG = 36
"""Bytes in the name of a shared folder (virtio 1.2, section 5.11.4)."""
USER_NETWORK = "user"
"""A network of the NIC's own, with a way out."""
OUI = 0x525400
"""Locally administered; what people know virtual network cards by."""
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _check_name(key: str, value: str) -> None:
    if _NAME.fullmatch(value) is None:
        raise ConfigError(f"{key}: {value!r} is not 1 to 64 letters, digits, '-', '_' or '.'")


def _check_choice(key: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{key}: {value!r} is not one of {', '.join(choices)}")


def _check_range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{key}: {value} is outside {low} to {high}")


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """A kernel (bzImage, multiboot or ELF) with its initrd and command line.

    `decompressor` says who unpacks a bzImage: the host (fast) or the image's own code in the guest.
    """

    path: Path
    initrd: Path | None = None
    append: str = ""
    decompressor: Decompressor = "host"

    def __post_init__(self) -> None:
        _check_choice("kernel.decompressor", self.decompressor, get_args(Decompressor))


@dataclass(frozen=True, slots=True)
class FlatConfig:
    """A flat binary, put at guest physical `address` and entered there in `mode`."""

    path: Path
    address: int
    mode: FlatMode = "real16"

    def __post_init__(self) -> None:
        _check_choice("flat.mode", self.mode, get_args(FlatMode))
        if self.address < 0:
            raise ConfigError(f"flat.address: {self.address} is negative")


@dataclass(frozen=True, slots=True)
class DiskConfig:
    """A drive with an image in it: a hard disk, a CD-ROM (ISO 9660), or a floppy disk of 1.44 MB and the like.

    `format` is "raw", "qcow2" or "overlay" (an overlay file that says what it is an overlay of); None goes by the
    file's name. `overlay` keeps the image as it is: what the guest writes goes to this file, made when it does not
    exist, or with "temporary" is forgotten with the guest. `bus` says how a hard disk is connected: "ide" or
    "virtio"; None is what the board has, IDE first. `queues`: a virtio disk's.

    A hard disk can have limits of bytes and operations in a second, by direction or in total, each with a burst
    (`devices.limits.Rate`). `shares` is its weight against other guests' disks on a backend that the host limits.
    """

    path: Path
    readonly: bool = False
    kind: DiskKind = "disk"
    overlay: Path | Literal["temporary"] | None = None
    format: DiskFormat | None = None
    bus: DiskBus | None = None
    queues: int = 1
    total_bytes: Rate | None = None
    read_bytes: Rate | None = None
    write_bytes: Rate | None = None
    total_iops: Rate | None = None
    read_iops: Rate | None = None
    write_iops: Rate | None = None
    shares: int = DEFAULT_SHARES

    def __post_init__(self) -> None:
        _check_choice("disks.kind", self.kind, get_args(DiskKind))
        _check_range("disks.queues", self.queues, 1, MAX_DISK_QUEUES)
        if self.format is not None:
            _check_choice("disks.format", self.format, get_args(DiskFormat))
        if self.bus is not None:
            _check_choice("disks.bus", self.bus, get_args(DiskBus))
        if self.overlay is not None and (self.readonly or self.kind != "disk"):
            what = "a read-only disk" if self.kind == "disk" else f"a {self.kind}"
            raise ConfigError(f"disks.overlay: {what} has none")
        _check_range("disks.shares", self.shares, 1, MAX_SHARES)
        if self.kind != "disk":
            for f in fields(DiskLimits):
                if getattr(self, f.name) is not None:
                    raise ConfigError(f"disks.{f.name}: a {self.kind} has no limits")
            for key, default in (("format", "raw"), ("bus", "ide")):
                if getattr(self, key) not in (None, default):
                    raise ConfigError(f"disks.{key}: a {self.kind} is not {getattr(self, key)}")

    @property
    def limits(self) -> DiskLimits:
        """All limits together."""
        return DiskLimits(**{f.name: getattr(self, f.name) for f in fields(DiskLimits)})


@dataclass(frozen=True, slots=True)
class NicConfig:
    """A network card on the virtual network called `network`.

    "user" is a network of its own with a way out through the host's own connections. `mac` is made from the guest's
    name when it is not given. `forwards` are ports of the host's that lead to the guest's, "tcp:8080:80" (loopback) or
    "udp:192.0.2.1:53:53"; they need a network with a user-mode uplink. `queues` are pairs, one for each direction.

    Limits of bytes and packets in a second, each with a burst: into the guest and out of it.
    """

    network: str = USER_NETWORK
    mac: str | None = None
    forwards: tuple[str, ...] = ()
    queues: int = 1
    in_bytes: Rate | None = None
    out_bytes: Rate | None = None
    in_packets: Rate | None = None
    out_packets: Rate | None = None

    def __post_init__(self) -> None:
        _check_name("nics.network", self.network)
        _check_range("nics.queues", self.queues, 1, MAX_NIC_QUEUES)
        if self.mac is not None:
            if _MAC.fullmatch(self.mac) is None:
                raise ConfigError(f"nics.mac: {self.mac!r} is not six pairs of hexadecimal digits with ':'")
            if int(self.mac[:2], 16) & 1:
                raise ConfigError(f"nics.mac: {self.mac} is a group's address, not a card's")
        for forward in self.forwards:
            Forward.parse(forward)

    @property
    def limits(self) -> NicLimits:
        """All limits together."""
        return NicLimits(**{f.name: getattr(self, f.name) for f in fields(NicLimits)})

    def address(self, guest: str, number: int) -> bytes:
        """The six bytes of its MAC address as card `number` of `guest`."""
        if self.mac is not None:
            return bytes.fromhex(self.mac.replace(":", ""))
        return OUI.to_bytes(3, "big") + hashlib.sha256(f"{guest}/{number}".encode()).digest()[:3]


@dataclass(frozen=True, slots=True)
class ShareConfig:
    """A folder of the host's that the guest can mount: `mount -t virtiofs TAG /mnt`."""

    path: Path
    tag: str
    readonly: bool = True

    def __post_init__(self) -> None:
        if not self.tag or len(self.tag.encode()) > MAX_TAG or "\0" in self.tag:
            raise ConfigError(f"shares.tag: {self.tag!r} is not 1 to {MAX_TAG} bytes")


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """Everything that defines a guest. Invalid values raise ConfigError naming key, value and limit.

    board: "pc" (PCI, IDE, VGA, ACPI), "microvm" (virtio and what booting a kernel needs) or "isa" (a PC of 1990).
    memory: bytes, a multiple of 4 KiB from 1 MiB to 512 GiB.
    memory_max: bytes that it can be given while it runs, by a virtio-mem device: `memory` and 2 MiB or a multiple more.
    memory_reservation: bytes of `memory` that the host always backs.
    memory_limit: bytes of the host's memory that the guest never passes, however much is free.
    memory_shares: its weight against other guests when memory is short, 1 to 1,000,000.
    memory_priority: -100 to 100; guests of a lower one give all they can before those of a higher one.
    cpu_weight: its share of the pCPUs against other guests, 1 to 10,000.
    cpu_cap: percent of a pCPU that it never passes, 0.01 to 100.
    cpu_reservation: percent of a pCPU that it gets whenever it wants, 0 to 100 and at most the cap.
    cpu_limit: bytes of guest code a second that it never passes, 1 to 2 ** 40.
    cpu_affinity: numbers of the pCPUs that may run it, 0 to 31; None are all.
    cpu_period_us: over which cap and reservation hold, 1,000 to 1,000,000.
    cpu_latency_us: how soon it wants to run when it can, which is how long it runs at a time; 100 to 100,000.
    cpu: the name of a CPU model; None is the default one.
    vcpus: processors, 1 to 8 (the isa board has 1). They take turns on one pCPU.
    clock: "virtual" counts what the guest runs and repeats exactly; "host" follows the wall clock.
    epoch_s: the real-time clock's start in seconds since 1970 (UTC). None: 2025-01-01 with a virtual
        clock, now with the host's.
    seed: of the random numbers that a guest on the virtual clock gets; with its identity, they are the same each time.
    identity: what MAC addresses, generation ID and random numbers are made of where they are not given; None: its name.
        A clone that is to be taken for its source has the source's.
    firmware: a ROM image's path, or the name of one from the image cache ("seabios", "ovmf").
    firmware_variables: a file in which OVMF keeps its variables; without one they are forgotten.
    disks: at most 4 hard disks and CD-ROMs at IDE and 2 floppy disks.
    nics: network cards; guests with such have the same clock as their host, by which packets take time.
    shares: folders of the host's.
    rng, balloon: a source of random numbers; a balloon, by which the host asks for memory back.
    vsock: the guest's number for sockets to the host, from 3 on.
    console_ports: names of serial ports on the virtio console.
    input: "keyboard", "mouse", "tablet" beside what the board has.
    ring: "split" or "packed", how the queues of the virtio devices lie in memory.
    option_roms: further ROM images that the firmware runs.
    devices: devices of the user's, as "module:Class" or the name of an entry point.
    until: console text that ends the run as a success.
    timeout_s: wall-clock seconds after which the run is given up.

    The guest boots `kernel` or `flat`, or else the first disk through `firmware` or emuvisor's own BIOS.
    """

    name: str = "guest"
    board: BoardName = "pc"
    memory: int = 256 * MIB
    memory_max: int | None = None
    memory_reservation: int = 0
    memory_limit: int | None = None
    memory_shares: int = 1000
    memory_priority: int = 0
    cpu_weight: int = 100
    cpu_cap: float | None = None
    cpu_reservation: float = 0.0
    cpu_limit: int | None = None
    cpu_affinity: tuple[int, ...] | None = None
    cpu_period_us: int = 20_000
    cpu_latency_us: int = 5_000
    cpu: str | None = None
    vcpus: int = 1
    clock: ClockMode = "virtual"
    epoch_s: int | None = None
    seed: int = 0
    identity: str | None = None
    kernel: KernelConfig | None = None
    flat: FlatConfig | None = None
    firmware: Path | FirmwareName | None = None
    firmware_variables: Path | None = None
    disks: tuple[DiskConfig, ...] = ()
    option_roms: tuple[Path, ...] = ()
    devices: tuple[str, ...] = ()
    nics: tuple[NicConfig, ...] = ()
    shares: tuple[ShareConfig, ...] = ()
    rng: bool = False
    balloon: bool = False
    vsock: int | None = None
    console_ports: tuple[str, ...] = ()
    input: tuple[InputKind, ...] = ()
    ring: RingLayout = "split"
    serial_ports: int = 1
    until: str | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        if self.identity is not None:
            _check_name("identity", self.identity)
        _check_choice("board", self.board, get_args(BoardName))
        MemoryMap.for_ram(self.memory, self.memory_max)
        self._check_memory()
        self._check_cpu()
        if self.cpu is not None:
            _check_name("cpu", self.cpu)
        _check_range("vcpus", self.vcpus, 1, MAX_VCPUS)
        _check_choice("clock", self.clock, get_args(ClockMode))
        if self.epoch_s is not None:
            _check_range("epoch_s", self.epoch_s, 0, EPOCH_END_S - 1)
        _check_range("serial_ports", self.serial_ports, 0, MAX_SERIAL_PORTS)
        if self.until is not None and not self.until:
            raise ConfigError("until: the text is empty")
        if self.timeout_s is not None and not 0 < self.timeout_s <= MAX_TIMEOUT_S:
            raise ConfigError(f"timeout_s: {self.timeout_s} is not more than 0 and at most {MAX_TIMEOUT_S}")
        sources = [key for key in ("kernel", "flat", "firmware") if getattr(self, key) is not None]
        if len(sources) > 1:
            raise ConfigError(f"{' and '.join(sources)}: a guest boots from one of kernel, flat and firmware")
        if not sources and not self.disks:
            raise ConfigError("nothing to boot from: give one of kernel, flat, firmware and disks")
        self._check_virtio()
        self._check_board()

    def _check_memory(self) -> None:
        _check_range("memory_reservation", self.memory_reservation, 0, self.memory)
        if self.memory_limit is not None and self.memory_limit < max(self.memory_reservation, PAGE_SIZE):
            raise ConfigError(
                f"memory_limit: {self.memory_limit} is less than a page of {PAGE_SIZE} bytes or than the "
                f"reservation of {self.memory_reservation}"
            )
        _check_range("memory_shares", self.memory_shares, 1, MAX_MEMORY_SHARES)
        _check_range("memory_priority", self.memory_priority, -MAX_MEMORY_PRIORITY, MAX_MEMORY_PRIORITY)

    def _check_cpu(self) -> None:
        _check_range("cpu_weight", self.cpu_weight, 1, MAX_CPU_WEIGHT)
        _check_range("cpu_reservation", self.cpu_reservation, 0, 100)
        if self.cpu_cap is not None:
            _check_range("cpu_cap", self.cpu_cap, MIN_CPU_CAP, 100)
            if self.cpu_reservation > self.cpu_cap:
                raise ConfigError(
                    f"cpu_reservation: {self.cpu_reservation} is more than the cap of {self.cpu_cap}"
                )
        if self.cpu_limit is not None:
            _check_range("cpu_limit", self.cpu_limit, 1, MAX_CPU_LIMIT)
        if self.cpu_affinity is not None:
            if not self.cpu_affinity:
                raise ConfigError("cpu_affinity: there is no pCPU in it")
            for pcpu in self.cpu_affinity:
                _check_range("cpu_affinity", pcpu, 0, LAST_PCPU)
        _check_range("cpu_period_us", self.cpu_period_us, MIN_CPU_PERIOD_US, MAX_CPU_PERIOD_US)
        _check_range("cpu_latency_us", self.cpu_latency_us, MIN_CPU_LATENCY_US, MAX_CPU_LATENCY_US)

    @property
    def known_as(self) -> str:
        """Its identity, or else its name."""
        return self.identity or self.name

    def disk_bus(self, disk: DiskConfig) -> DiskBus:
        """How `disk` is connected on this board."""
        return disk.bus or ("virtio" if self.board == "microvm" and disk.kind == "disk" else "ide")

    @property
    def virtio_disks(self) -> list[DiskConfig]:
        """The disks at virtio, in order."""
        return [disk for disk in self.disks if self.disk_bus(disk) == "virtio"]

    @property
    def has_virtio(self) -> bool:
        """Whether it has any virtio device."""
        return self._virtio_count > 0

    @property
    def _virtio_count(self) -> int:
        several = (self.virtio_disks, self.nics, self.shares, self.input)
        single = (
            self.rng,
            self.balloon,
            self.plug_limit > 0,
            self.vsock is not None,
            bool(self.console_ports),
        )
        return sum(map(len, several)) + sum(single)

    def _check_virtio(self) -> None:
        _check_choice("ring", self.ring, get_args(RingLayout))
        for kind in self.input:
            _check_choice("input", kind, get_args(InputKind))
        if self.vsock is not None:
            _check_range("vsock", self.vsock, FIRST_GUEST_CID, LAST_GUEST_CID)
        for key, names in (
            ("console_ports", self.console_ports),
            ("shares.tag", tuple(share.tag for share in self.shares)),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise ConfigError(f"{key}: {name!r} is there twice")
        for name in self.console_ports:
            _check_name("console_ports", name)
        count = self._virtio_count
        if count and self.board == "isa":
            raise ConfigError("the isa board has no virtio devices")
        if count > MAX_VIRTIO_DEVICES:
            raise ConfigError(f"{count} virtio devices are too many; the limit is {MAX_VIRTIO_DEVICES}")

    def _check_board(self) -> None:
        """What this board has no place for."""
        count = Counter(disk.kind for disk in self.disks if self.disk_bus(disk) == "ide")
        if self.board == "isa" and self.vcpus > 1:
            raise ConfigError(f"vcpus: the isa board has one processor, not {self.vcpus}")
        if self.board == "pc":
            if count["disk"] + count["cdrom"] > MAX_IDE_DRIVES:
                raise ConfigError(f"disks: the pc board has {MAX_IDE_DRIVES} hard disks and CD-ROMs at most")
            if count["floppy"] > MAX_FLOPPIES:
                raise ConfigError(f"disks: the pc board has {MAX_FLOPPIES} floppy disks at most")
            return
        if isinstance(self.firmware, str):
            raise ConfigError(f"firmware: {self.firmware} needs the pc board, this is {self.board}")
        if self.option_roms:
            raise ConfigError(f"option_roms: the {self.board} board has no bus for them")
        if count["cdrom"]:
            raise ConfigError(f"disks: the {self.board} board has no CD-ROM")
        if self.board == "microvm" and len(self.virtio_disks) < len(self.disks):
            raise ConfigError("disks: the microvm board has disks at virtio only")

    @property
    def memory_map(self) -> MemoryMap:
        """Where the guest's RAM lies."""
        return MemoryMap.for_ram(self.memory, self.memory_max)

    @property
    def plug_limit(self) -> int:
        """Bytes that can be plugged beyond `memory`."""
        return 0 if self.memory_max is None else self.memory_max - self.memory
