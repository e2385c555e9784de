"""Configurations from TOML: a guest's, and those of virtual networks.

    name = "debian"
    memory = "256M"
    until = "login:"
    cpu_weight = 200
    cpu_affinity = [0, 1]

    [kernel]
    path = "vmlinuz"
    initrd = "initrd.img"
    append = "console=ttyS0"

    [[disks]]
    path = "root.qcow2"
    bus = "virtio"

    [[nics]]
    network = "user"
    forwards = ["tcp:8080:80"]

The keys are the fields of `GuestConfig` and of the tables in it; a file of networks has tables `[[networks]]` with the
fields of `NetworkConfig`. Unknown keys are errors.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast, get_args

from emuvisor.devices.limits import DiskLimits, NicLimits, Rate
from emuvisor.errors import ConfigError, UsageError
from emuvisor.machine.choices import FirmwareName
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig, KernelConfig, NicConfig, ShareConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.net.forward import Forward
from emuvisor.units import MIB, parse_size

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["from_mapping", "load_config", "load_networks"]

MAX_CONFIG_SIZE = MIB


def load_config(path: Path | str) -> GuestConfig:
    """The guest defined in the TOML file `path`; relative paths in it start from its folder.

    Raises ConfigError naming the file.
    """
    path = Path(path)
    return from_mapping(_read(path), str(path), path.parent)


def load_networks(path: Path | str) -> list[NetworkConfig]:
    """The virtual networks defined in the TOML file `path`. Raises ConfigError naming the file."""
    path = Path(path)
    data = _read(path)
    try:
        table = _Table("", data, path.parent)
        table.refuse_keys_besides("networks")
        return [_network(t) for t in table.tables("networks")]
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_CONFIG_SIZE:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_SIZE} bytes")
    try:
        return tomllib.loads(raw.decode())
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: no UTF-8, no TOML, a number too long for Python
        raise ConfigError(f"{path}: not TOML: {error}") from None


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
                "memory_max": table.size("memory_max"),
                "memory_reservation": table.size("memory_reservation"),
                "memory_limit": table.size("memory_limit"),
                "memory_shares": table.integer("memory_shares"),
                "memory_priority": table.integer("memory_priority"),
                "cpu_weight": table.integer("cpu_weight"),
                "cpu_cap": table.number("cpu_cap"),
                "cpu_reservation": table.number("cpu_reservation"),
                "cpu_limit": table.size("cpu_limit"),
                "cpu_affinity": tuple(table.integers("cpu_affinity")),
                "cpu_period_us": table.integer("cpu_period_us"),
                "cpu_latency_us": table.integer("cpu_latency_us"),
                "cpu": table.text("cpu"),
                "vcpus": table.integer("vcpus"),
                "clock": table.text("clock"),
                "epoch_s": table.epoch("epoch_s"),
                "seed": table.integer("seed"),
                "identity": table.text("identity"),
                "kernel": _kernel(table.table("kernel")),
                "flat": _flat(table.table("flat")),
                "firmware": table.path("firmware", get_args(FirmwareName)),
                "firmware_variables": table.path("firmware_variables"),
                "disks": tuple(_disk(t) for t in table.tables("disks")),
                "option_roms": tuple(table.paths("option_roms")),
                "devices": tuple(table.texts("devices")),
                "nics": tuple(_nic(t) for t in table.tables("nics")),
                "shares": tuple(_share(t) for t in table.tables("shares")),
                "rng": table.boolean("rng"),
                "balloon": table.boolean("balloon"),
                "vsock": table.integer("vsock"),
                "console_ports": tuple(table.texts("console_ports")),
                "input": tuple(table.texts("input")),
                "ring": table.text("ring"),
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
            "format": table.text("format"),
            "bus": table.text("bus"),
            "queues": table.integer("queues"),
            "shares": table.integer("shares"),
        }
        | {f.name: table.rate(f.name) for f in fields(DiskLimits)},
    )


def _nic(table: "_Table") -> NicConfig:
    return table.build(
        NicConfig,
        {
            "network": table.text("network"),
            "mac": table.text("mac"),
            "forwards": tuple(table.texts("forwards")),
            "queues": table.integer("queues"),
        }
        | {f.name: table.rate(f.name) for f in fields(NicLimits)},
    )


def _network(table: "_Table") -> NetworkConfig:
    names = table.table("names")
    return table.build(
        NetworkConfig,
        {
            "name": table.text("name"),
            "uplink": table.text("uplink"),
            "subnet": table.parsed("subnet", IPv4Network, "an IPv4 subnet, such as 10.0.2.0/24"),
            "subnet6": table.parsed("subnet6", _subnet6, 'an IPv6 subnet, such as fec0::/64, or "none"'),
            "forwards": tuple(Forward.parse(text) for text in table.texts("forwards")),
            "names": {} if names is None else names.all_parsed(ip_address, "an IP address"),
            "anti_spoofing": table.boolean("anti_spoofing"),
            "mtu": table.integer("mtu"),
            "restrict": table.boolean("restrict"),
            "host_loopback": table.boolean("host_loopback"),
            "bootfile": table.text("bootfile"),
        },
    )


def _subnet6(text: str) -> IPv6Network | None:
    return None if text == "none" else IPv6Network(text)


def _share(table: "_Table") -> ShareConfig:
    return table.build(
        ShareConfig,
        {"path": table.path("path"), "tag": table.text("tag"), "readonly": table.boolean("readonly")},
    )


_T = TypeVar("_T")
_Config = TypeVar("_Config", bound="DataclassInstance")


def _is(value: object, kind: type[_T]) -> TypeGuard[_T]:
    """Whether it is one. True is an int to Python, but not to people."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


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
        known = fields(config)
        self.refuse_keys_besides(*(f.name for f in known))
        present = {key: value for key, value in values.items() if key in self._data}
        for f in known:
            if f.default is MISSING and f.default_factory is MISSING and f.name not in present:
                raise ConfigError(f"{self._key(f.name)} is missing")
        return config(**present)

    def refuse_keys_besides(self, *known: str) -> None:
        """Raises ConfigError for a key that is not one of `known`."""
        for key in self._data:
            if key not in known:
                near = get_close_matches(key, known, 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
                raise ConfigError(f"unknown key {key!r} in {self._title()}; {hint}")

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

    def rate(self, key: str) -> Rate | None:
        """A limit: a number in a second, or a text such as "10M:64M"."""
        value = self._data.get(key)
        if not isinstance(value, str):
            value = self._typed(key, int, 'a rate, such as 1000 or "10M:64M"')
        try:
            return Rate.of(value)
        except UsageError as error:
            raise ConfigError(f"{self._key(key)}: {error}") from None

    def epoch(self, key: str) -> int | None:
        """Seconds since 1970, as a number or a date and time (UTC unless it says otherwise)."""
        value = self._data.get(key)
        if not isinstance(value, datetime):
            return self._typed(key, int, "seconds since 1970 or a date and time")
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())

    def parsed(self, key: str, parse: Callable[[str], _T], wanted: str) -> _T | None:
        """What `parse` makes of a text, which raises ValueError for what is not `wanted`."""
        text = self.text(key)
        try:
            return None if text is None else parse(text)
        except ValueError:
            raise ConfigError(f"{self._key(key)}: {text!r} is not {wanted}") from None

    def all_parsed(self, parse: Callable[[str], _T], wanted: str) -> dict[str, _T]:
        """All keys of the table, as `parsed`."""
        found = {key: self.parsed(key, parse, wanted) for key in self._data}
        return {key: value for key, value in found.items() if value is not None}

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
        return self._list(key, str, "a list of texts", "text")

    def integers(self, key: str) -> list[int]:
        """A list of whole numbers."""
        return self._list(key, int, "a list of whole numbers", "a whole number")

    def _list(self, key: str, kind: type[_T], wanted: str, wanted_item: str) -> list[_T]:
        data: list[Any] = self._typed(key, list, wanted) or []
        for item in data:
            if not _is(item, kind):
                raise ConfigError(f"{self._key(key)}: {item!r} is not {wanted_item}")
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
        if not _is(value, kind):
            raise ConfigError(f"{self._key(key)}: {value!r} is not {wanted}")
        return value

    def _key(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def _title(self) -> str:
        return f"[{self._name}]" if self._name else "the top-level table"
