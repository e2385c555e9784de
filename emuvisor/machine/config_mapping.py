"""A guest's configuration as plain data: what a snapshot keeps, and `config_file.from_mapping` reads."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.devices.limits import Rate
from emuvisor.machine.config import GuestConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["to_mapping"]


def to_mapping(config: GuestConfig) -> dict[str, Any]:
    """The keys of `config` that have a value, as TOML and JSON can have them; also those that have the default value,
    which may be another one in the version that reads it. Paths are absolute."""
    return _table(config)


def _table(config: "DataclassInstance") -> dict[str, Any]:
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return {key: _plain(value) for key, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Rate):
        return _rate(value)
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _table(value)
    return value


def _rate(rate: Rate) -> str:
    """As `Rate.parse` reads it."""
    if rate.once:
        return f"{rate.per_second}:{rate.capacity}:{rate.once}"
    return str(rate.per_second) if rate.burst is None else f"{rate.per_second}:{rate.burst}"
