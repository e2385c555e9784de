"""Snapshots of guests, clones, and moves to other hosts."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from emuvisor.daemon.bodies import (
    CloneBody,
    MigrateBody,
    MoveDiskBody,
    ReceiveBody,
    RestoreBody,
    SnapshotBody,
)
from emuvisor.daemon.dependencies import AccessOf, Guest, ManagerOf, Name, ServiceOf, Wait, began
from emuvisor.daemon.faults import Forbidden, NotFound
from emuvisor.daemon.operations import Operation, Report
from emuvisor.manager import Freed, GuestInfo, MigrationStatus, SnapshotRecord

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["snapshots"])
"""Below /v1."""

BEGUN: dict[int | str, dict[str, Any]] = {200: {"model": Operation}}


@router.get("/guests/{name}/snapshots")
def snapshots(name: Guest, manager: ManagerOf) -> list[SnapshotRecord]:
    """Its snapshots, in the order in which they were made."""
    return manager.snapshots(name)


@router.post("/guests/{name}/snapshots", status_code=202, responses=BEGUN)
async def snapshot(
    name: Guest, service: ServiceOf, response: Response, body: SnapshotBody | None = None, wait: Wait = 0
) -> Operation:
    """Make a snapshot; the guest goes on meanwhile."""
    body = body or SnapshotBody()
    manager = service.manager
    operation = service.operations.start(
        "snapshot",
        name,
        lambda report: asdict(
            manager.snapshot(name, body.name, comment=body.comment, progress=report.progress)
        ),
    )
    return await began(service, response, operation, wait)


@router.delete("/guests/{name}/snapshots/{snapshot}")
def delete_snapshot(name: Guest, snapshot: Name, manager: ManagerOf) -> Freed:
    """Delete a snapshot; those that came from it stay whole."""
    _require_snapshot(manager.snapshots(name), name, snapshot)
    return manager.delete_snapshot(name, snapshot)


@router.post("/guests/{name}/snapshots/{snapshot}/restore", status_code=202, responses=BEGUN)
async def restore(
    *,
    name: Guest,
    snapshot: Name,
    service: ServiceOf,
    response: Response,
    body: RestoreBody | None = None,
    wait: Wait = 0,
) -> Operation:
    """Put the guest back to where it was."""
    running = body is None or body.running
    operation = service.operations.start(
        "restore", name, lambda _: service.manager.restore(name, snapshot, running=running)
    )
    return await began(service, response, operation, wait)


def _require_snapshot(known: list[SnapshotRecord], guest: str, name: str) -> None:
    if not any(record.name == name for record in known):
        raise NotFound(f"guest {guest!r} has no snapshot {name!r}")


@router.post("/guests/{name}/clones", status_code=201)
def clone(name: Guest, body: CloneBody, manager: ManagerOf) -> list[GuestInfo]:
    """Make guests like it, as it is now or was in a snapshot."""
    return manager.clone(
        name,
        body.names,
        snapshot=body.snapshot,
        same_identity=body.same_identity,
        running=body.running,
    )


@router.post("/guests/{name}/migration", status_code=202, responses=BEGUN)
async def migrate(
    *,
    name: Guest,
    body: MigrateBody,
    service: ServiceOf,
    access: AccessOf,
    response: Response,
    wait: Wait = 0,
) -> Operation:
    """Move it to another host while it runs."""
    if not access.is_local:
        _check_remote(body)
    manager = service.manager

    def work(report: Report) -> dict[str, Any]:
        def told(status: MigrationStatus) -> None:
            report.progress(status.sent, status.total)

        return asdict(manager.migrate(name, body.to, progress=told, **body.options()))

    operation = service.operations.start("migrate", name, work)
    return await began(service, response, operation, wait)


def _check_remote(body: MigrateBody) -> None:
    """Raises Forbidden for files and sockets of this host."""
    if body.to.startswith(("/", "unix:")):
        raise Forbidden(f"to: {body.to!r} can be given over the Unix socket only; over TCP it is HOST:PORT")
    if body.certificate or body.key or body.ca:
        raise Forbidden(
            "certificate, key, ca: they can be given over the Unix socket only; over TCP use a token"
        )


@router.get("/guests/{name}/migration")
def migration(name: Guest, manager: ManagerOf) -> MigrationStatus | None:
    """How far its migration is, or how the last one ended; null when there was none."""
    return manager.migration(name)


@router.delete("/guests/{name}/migration", status_code=204)
def cancel_migration(name: Guest, manager: ManagerOf) -> None:
    """Stay here; or where it is, when one of its disks is moved."""
    manager.cancel_migration(name)


@router.post("/guests/{name}/disk-move", status_code=202, responses=BEGUN)
async def move_disk(
    *,
    name: Guest,
    body: MoveDiskBody,
    service: ServiceOf,
    access: AccessOf,
    response: Response,
    wait: Wait = 0,
) -> Operation:
    """Move one of its disks to a new file while it runs; DELETE of its migration cancels that."""
    path = access.new_disk(body.path, body.format)
    manager = service.manager
    operation = service.operations.start(
        "disk-move",
        name,
        lambda report: asdict(
            manager.move_disk(
                name,
                body.disk,
                path,
                format=body.format,
                bytes_per_s=body.bytes_per_s,
                progress=report.progress,
            )
        ),
    )
    return await began(service, response, operation, wait)


@router.post("/receive", status_code=202, responses=BEGUN)
async def receive(
    body: ReceiveBody, service: ServiceOf, access: AccessOf, response: Response, wait: Wait = 0
) -> Operation:
    """Take a guest that another host sends; its definition and disks are what that says."""
    if not access.is_local:
        raise Forbidden("a guest of another host can be received over the Unix socket only")
    manager = service.manager
    operation = service.operations.start(
        "receive",
        "",
        lambda report: asdict(manager.receive(body.listen, ready=report.note, **body.options())),
        waits=True,
    )
    return await began(service, response, operation, wait)
