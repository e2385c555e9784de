"""The application: routes, errors and limits put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from emuvisor.daemon import (
    console_routes,
    file_routes,
    guest_routes,
    host_routes,
    snapshot_routes,
    store_routes,
)
from emuvisor.daemon.access import Access
from emuvisor.daemon.faults import plain, status_of
from emuvisor.daemon.guard import Guard
from emuvisor.daemon.service import Service
from emuvisor.errors import EmuvisorError, UsageError

__all__ = ["make_app"]

MAX_COMPLAINTS = 5
"""Of what is wrong with a request, that are told."""
DESCRIPTION = "The guests of one host, from creation to deletion. docs/daemon.md has examples."


class ErrorBody(BaseModel):
    """What went wrong, and the name of its class in `emuvisor.errors`."""

    error: str
    kind: str


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "it cannot be done as it was asked for"},
    401: {"model": ErrorBody, "description": "no token"},
    403: {"model": ErrorBody, "description": "not over TCP"},
    404: {"model": ErrorBody, "description": "there is no guest, snapshot, operation or file of this name"},
    405: {"model": ErrorBody, "description": "another method"},
    408: {"model": ErrorBody, "description": "the body was not there in time"},
    409: {"model": ErrorBody, "description": "not in the present state"},
    413: {"model": ErrorBody, "description": "the body is too large"},
    422: {"model": ErrorBody, "description": "a value, a definition or an image that is none"},
    503: {"model": ErrorBody, "description": "the host cannot, or others have all there is"},
}


def make_app(service: Service, access: Access) -> FastAPI:
    """An ASGI application that serves the guests of `service` to those whom `access` lets in.

    The pages that FastAPI has for people load scripts from elsewhere, so there are none; /openapi.json describes it.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = service.limits.threads
        yield

    app = FastAPI(
        title="emuvisor",
        description=DESCRIPTION,
        version=_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=ERRORS,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    app.state.access = access
    for routes in (host_routes, guest_routes, snapshot_routes, file_routes, console_routes, store_routes):
        app.include_router(routes.router)
    app.add_middleware(Guard, limits=service.limits, token=access.token)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failed)
    for kind in (EmuvisorError, MemoryError):
        app.add_exception_handler(kind, _failed)
    return app


def _version() -> str:
    try:
        return metadata.version("emuvisor")
    except metadata.PackageNotFoundError:
        return "0"


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(plain(error), status_of(error))


async def _http(_: Request, error: Exception) -> JSONResponse:
    """What the router says: no such path, or another method."""
    assert isinstance(error, HTTPException)
    return JSONResponse(plain(UsageError(error.detail)), error.status_code, headers=error.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """A request that is not as /openapi.json says."""
    assert isinstance(error, RequestValidationError)
    found = [
        f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:MAX_COMPLAINTS]
    ]
    if isinstance(error.body, bytes) and error.body and "json" not in request.headers.get("content-type", ""):
        found = [
            "the body is not said to be JSON: send 'Content-Type: application/json', as curl --json does"
        ]
    return JSONResponse(plain(UsageError("; ".join(found))), 422)
