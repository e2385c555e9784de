"""A guest's configuration, from Python or TOML.

    name = "debian"
    memory = "256M"
    until = "login:"

    [kernel]
    path = "vmlinuz"
    initrd = "initrd.img"
    append = "console=ttyS0"

    [[disks]]
    path = "root.img"
    overlay = "temporary"

The keys are the fields of `GuestConfig` and of the tables in it. Unknown keys are errors.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from emuvisor.errors import ConfigError, UsageError
from emuvisor.machine.choices import BoardName, ClockMode, DiskKind, FirmwareName
from emuvisor.machine.loaders.flat import FlatMode
from emuvisor.machine.loaders.linux import Decompressor
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.units import MIB, parse_size

__all__ = [
    "DEFAULT_EPOCH_S",
    "DiskConfig",
    "FlatConfig",
    "GuestConfig",
    "KernelConfig",
    "from_mapping",
    "load_config",
]

DEFAULT_EPOCH_S = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp())
"""Where a virtual clock starts: a fixed day, so that every run is the same."""
EPOCH_END_S = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
MAX_VCPUS = 1
MAX_SERIAL_PORTS = 4
MAX_IDE_DRIVES = 4
MAX_FLOPPIES = 2
MAX_TIMEOUT_S = 365 * 24 * 3600
MAX_CONFIG_SIZE = MIB
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
    """A drive with a raw image in it: a hard disk, a CD-ROM (ISO 9660), or a floppy disk of 1.44 MB and the like.

    `overlay` keeps the image as it is: what the guest writes goes to this file, made when it does not exist, or
    with "temporary" is forgotten with the guest.
    """

    path: Path
    readonly: bool = False
    kind: DiskKind = "disk"
    overlay: Path | Literal["temporary"] | None = None

    def __post_init__(self) -> None:
        _check_choice("disks.kind", self.kind, get_args(DiskKind))
        if self.overlay is not None and (self.readonly or self.kind != "disk"):
            what = "a read-only disk" if self.kind == "disk" else f"a {self.kind}"
            raise ConfigError(f"disks.overlay: {what} has none")


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """Everything that defines a guest. Invalid values raise ConfigError naming key, value and limit.

    board: "pc" (PCI, IDE, VGA, ACPI), "microvm" (nothing but what booting a kernel needs) or "isa" (a PC of 1990).
    memory: bytes, a multiple of 4 KiB from 1 MiB to 512 GiB.
    cpu: the name of a CPU model; None is the default one.
    clock: "virtual" counts what the guest runs and repeats exactly; "host" follows the wall clock.
    epoch_s: the real-time clock's start in seconds since 1970 (UTC). None: 2025-01-01 with a virtual
        clock, now with the host's.
    firmware: a ROM image's path, or the name of one from the image cache ("seabios", "ovmf").
    firmware_variables: a file in which OVMF keeps its variables; without one they are forgotten.
    disks: at most 4 hard disks and CD-ROMs and 2 floppy disks.
    option_roms: further ROM images that the firmware runs.
    devices: devices of the user's, as "module:Class" or the name of an entry point.
    until: console text that ends the run as a success.
    timeout_s: wall-clock seconds after which the run is given up.

    The guest boots `kernel` or `flat`, or else the first disk through `firmware` or emuvisor's own BIOS.
    """

    name: str = "guest"
    board: BoardName = "pc"
    memory: int = 256 * MIB
    cpu: str | None = None
    vcpus: int = 1
    clock: ClockMode = "virtual"
    epoch_s: int | None = None
    kernel: KernelConfig | None = None
    flat: FlatConfig | None = None
    firmware: Path | FirmwareName | None = None
    firmware_variables: Path | None = None
    disks: tuple[DiskConfig, ...] = ()
    option_roms: tuple[Path, ...] = ()
    devices: tuple[str, ...] = ()
    serial_ports: int = 1
    until: str | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        _check_choice("board", self.board, get_args(BoardName))
        MemoryMap.for_ram(self.memory)
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
        self._check_board()

    def _check_board(self) -> None:
        """What this board has no place for."""
        count = Counter(disk.kind for disk in self.disks)
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
        if self.board == "microvm" and self.disks:
            raise ConfigError("disks: the microvm board has no disks")

    @property
    def memory_map(self) -> MemoryMap:
        """Where the guest's RAM lies."""
        return MemoryMap.for_ram(self.memory)


def load_config(path: Path | str) -> GuestConfig:
    """The guest defined in the TOML file `path`; relative paths in it start from its folder.

    Raises ConfigError naming the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_CONFIG_SIZE:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_SIZE} bytes")
    try:
        data = tomllib.loads(raw.decode())
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: no UTF-8, no TOML, a number too long for Python
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return from_mapping(data, str(path), path.parent)


def from_mapping(data: Mapping[str, Any], source: str, folder: Path | None = None) -> GuestConfig:
    """The guest defined by plain `data`, as read from TOML or JSON.

    `source` is what messages call it; relative paths start from `folder`. Raises ConfigError.
    """
    try:
        table = _Table("", data, folder or Path())
        return table.build(
            GuestConfig,
            {
                "name": table.text("name"),
                "board": table.text("board"),
                "memory": table.size("memory"),
                "cpu": table.text("cpu"),
                "vcpus": table.integer("vcpus"),
                "clock": table.text("clock"),
                "epoch_s": table.epoch("epoch_s"),
                "kernel": _kernel(table.table("kernel")),
                "flat": _flat(table.table("flat")),
                "firmware": table.path("firmware", get_args(FirmwareName)),
                "firmware_variables": table.path("firmware_variables"),
                "disks": tuple(_disk(t) for t in table.tables("disks")),
                "option_roms": tuple(table.paths("option_roms")),
                "devices": tuple(table.texts("devices")),
                "serial_ports": table.integer("serial_ports"),
                "until": table.text("until"),
                "timeout_s": table.number("timeout_s"),
            },
        )
    except ValueError as error:  # besides ConfigError, a number too long to be printed
        raise ConfigError(f"{source}: {error}") from None


def _kernel(table: "_Table | None") -> KernelConfig | None:
    if table is None:
        return None
    return table.build(
        KernelConfig,
        {
            "path": table.path("path"),
            "initrd": table.path("initrd"),
            "append": table.text("append"),
            "decompressor": table.text("decompressor"),
        },
    )


def _flat(table: "_Table | None") -> FlatConfig | None:
    if table is None:
        return None
    return table.build(
        FlatConfig,
        {"path": table.path("path"), "address": table.integer("address"), "mode": table.text("mode")},
    )


def _disk(table: "_Table") -> DiskConfig:
    return table.build(
        DiskConfig,
        {
            "path": table.path("path"),
            "readonly": table.boolean("readonly"),
            "kind": table.text("kind"),
            "overlay": table.path("overlay", ("temporary",)),
        },
    )


_T = TypeVar("_T")
_Config = TypeVar("_Config", GuestConfig, KernelConfig, FlatConfig, DiskConfig)


class _Table:
    """A table of the configuration whose values are read by type; an absent key reads as None."""

    def __init__(self, name: str, data: Mapping[str, Any], folder: Path) -> None:
        self._name = name
        self._data = data
        self._folder = folder

    def build(self, config: type[_Config], values: Mapping[str, Any]) -> _Config:
        """A `config` from those of `values` that are present.

        Raises ConfigError for a key that `config` does not have, and for one that it needs.
        """
        known = [f.name for f in fields(config)]
        for key in self._data:
            if key not in known:
                near = get_close_matches(key, known, 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
                raise ConfigError(f"unknown key {key!r} in {self._title()}; {hint}")
        present = {key: value for key, value in values.items() if key in self._data}
        for key in ("path", "address"):
            if key in known and key not in present:
                raise ConfigError(f"{self._key(key)} is missing")
        return config(**present)

    def text(self, key: str) -> str | None:
        return self._typed(key, str, "text")

    def integer(self, key: str) -> int | None:
        return self._typed(key, int, "a whole number")

    def boolean(self, key: str) -> bool | None:
        return self._typed(key, bool, "true or false")

    def number(self, key: str) -> float | None:
        if isinstance(self._data.get(key), float):
            return cast(float, self._data[key])
        return self._typed(key, int, "a number")

    def size(self, key: str) -> int | None:
        """Bytes, as a number or a text such as "256M"."""
        if not isinstance(self._data.get(key), str):
            return self._typed(key, int, 'a size, such as "256M" or a number of bytes')
        try:
            return parse_size(self._data[key])
        except UsageError as error:
            raise ConfigError(f"{self._key(key)}: {error}") from None

    def epoch(self, key: str) -> int | None:
        """Seconds since 1970, as a number or a date and time (UTC unless it says otherwise)."""
        value = self._data.get(key)
        if not isinstance(value, datetime):
            return self._typed(key, int, "seconds since 1970 or a date and time")
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())

    def path(self, key: str, names: tuple[str, ...] = ()) -> Path | str | None:
        """A path, or one of `names`."""
        text = self.text(key)
        return text if text is None or text in names else self._path(key, text)

    def _path(self, key: str, text: str) -> Path:
        if not text or "\0" in text:
            raise ConfigError(f"{self._key(key)}: {text!r} is not a path")
        return self._folder / text

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        data: list[Any] = self._typed(key, list, "a list of texts") or []
        for item in data:
            if not isinstance(item, str):
                raise ConfigError(f"{self._key(key)}: {item!r} is not text")
        return data

    def paths(self, key: str) -> list[Path]:
        """A list of paths."""
        return [self._path(key, text) for text in self.texts(key)]

    def table(self, key: str) -> "_Table | None":
        data = self._typed(key, dict, "a table")
        return None if data is None else _Table(self._key(key), data, self._folder)

    def tables(self, key: str) -> "list[_Table]":
        data: list[Any] = self._typed(key, list, "a list of tables") or []
        for index, item in enumerate(data):
            if not isinstance(item, dict):
                raise ConfigError(f"{self._key(key)}[{index}]: {item!r} is not a table")
        return [_Table(f"{self._key(key)}[{i}]", item, self._folder) for i, item in enumerate(data)]

    def _typed(self, key: str, kind: type[_T], wanted: str) -> _T | None:
        if key not in self._data:
            return None
        value = self._data[key]
        # True is an int to Python, but not to people.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{self._key(key)}: {value!r} is not {wanted}")
        return value

    def _key(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def _title(self) -> str:
        return f"[{self._name}]" if self._name else "the top-level table"
