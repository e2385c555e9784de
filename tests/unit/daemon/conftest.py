"""A daemon's service with small guests: isa boards with programs of a few bytes, on the virtual clock."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient
from quick_store import quick_store

from emuvisor.daemon.access import Access
from emuvisor.daemon.app import make_app
from emuvisor.daemon.limits import Limits
from emuvisor.daemon.service import Service
from emuvisor.host import Host
from emuvisor.manager import Manager
from emuvisor.units import MIB

PROGRAMS = {
    "endless": "ebfe",  # jmp $
    "idle": "fb f4 ebfd",  # sti; hlt; jmp
    "off": "ba0406 b80020 ef f4",  # power-off
    # COM1 gets DTR and RTS, then every byte received is sent back; '!' switches off
    "echo": "bafc03 b003 ee bafd03 ec a801 74f8 baf803 ec ee 3c21 75ef ba0406 b80020 ef f4",
}


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """program(name): the path of a flat program of PROGRAMS."""

    def write(name: str) -> Path:
        path = tmp_path / "images" / f"{name}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes.fromhex(PROGRAMS[name]))
        return path

    return write


@pytest.fixture
def definition(program: Callable[[str], Path]) -> Callable[..., dict[str, Any]]:
    """definition(name, program, **more): of a small guest."""

    def make(name: str, what: str = "echo", **more: Any) -> dict[str, Any]:
        flat = {"path": str(program(what)), "address": 0x8000}
        return {"name": name, "board": "isa", "memory": "1M", "clock": "host", "flat": flat, **more}

    return make


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """make_service(name, **limits): a service on a store of its own."""
    with ExitStack() as stack:

        def make(name: str = "store", **limits: Any) -> Service:
            store = quick_store(tmp_path / name)
            manager = stack.enter_context(Manager(Host(64 * MIB), store))
            service = Service(manager, tmp_path / "exports", Limits(**limits))
            stack.callback(service.close)
            return service

        yield make


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()


@pytest.fixture
def make_api() -> Iterator[Callable[..., AsgiClient]]:
    """make_api(service, access): asks the application without a socket."""
    with ExitStack() as stack:

        def make(service: Service, access: Access | None = None) -> AsgiClient:
            app = make_app(service, access or Access())
            return stack.enter_context(AsgiClient(app))

        yield make


@pytest.fixture
def api(service: Service, make_api: Callable[..., AsgiClient]) -> AsgiClient:
    """As over the Unix socket."""
    return make_api(service)
