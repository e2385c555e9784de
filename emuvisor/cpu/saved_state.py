"""A processor's architectural state as plain data and back, whatever engine it runs on."""

import reprlib
from dataclasses import fields
from typing import Any, Final

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.saved import saved_part
from emuvisor.cpu.reference.faults import Event, Kind
from emuvisor.cpu.state import CpuState, DescriptorTable, Fpu, Mtrrs, Segment
from emuvisor.errors import SnapshotError

__all__ = ["load_cpu", "save_cpu"]

_DEVICE = "cpu"
_VERSION = 2
"""1 was without the x87's last instruction; `machine/state_versions.py` knows what it means."""
_PARTS: Final = (Segment, DescriptorTable, Fpu, Mtrrs)

_NAMES: Final = {kind: tuple(f.name for f in fields(kind)) for kind in (CpuState, *_PARTS)}

_BITS: Final = {
    **dict.fromkeys(("selector", "fcw", "fsw", "fop", "fcs", "fds"), 16),
    **dict.fromkeys(("limit", "flags", "mxcsr", "sysenter_cs"), 32),
    **{"ftw": 8, "st": 80, "xmm": 128},
}
"""Of the registers that do not have 64."""

_MAX_VECTOR = 0xFF
_KINDS: Final = frozenset(kind.value for kind in Kind)


def save_cpu(state: CpuState) -> SavedState:
    """`state` by the names of its fields; segments, tables, FPU and MTRRs are dictionaries of theirs."""
    event = state.event
    saved = {"device": _DEVICE, "version": _VERSION, **_plain(state)}
    saved["event"] = event and [event.vector, int(event.kind), event.error_code, event.instruction]
    return saved


def _plain(part: Any) -> SavedState:
    saved: SavedState = {}
    for name in _NAMES[type(part)]:
        value = getattr(part, name)
        if type(value) is list:
            value = list(value)
        elif type(value) in _PARTS:
            value = _plain(value)
        saved[name] = value
    return saved


def load_cpu(saved: SavedState) -> CpuState:
    """The state that `save_cpu` was given. Raises SnapshotError."""
    check_saved(saved, _DEVICE, _VERSION)
    state = CpuState()
    _fill(state, saved)
    return state


def _fill(part: Any, saved: SavedState) -> None:
    for name in _NAMES[type(part)]:
        default, value = getattr(part, name), saved.get(name)
        kind = type(default)
        if kind is int and type(value) is int and 0 <= value < 1 << _BITS.get(name, 64):
            setattr(part, name, value)
        elif kind in _PARTS:
            _fill(default, saved_part(saved, _DEVICE, name))
        elif name == "event":
            part.event = _event(value)
        elif kind is list and _fits(name, len(default), value):
            default[:] = value
        elif kind is bool and type(value) is bool:
            setattr(part, name, value)
        else:
            raise SnapshotError(
                f"{_DEVICE}: saved register {name!r} is {reprlib.repr(value)}, which it cannot hold"
            )


def _fits(name: str, length: int, value: Any) -> bool:
    """Whether `value` are the `length` registers called `name`."""
    limit = 1 << _BITS.get(name, 64)
    if type(value) is not list or len(value) != length:
        return False
    return all(type(item) is int and 0 <= item < limit for item in value)


def _event(saved: Any) -> Event | None:
    match saved:
        case None:
            return None
        case [int(vector), int(kind), error_code, int(instruction)] if (
            0 <= vector <= _MAX_VECTOR
            and kind in _KINDS
            and (error_code is None or (type(error_code) is int and 0 <= error_code < 1 << 32))
            and 0 <= instruction < 1 << 64
        ):
            return Event(vector, Kind(kind), error_code, instruction)
    raise SnapshotError(f"{_DEVICE}: saved event {reprlib.repr(saved)} is none")
