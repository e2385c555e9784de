"""Guests as files: exports, imports, and the folder between them."""

import asyncio
import os
import tomllib
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from emuvisor.daemon.access import Access
from emuvisor.daemon.bodies import ExportBody, ImportBody
from emuvisor.daemon.dependencies import AccessOf, Guest, Name, ServiceOf, Wait, began, file_of
from emuvisor.daemon.exports import ExportFile
from emuvisor.daemon.faults import SlowBody
from emuvisor.daemon.operations import Operation, Report
from emuvisor.daemon.service import Service
from emuvisor.errors import HostError
from emuvisor.manager import Freed, GuestInfo
from emuvisor.manager.definitions import Definition
from emuvisor.units import MIB

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["files"])
"""Below /v1."""

BEGUN: dict[int | str, dict[str, Any]] = {200: {"model": Operation}}
BINARY = "application/octet-stream"


class _Content(StreamingResponse):
    """What is in `file`, which is closed then, also when the client leaves."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        super().__init__(self._read(size), media_type=BINARY, headers={"Content-Length": str(size)})

    def _read(self, left: int) -> Iterator[bytes]:
        while left and (part := self._file.read(min(MIB, left))):
            left -= len(part)
            yield part

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer, as ASGI has it."""
        with self._file:
            await super().__call__(scope, receive, send)


@router.post("/guests/{name}/export", status_code=202, responses=BEGUN)
async def export(
    *, name: Guest, body: ExportBody, service: ServiceOf, access: AccessOf, response: Response, wait: Wait = 0
) -> Operation:
    """Write a guest with its disks, without its memory, to a file; the result is its size in bytes."""
    path = file_of(service, access, body.file, new=True)
    manager = service.manager
    operation = service.operations.start(
        "export",
        name,
        lambda report: manager.export(name, path, snapshot=body.snapshot, progress=report.progress),
    )
    return await began(service, response, operation, wait)


@router.post("/imports", status_code=202, responses=BEGUN)
async def import_(
    body: ImportBody, service: ServiceOf, access: AccessOf, response: Response, wait: Wait = 0
) -> Operation:
    """Make a guest of an exported one; the result is what `GET /v1/guests` says of it."""
    path = file_of(service, access, body.file, new=False)
    operation = service.operations.start(
        "import", body.name or "", lambda report: asdict(_import(service, access, path, body.name, report))
    )
    return await began(service, response, operation, wait)


def _import(service: Service, access: Access, path: Path, name: str | None, report: Report) -> GuestInfo:
    """Import `path`. What a guest of another host names on this one is looked at before anybody can start it."""
    manager = service.manager
    info = manager.import_(path, name, progress=report.progress)
    if not access.is_local:
        try:
            text = manager.definition(info.name)
            config = Definition.parse(tomllib.loads(text), "the imported definition").config
            access.check(config, disks=manager.store.disk_path("any").parent)
        except BaseException:
            manager.remove(info.name, force=True)
            raise
    return info


@router.get("/exports")
def exports(service: ServiceOf) -> list[ExportFile]:
    """The files in the folder of exports."""
    return service.exports.all()


@router.get("/exports/{file}", response_class=StreamingResponse, responses={200: {"content": {BINARY: {}}}})
def fetch(file: Name, service: ServiceOf) -> StreamingResponse:
    """A file's content."""
    return _Content(service.exports.open(file))


@router.put(
    "/exports/{file}",
    status_code=201,
    openapi_extra={"requestBody": {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def send(file: Name, request: Request, service: ServiceOf) -> ExportFile:
    """Put a file there, to be imported."""
    return await service.exports.receive(file, _parts(request, service), service.limits.upload)


async def _parts(request: Request, service: Service) -> AsyncIterator[bytes]:
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(service.limits.idle_s):
                part = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise SlowBody(f"nothing came for {service.limits.idle_s:g} seconds") from None
        except ClientDisconnect:
            raise HostError("the client left in the middle of an upload") from None
        yield part


@router.delete("/exports/{file}")
def delete(file: Name, service: ServiceOf) -> Freed:
    """Delete a file."""
    return Freed(bytes=service.exports.delete(file))
