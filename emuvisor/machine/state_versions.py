"""Saved states of earlier versions, made into those of the present one.

Whatever is saved says of which device it is and the version of its form. Who changes the form raises the version and
adds a function here that makes the next version of the one before; they are applied one after the other. The version
of "machine" stands for all that is in it. What is newer is refused by whoever loads it (`check_saved`).
"""

from collections.abc import Callable, Iterator
from typing import Any

from emuvisor.bus.device import SavedState

__all__ = ["UPGRADES", "upgrade"]

MAX_DEPTH = 64
"""Of states in each other, as in files (`store/plain.py`)."""
_CONTAINERS = frozenset((dict, list))
BOARDS_WITH_GENERATION = ("pc board", "microvm board")


def _machine_1(machine: SavedState) -> SavedState:
    """Version 1 had no VM generation ID, did not keep the text that is waited for, time that was stolen or is waited
    for, where processors last spun, and ports of the virtio console, and knew neither cards that were renamed nor
    whether sockets were connected.
    """
    consoles = [dict(console) for console in machine["consoles"]]
    for console in consoles:
        console["searched"] = console["written"]
    processors = len(machine["processors"])
    ports = 0
    for state in _states(machine["board"]):
        if state["device"] == "virtio-console" and "queues" in state:
            ports = len(state["queues"]) // 2 - 1  # one pair is for control messages
        elif state["device"] == "virtio-vsock" and "queues" in state:
            state["type"] = {"connected": True}
        elif state["device"].startswith("virtio-net") and "filter" in state:
            state |= {"mac": state["filter"]["mac"], "renamed": False}
        elif state["device"] in BOARDS_WITH_GENERATION:
            # The guest has no ACPI device for it, as it booted without one.
            generation = {
                "device": "vm-generation-id",
                "version": 1,
                "identifier": bytes(16),
                "changed": False,
            }
            state["parts"]["generation ID"] = generation
    for processor in machine["processors"]:
        processor.update(pause_loop_start=0, last_pause=0, spinning=False, inside_block=False)
    empty = {"device": "console", "version": 1, "written": 0, "searched": 0, "history": b"", "input": b""}
    return machine | {
        "consoles": consoles + [dict(empty) for _ in range(ports)],
        "until": consoles[0]["written"] if len(consoles) > 1 else None,
        "stolen_ns": [0] * processors,
        "turns": machine["turns"] | {"waits": [None] * processors},
    }


def _cpu_1(cpu: SavedState) -> SavedState:
    """Version 1 did not have the x87's last instruction."""
    return cpu | {"fpu": cpu["fpu"] | dict.fromkeys(("fop", "fip", "fcs", "fdp", "fds"), 0)}


UPGRADES: dict[tuple[str, int], Callable[[SavedState], SavedState]] = {
    ("machine", 1): _machine_1,
    ("cpu", 1): _cpu_1,
}
"""By device and version: what makes of a state the one of the next version. It may change the state that it is given,
and raise LookupError, TypeError, ValueError and AttributeError for what is none of that version."""


def upgrade(data: Any) -> Any:
    """A copy of `data`, plain data with saved states in it at any place, in which all of them have their present form.
    What is no state of the version that it says it is keeps that: whoever loads it says what is wrong."""
    return _upgrade(data, 0)


def _upgrade(data: Any, depth: int) -> Any:
    if depth == MAX_DEPTH:
        return data
    if type(data) is list:
        return [_upgrade(item, depth + 1) if type(item) in _CONTAINERS else item for item in data]
    if type(data) is not dict:
        return data
    # A restored guest waits for this: what holds nothing is not worth a call.
    state = {
        name: _upgrade(item, depth + 1) if type(item) in _CONTAINERS else item for name, item in data.items()
    }
    while (step := _step(state)) is not None:
        try:
            state = {**step(state), "version": state["version"] + 1}
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            break
    return state


def _step(state: SavedState) -> Callable[[SavedState], SavedState] | None:
    device, version = state.get("device"), state.get("version")
    if type(device) is not str or type(version) is not int:
        return None
    return UPGRADES.get((device, version))


def _states(data: Any) -> Iterator[SavedState]:
    """All saved states in `data`."""
    if type(data) is dict:
        if type(data.get("device")) is str:
            yield data
        data = list(data.values())
    for item in data if type(data) is list else ():
        yield from _states(item)
