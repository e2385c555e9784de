"""What defines a guest of the store: its configuration, and what only the manager knows of it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from emuvisor.devices.limits import Rate
from emuvisor.errors import ConfigError, UsageError
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.config_file import from_mapping
from emuvisor.machine.config_mapping import to_mapping
from emuvisor.machine.config_text import to_toml
from emuvisor.store import Store
from emuvisor.units import parse_size

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["OWN_KEYS", "Definition", "new_definition", "size_of"]

OWN_KEYS = ("autostart", "current_memory")
"""Keys of a definition that are not fields of `GuestConfig`."""


@dataclass(frozen=True, slots=True)
class Definition:
    """`autostart`: it is started with the manager. `current_memory`: bytes that it was last asked to have, when that is
    more than it boots with."""

    config: GuestConfig
    autostart: bool = False
    current_memory: int | None = None

    @classmethod
    def parse(cls, data: Mapping[str, Any], source: str, folder: Path | None = None) -> "Definition":
        """The definition in plain `data`, which messages call `source`. Raises ConfigError."""
        config = from_mapping({k: v for k, v in data.items() if k not in OWN_KEYS}, source, folder)
        autostart, current = data.get("autostart", False), data.get("current_memory")
        if not isinstance(autostart, bool):
            raise ConfigError(f"{source}: autostart: {autostart!r} is not true or false")
        if current is not None:
            current = size_of("current_memory", current, source)
            if not config.memory <= current <= (config.memory_max or config.memory):
                raise ConfigError(f"{source}: current_memory: {current} is not between memory and memory_max")
        return cls(config, autostart, current)

    @classmethod
    def load(cls, store: Store, name: str) -> "Definition":
        """That of guest `name`. Raises UsageError when there is none, ConfigError when it is damaged."""
        source = f"the definition of guest {name!r}"
        try:
            data = tomllib.loads(store.definition(name))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{source} is no TOML: {error}") from None
        return cls.parse({**data, "name": name}, source)  # a crash may have come between folder and text

    def plain(self) -> dict[str, Any]:
        """As plain data, without what has its default value; paths are absolute."""
        own = {"autostart": self.autostart or None, "current_memory": self.current_memory}
        data = _changed(self.config, to_mapping(self.config))
        return {"name": self.config.name, **{k: v for k, v in own.items() if v is not None}, **data}

    def text(self) -> str:
        """As TOML."""
        return to_toml(self.plain())


def _changed(config: "DataclassInstance", plain: Mapping[str, Any]) -> dict[str, Any]:
    """What of `plain`, the mapping of `config`, is not the default, in the tables in it, too."""
    changed = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if value is None or value == field.default:
            continue
        changed[field.name] = plain[field.name]
        if is_dataclass(value) and not isinstance(value, Rate):
            changed[field.name] = _changed(cast("DataclassInstance", value), plain[field.name])
        elif isinstance(value, tuple) and is_dataclass(value[0]):
            changed[field.name] = [_changed(*pair) for pair in zip(value, plain[field.name], strict=True)]
    return changed


def size_of(key: str, value: Any, source: str) -> int:
    """Bytes, from a number or a text such as "64M". Raises ConfigError."""
    if isinstance(value, str):
        try:
            return parse_size(value)
        except UsageError as error:
            raise ConfigError(f"{source}: {key}: {error}") from None
    if type(value) is not int:
        raise ConfigError(f'{source}: {key}: {value!r} is not a size, such as "64M" or a number of bytes')
    return value


def new_definition(data: Mapping[str, Any], folder: Path | None, store: Store) -> Definition:
    """What is kept of `data` for a new guest: relative paths start from `folder`; network cards keep the addresses
    that they get now, whatever the guest is called later; what it writes to a disk with a temporary overlay goes to
    the store, as the guest outlives the process. Raises ConfigError."""
    definition = Definition.parse(data, "the definition", folder)
    config = definition.config
    nics = tuple(
        replace(nic, mac=":".join(f"{byte:02x}" for byte in nic.address(config.name, number)))
        for number, nic in enumerate(config.nics)
    )
    disks = tuple(
        replace(disk, overlay=store.disk_path(f"{config.name[:40]}.disk{number}.overlay"))
        if disk.overlay == "temporary"
        else disk
        for number, disk in enumerate(config.disks)
    )
    return replace(definition, config=replace(config, nics=nics, disks=disks))
