"""Schemathesis: what the description of the API says is so, whatever those send who have a token."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import requests
import schemathesis
from asgi_client import AsgiClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from quick_store import quick_store
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from emuvisor.daemon.access import Access
from emuvisor.daemon.app import make_app
from emuvisor.daemon.limits import Limits
from emuvisor.daemon.service import Service
from emuvisor.host import Host
from emuvisor.manager import Manager
from emuvisor.units import MIB

TOKEN = "0123456789abcdef"
LIMITS = Limits(operations=100_000, wait_s=0.0)
"""Nothing waits, and nobody is turned away because others are served."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
STREAM = "/v1/events/stream"
"""Has no end."""
DEFINITION = {"name": "web", "board": "isa", "memory": "1M", "clock": "host"}


class Daemon:
    """One with a guest that can be named, over TCP: its clients may name no files but one."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        images = folder / "images"
        images.mkdir()
        (images / "idle.bin").write_bytes(bytes.fromhex("fbf4ebfd"))  # sti; hlt; jmp
        self.manager = stack.enter_context(Manager(Host(64 * MIB), quick_store(folder / "store")))
        self.service = Service(self.manager, folder / "exports", LIMITS)
        stack.callback(self.service.close)
        app = make_app(self.service, Access(TOKEN, (images,)))
        self.client = stack.enter_context(AsgiClient(app, {"Authorization": f"Bearer {TOKEN}"}))
        self.flat = {"path": str(images / "idle.bin"), "address": 0x8000}
        self.schema = schemathesis.openapi.from_dict(app.openapi())

    def with_guest(self) -> None:
        """There is a guest "web" (again), which runs."""
        if "web" not in [guest.name for guest in self.manager.guests()]:
            self.manager.create({**DEFINITION, "flat": self.flat})
        if self.manager.info("web")["state"] == "defined":
            self.manager.start("web")

    def ask(self, case: schemathesis.Case) -> httpx.Response:
        """Send what Schemathesis made up."""
        sent = requests.Request(**case.as_transport_kwargs(base_url="http://daemon")).prepare()
        headers = {**sent.headers, "Authorization": f"Bearer {TOKEN}"}
        return self.client.request(str(sent.method), str(sent.url), headers=headers, content=sent.body)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield Daemon(Path(folder), stack)


def operations(daemon: Daemon) -> list[APIOperation]:
    found = [result.ok() for result in daemon.schema.get_all_operations()]
    return [operation for operation in found if operation.path != STREAM]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_api_is_as_described(daemon: Daemon, mode: GenerationMode) -> None:
    cases = st.one_of(
        operation.as_strategy(generation_mode=mode)
        for operation in operations(daemon)
        if mode is GenerationMode.POSITIVE or operation.body or operation.query or operation.path_parameters
    )

    @settings(
        max_examples=100,
        derandomize=True,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(cases, st.booleans())
    def ask(case: schemathesis.Case, known: bool) -> None:
        daemon.with_guest()
        if known and "name" in case.path_parameters:
            case.path_parameters["name"] = "web"
        refusing = [negative_data_rejection] if mode is GenerationMode.NEGATIVE else []
        case.validate_response(daemon.ask(case), checks=[*CHECKS, *refusing])

    ask()
