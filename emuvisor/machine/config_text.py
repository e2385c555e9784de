"""A guest's configuration as TOML text, in the form that `config_file` reads."""

from collections.abc import Mapping
from typing import Any

from emuvisor.errors import ConfigError
from emuvisor.units import GIB, MIB

__all__ = ["to_toml"]

SIZES = frozenset({"memory", "memory_max", "memory_reservation", "memory_limit", "current_memory"})
"""Keys that people write with a unit."""
_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def to_toml(data: Mapping[str, Any]) -> str:
    """`data` as TOML: texts, numbers, truth values, lists of those, tables, and lists of tables.

    Raises ConfigError for what TOML cannot have, such as a path that is no UTF-8.
    """
    lines = [f"{key} = {_value(key, value)}" for key, value in data.items() if not _is_table(value)]
    for key, value in data.items():
        if not _is_table(value):
            continue
        several = not isinstance(value, Mapping)
        for table in value if several else (value,):
            lines += ["", f"[[{key}]]" if several else f"[{key}]"]
            lines += [f"{inner} = {_value(inner, item)}" for inner, item in table.items()]
    return "\n".join(lines) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
    )


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return _size(value) if key in SIZES else str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_value('', item) for item in value)}]"
    if not isinstance(value, str):
        raise ConfigError(f"{key}: {value!r} cannot be in a definition")
    return _text(key, value)


def _size(size: int) -> str:
    for unit, letter in ((GIB, "G"), (MIB, "M")):
        if size and size % unit == 0:
            return f'"{size // unit}{letter}"'
    return str(size)


def _text(key: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{key}: {text!r} is no UTF-8 and cannot be in a definition") from None
    return '"' + "".join(_character(c) for c in text) + '"'


def _character(c: str) -> str:
    if c in _ESCAPES:
        return _ESCAPES[c]
    return f"\\u{ord(c):04x}" if c < " " or c == "\x7f" else c
