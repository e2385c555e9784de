"""Guests: what they are, and their life from creation to deletion."""

import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from emuvisor.daemon.access import Access
from emuvisor.daemon.bodies import CreateBody, KeysBody, RenameBody, SetBody, ShutdownBody, StartBody
from emuvisor.daemon.dependencies import AccessOf, Guest, ManagerOf, ServiceOf, Wait, began
from emuvisor.daemon.limits import Limits
from emuvisor.daemon.operations import Operation
from emuvisor.errors import AdmissionError, ConfigError, UsageError
from emuvisor.machine.config import GuestConfig
from emuvisor.manager import Freed, GuestInfo
from emuvisor.manager.definitions import Definition
from emuvisor.units import MIB, format_size

__all__ = ["router"]

router = APIRouter(prefix="/v1/guests", tags=["guests"])
"""Below /v1/guests."""

MAX_TAIL = 64 * MIB
WITH_PATHS = (
    *("kernel", "flat", "firmware", "firmware_variables", "option_roms"),
    *("disks", "shares", "devices"),
)
"""Keys of a definition that can name files."""


@router.get("")
def guests(manager: ManagerOf) -> list[GuestInfo]:
    """All guests, by name."""
    return manager.guests()


@router.post("", status_code=201)
def create(body: CreateBody, manager: ManagerOf, service: ServiceOf, access: AccessOf) -> GuestInfo:
    """Define a guest; it is not started."""
    folder = _folder(access, body.folder)
    config = Definition.parse(body.definition, "the definition", folder).config
    _require_room(config, service.limits)
    access.check(config)
    return manager.create(body.definition, folder=folder)


def _folder(access: Access, folder: str | None) -> Path:
    """Where relative paths start: over TCP at the first folder that may be used."""
    if not access.is_local:
        return Path(next(iter(access.folders or ()), "/"))
    if folder is None:
        return Path("/")
    if not folder.startswith("/") or "\0" in folder:
        raise UsageError(f"folder: {folder!r} is not an absolute path")
    return Path(folder)


def _require_room(config: GuestConfig, limits: Limits) -> None:
    most = config.memory_max or config.memory
    if most > limits.memory:
        raise AdmissionError(
            f"guest {config.name!r}: {format_size(most)} of memory are more than the daemon gives a guest: "
            f"{format_size(limits.memory)}"
        )


@router.get("/{name}")
def info(name: Guest, manager: ManagerOf) -> dict[str, Any]:
    """All that is known of a guest: its state, statistics, disks, network cards, memory and definition."""
    return manager.info(name)


@router.delete("/{name}")
def remove(name: Guest, manager: ManagerOf, force: bool = False) -> Freed:
    """Delete a guest with its snapshots; with `force` also one that runs."""
    return manager.remove(name, force=force)


@router.patch("/{name}", status_code=204)
def change(name: Guest, body: SetBody, manager: ManagerOf, service: ServiceOf, access: AccessOf) -> None:
    """Change keys of the definition, in a guest that runs at once as far as that is possible."""
    before = tomllib.loads(manager.definition(name))
    config = Definition.parse(before, "the definition").config
    access.check(_changed(before, body.changes, WITH_PATHS), config)
    with suppress(ConfigError):  # what it can be while it runs, the manager knows
        _require_room(_changed(before, body.changes, ("memory", "memory_max")), service.limits)
    manager.set(name, body.changes)


def _changed(before: Mapping[str, Any], changes: Mapping[str, Any], keys: Sequence[str]) -> GuestConfig:
    """The configuration with those of the changes that are about `keys`; None is the default. Raises ConfigError."""
    data = {**before, **{key: changes[key] for key in keys if key in changes}}
    return Definition.parse({k: v for k, v in data.items() if v is not None}, "the changes").config


@router.get(
    "/{name}/definition", response_class=Response, responses={200: {"content": {"application/toml": {}}}}
)
def definition(name: Guest, manager: ManagerOf) -> Response:
    """The definition, as TOML."""
    return Response(manager.definition(name).encode(errors="replace"), media_type="application/toml")


@router.post("/{name}/start", status_code=204)
def start(name: Guest, manager: ManagerOf, body: StartBody | None = None) -> None:
    """Switch a guest on; one that was saved goes on where it was."""
    manager.start(name, paused=body is not None and body.paused)


@router.post("/{name}/stop", status_code=204)
def stop(name: Guest, manager: ManagerOf) -> None:
    """Switch it off at once, as by pulling the plug."""
    manager.stop(name)


@router.post("/{name}/reset", status_code=204)
def reset(name: Guest, manager: ManagerOf) -> None:
    """Press the reset button."""
    manager.reset(name)


@router.post("/{name}/pause", status_code=204)
def pause(name: Guest, manager: ManagerOf) -> None:
    """Stop it where it is."""
    manager.pause(name)


@router.post("/{name}/resume", status_code=204)
def resume(name: Guest, manager: ManagerOf) -> None:
    """Let a paused guest go on."""
    manager.resume(name)


@router.post("/{name}/rename", status_code=204)
def rename(name: Guest, body: RenameBody, manager: ManagerOf) -> None:
    """Give it another name."""
    manager.rename(name, body.name)


@router.post("/{name}/keys", status_code=204)
def keys(name: Guest, body: KeysBody, manager: ManagerOf) -> None:
    """Press keys of its keyboard."""
    manager.send_keys(name, body.keys)


@router.post("/{name}/shutdown", status_code=202, responses={200: {"model": Operation}})
async def shutdown(
    name: Guest, service: ServiceOf, response: Response, body: ShutdownBody | None = None, wait: Wait = 0
) -> Operation:
    """Ask its system to shut down; after the time-out it is switched off. The result says whether it went by itself."""
    timeout_s = (body or ShutdownBody()).timeout_s
    operation = service.operations.start(
        "shutdown", name, lambda _: service.manager.shutdown(name, timeout_s), waits=True
    )
    return await began(service, response, operation, wait)


@router.post("/{name}/save", status_code=202, responses={200: {"model": Operation}})
async def save(name: Guest, service: ServiceOf, response: Response, wait: Wait = 0) -> Operation:
    """Put all that it is into the store, and switch it off; the next start goes on from there."""
    operation = service.operations.start("save", name, lambda _: service.manager.save(name))
    return await began(service, response, operation, wait)


@router.get("/{name}/screenshot", response_class=Response, responses={200: {"content": {"image/png": {}}}})
def screenshot(name: Guest, manager: ManagerOf) -> Response:
    """What its display shows, as PNG."""
    return Response(manager.screenshot(name), media_type="image/png")


@router.get(
    "/{name}/logs", response_class=Response, responses={200: {"content": {"application/octet-stream": {}}}}
)
def logs(
    name: Guest,
    manager: ManagerOf,
    tail: Annotated[int | None, Query(ge=0, le=MAX_TAIL, description="bytes, from the end")] = None,
    after: Annotated[int | None, Query(ge=0, lt=1 << 63, description="a position")] = None,
) -> Response:
    """What it printed on its console: the last part, or what came behind byte `after` of all that it ever printed, at
    most 1 MiB. The header Emuvisor-Log-Position then says where that ends."""
    headers = {}
    if after is None:
        data = manager.logs(name, tail)
    else:
        part = manager.log_after(name, after)
        data, headers["Emuvisor-Log-Position"] = part.data, str(part.position)
    return Response(data, media_type="application/octet-stream", headers=headers)
