"""What `set` can change of a guest, by key.

At any time: `autostart`, the claims to the host's pCPUs and memory (`cpu_weight`, `memory_shares` ...), limits and
shares of disks (`disks.0.read_bytes`, `disks.0.shares`) and limits of network cards (`nics.0.in_bytes`). While it is
on: `memory`, the size that its virtio-mem device gives it (kept as `current_memory`), and `balloon_size`. While it is
off: every other key of `GuestConfig` that is no table.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from emuvisor.devices.limits import DiskLimits, NicLimits
from emuvisor.errors import UsageError
from emuvisor.host import Guest
from emuvisor.host.scheduler.claim import WHOLE
from emuvisor.machine.config import GuestConfig
from emuvisor.manager.definitions import Definition, size_of

__all__ = ["applied_live", "changed_definition"]

CPU = ("weight", "cap", "reservation", "limit", "affinity", "period_us", "latency_us")
MEMORY = ("reservation", "limit", "shares", "priority")
LISTS = {
    "disks": (*(field.name for field in fields(DiskLimits)), "shares"),
    "nics": tuple(field.name for field in fields(NicLimits)),
}
"""Keys of what there can be several of, by the list."""
CLAIMS = (*(f"cpu_{key}" for key in CPU), *(f"memory_{key}" for key in MEMORY))
LIVE_ONLY = ("balloon_size",)
FIXED = ("name", "kernel", "flat", *LISTS, "shares")
"""Fields of `GuestConfig` that have a verb of their own, or are tables."""
OFF_ONLY = tuple(f.name for f in fields(GuestConfig) if f.name not in (*FIXED, *CLAIMS, "memory"))


def changed_definition(before: Definition, changes: Mapping[str, Any], live: bool) -> Definition:
    """The definition with `changes`, of a guest that is on when it is `live`. Raises UsageError, ConfigError."""
    data = before.plain()
    for key, value in changes.items():
        _check_key(key, live)
        if key in LIVE_ONLY:
            continue
        if "." in key:
            _change_part(data, key, value)
        elif live and key == "memory":
            _change(data, "current_memory", None if value == before.config.memory else value)
        else:
            _change(data, key, value)
            if key == "memory":
                data.pop("current_memory", None)
    return Definition.parse(data, f"guest {before.config.name!r}")


def _change(table: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _check_key(key: str, live: bool) -> None:
    if key in ("autostart", "memory", *CLAIMS) or _part(key) is not None:
        return
    if key in LIVE_ONLY:
        if live:
            return
        raise UsageError(f"{key} is of a guest that runs; this one is off")
    if key == "name":
        raise UsageError("name: 'rename' gives a guest another one")
    if key in OFF_ONLY:
        if not live:
            return
        raise UsageError(f"{key} cannot be changed while the guest is on; stop it first")
    known = ["autostart", "memory", *CLAIMS, *LIVE_ONLY, *OFF_ONLY]
    known += [f"{group}.0.{name}" for group, names in LISTS.items() for name in names]
    near = get_close_matches(key, known, 1, 0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    raise UsageError(f"{key!r} cannot be set; {hint}")


def _part(key: str) -> tuple[str, int, str] | None:
    """What a key such as "disks.0.read_bytes" means."""
    group, _, rest = key.partition(".")
    number, _, name = rest.partition(".")
    if name not in LISTS.get(group, ()) or not (number.isascii() and number.isdecimal() and len(number) < 4):
        return None
    return group, int(number), name


def _change_part(data: dict[str, Any], key: str, value: Any) -> None:
    part = _part(key)
    assert part is not None
    group, number, name = part
    tables = data.get(group, [])
    if number >= len(tables):
        raise UsageError(f"{key}: the guest has {len(tables)} {group}, counted from 0")
    _change(tables[number], name, value)


@contextmanager
def applied_live(
    guest: Guest, before: Definition, after: Definition, changes: Mapping[str, Any]
) -> Iterator[None]:
    """Do to a running guest what `changes` say, which leads from `before` to `after`. When one of them is refused, or
    something is raised in here, all are taken back but the balloon's, which no definition has. Raises UsageError,
    AdmissionError."""
    with ExitStack() as undo:
        for step in (_set_memory, _set_size, _set_cpu, _set_parts):
            undo.callback(step, guest, before, changes)  # before it: half of a step may be done
            step(guest, after, changes)
        if "balloon_size" in changes:
            guest.set_balloon(size_of("balloon_size", changes["balloon_size"], f"guest {guest.name!r}"))
        yield
        undo.pop_all()


def _set_memory(guest: Guest, definition: Definition, changes: Mapping[str, Any]) -> None:
    claim = {key: getattr(definition.config, f"memory_{key}") for key in MEMORY if f"memory_{key}" in changes}
    if "limit" in claim and claim["limit"] is None:
        claim["limit"] = guest.contract.size  # which is none
    if claim:
        guest.set_memory(**claim)


def _set_size(guest: Guest, definition: Definition, changes: Mapping[str, Any]) -> None:
    if "memory" in changes:
        guest.resize(definition.current_memory or definition.config.memory)


def _set_cpu(guest: Guest, definition: Definition, changes: Mapping[str, Any]) -> None:
    claim = {key: getattr(definition.config, f"cpu_{key}") for key in CPU if f"cpu_{key}" in changes}
    for key, nothing in (("cap", WHOLE), ("limit", 0), ("affinity", ())):
        if key in claim and claim[key] is None:
            claim[key] = nothing
    if claim:
        guest.set_cpu(**claim)


def _set_parts(guest: Guest, definition: Definition, changes: Mapping[str, Any]) -> None:
    """Limits and shares of disks and network cards; what is impossible for them no definition has."""
    for key in changes:
        if (part := _part(key)) is not None:
            _set_part(guest, definition.config, *part)


def _set_part(guest: Guest, config: GuestConfig, group: str, number: int, name: str) -> None:
    if group == "nics":
        guest.set_nic_limits(number, **{name: getattr(config.nics[number], name)})
    elif name == "shares":
        guest.set_disk_shares(number, config.disks[number].shares)
    else:
        guest.set_disk_limits(number, **{name: getattr(config.disks[number], name)})
