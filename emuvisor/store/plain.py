"""Plain data with bytes in it as JSON: readable by people, and nothing in it can make an object of a class.

Bytes become {"$bytes": base64}; a name that begins with "$" gets one more "$".
"""

import base64
import binascii
import json
import math
from typing import Any

from emuvisor.errors import SnapshotError

__all__ = ["decode", "encode"]

_BYTES = "$bytes"
MAX_DEPTH = 64
"""Of lists and dicts in each other."""


def encode(data: Any) -> bytes:
    """`data` (None, bool, int, float, str, bytes, lists, and dicts by str, of those) as UTF-8.

    Raises SnapshotError for anything else, naming where it is.
    """
    return json.dumps(_as_json(data, "", 0), separators=(",", ":"), ensure_ascii=False).encode()


def _as_json(data: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise SnapshotError(f"data is nested deeper than {MAX_DEPTH} at {where[:80]}")
    if data is None or type(data) in (bool, int):
        return data
    if type(data) is float and math.isfinite(data):
        return data
    if type(data) is str and _is_unicode(data):
        return data
    if type(data) is bytes:
        return {_BYTES: base64.b64encode(data).decode()}
    if type(data) is list:
        return [_as_json(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(data)]
    if type(data) is dict:
        out = {}
        for name, item in data.items():
            if type(name) is not str or not _is_unicode(name):
                raise SnapshotError(f"data has the name {name!r} at {where or 'its top'}; names are strings")
            out["$" + name if name.startswith("$") else name] = _as_json(item, f"{where}.{name}", depth + 1)
        return out
    raise SnapshotError(f"{data!r:.80} is no plain data, at {where or 'its top'}")


def _is_unicode(text: str) -> bool:
    """Whether it can be written: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode(text: bytes) -> Any:
    """What `encode` made `text` from. Raises SnapshotError when it is not of that form."""
    try:
        return json.loads(text, object_hook=_from_json, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SnapshotError(f"saved data is damaged: {error}") from None


def _from_json(item: dict[str, Any]) -> Any:
    if "$" not in "".join(item) or not any(name.startswith("$") for name in item):
        return item
    if list(item) == [_BYTES]:
        try:
            return binascii.a2b_base64(item[_BYTES], strict_mode=True)
        except (TypeError, ValueError):
            raise ValueError("bytes are not in base64") from None
    if any(name.startswith("$") and not name.startswith("$$") for name in item):
        raise ValueError(f"unknown names {sorted(item)!r:.80}")
    return {name.removeprefix("$") if name.startswith("$$") else name: value for name, value in item.items()}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
