"""The host itself, operations, and what happened."""

import os
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from emuvisor.daemon.dependencies import ManagerOf, Name, ServiceOf, Wait
from emuvisor.daemon.operations import Operation
from emuvisor.daemon.stream import EventStream
from emuvisor.host import GuestState
from emuvisor.manager import EventRecord
from emuvisor.units import PAGE_SIZE

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["host"])
"""Below /v1."""

MAX_EVENTS = 1000
LAST_NUMBER = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class HostInfo:
    """What a daemon is. Sizes are in bytes, `started` in seconds since 1970."""

    version: str
    process: int
    started: float
    store: str
    clock: str
    pcpus: int
    memory: int
    memory_free: int
    guests: int
    running: int
    operations: int
    """That run."""
    limits: dict[str, float]


@router.get("/host")
def host(manager: ManagerOf, service: ServiceOf) -> HostInfo:
    """The host: its version, process, memory, and limits."""
    try:
        version = metadata.version("emuvisor")
    except metadata.PackageNotFoundError:
        version = ""
    guests = manager.guests()
    pool = manager.host.pool
    return HostInfo(
        version=version,
        process=os.getpid(),
        started=service.started,
        store=str(manager.store.folder),
        clock=manager.host.clock,
        pcpus=manager.host.pcpus,
        memory=pool.limit * PAGE_SIZE,
        memory_free=pool.free * PAGE_SIZE,
        guests=len(guests),
        running=sum(guest.state == GuestState.RUNNING for guest in guests),
        operations=sum(operation.state == "running" for operation in service.operations.all()),
        limits=asdict(service.limits),
    )


@router.get("/operations")
async def operations(service: ServiceOf) -> list[Operation]:
    """Those that run, and the last ones that have ended; the oldest first."""
    return service.operations.all()


@router.get("/operations/{id}")
async def operation(id: Name, service: ServiceOf, wait: Wait = 0) -> Operation:
    """One of them; with `wait` when it has ended, or so many seconds have passed."""
    return await service.wait(id, wait)


Guest = Annotated[str | None, Query(max_length=200, description="only those of this guest")]


@router.get("/events")
def events(
    manager: ManagerOf,
    after: Annotated[int, Query(ge=0, le=LAST_NUMBER, description="the number of an event")] = 0,
    guest: Guest = None,
    limit: Annotated[int, Query(ge=1, le=MAX_EVENTS)] = MAX_EVENTS,
) -> list[EventRecord]:
    """What happened to guests, oldest first."""
    return manager.events(after, guest, limit)


@router.get(
    "/events/stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def stream(
    service: ServiceOf,
    after: Annotated[int | None, Query(ge=0, le=LAST_NUMBER)] = None,
    guest: Guest = None,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> EventStream:
    """What happens, as server-sent events: from now on, or from behind event `after` or the header Last-Event-ID.

    Events have their number as `id`. Operations come as `event: operation` and without an `id`.
    """
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        after = min(int(last_event_id), LAST_NUMBER)
    return EventStream(service, after, guest)
