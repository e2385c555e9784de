"""What the routes have in common: the service, who may do what, guests that there are, answers to what takes long."""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, Query, Response
from fastapi import Path as PathParameter
from fastapi.requests import HTTPConnection

from emuvisor.daemon.access import Access
from emuvisor.daemon.faults import Forbidden, NotFound, error_of
from emuvisor.daemon.operations import Operation
from emuvisor.daemon.service import Service
from emuvisor.errors import UsageError
from emuvisor.manager import Manager

__all__ = ["AccessOf", "Guest", "ManagerOf", "Name", "ServiceOf", "Wait", "began", "file_of"]

MAX_NAME = 200
MAX_WAIT_S = 3600


async def _service(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


async def _access(connection: HTTPConnection) -> Access:
    access: Access = connection.app.state.access
    return access


ServiceOf = Annotated[Service, Depends(_service)]
AccessOf = Annotated[Access, Depends(_access)]


async def _manager(service: ServiceOf) -> Manager:
    return service.manager


ManagerOf = Annotated[Manager, Depends(_manager)]
Name = Annotated[str, PathParameter(max_length=MAX_NAME)]


def _guest(name: Name, manager: ManagerOf) -> str:
    """A guest that there is. Raises NotFound."""
    try:
        manager.definition(name)
    except UsageError as error:
        raise NotFound(str(error)) from None
    return name


Guest = Annotated[str, Depends(_guest)]
"""The guest in a path that has `{name}`."""
Wait = Annotated[
    float,
    Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for the end; with 0 the answer comes at once"),
]


async def began(service: Service, response: Response, operation: Operation, wait_s: float) -> Operation:
    """The answer to a request that began `operation`: 202 while it runs, 200 when it is done, and its error when it has
    failed by then."""
    response.headers["Location"] = f"/v1/operations/{operation.id}"
    operation = await service.wait(operation.id, wait_s)
    if operation.state == "failed":
        raise error_of({"error": operation.error, "kind": operation.error_kind})
    response.status_code = 202 if operation.state == "running" else 200
    return operation


def file_of(service: Service, access: Access, file: str, *, new: bool) -> Path:
    """The file that a client means by a name in the folder of exports, or by a path.

    Raises Forbidden for a path over TCP, UsageError for a relative one, NotFound for a name that is not there.
    """
    if "/" not in file:
        return service.exports.new(file) if new else service.exports.existing(file)
    if not access.is_local:
        raise Forbidden(
            f"{file!r}: over TCP a file is named without a folder; it is in the folder of exports"
        )
    path = Path(file)
    if not path.is_absolute() or "\0" in file:
        raise UsageError(f"{file!r} is neither a name nor an absolute path")
    return path
