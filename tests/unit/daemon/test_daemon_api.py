"""The API as a client without manners sees it: statuses, bodies, and errors of one shape."""

from collections.abc import Callable
from importlib import metadata
from typing import Any

import httpx
import pytest
from asgi_client import AsgiClient

from emuvisor.daemon.access import Access
from emuvisor.daemon.app import make_app
from emuvisor.daemon.service import Service

Definition = Callable[..., dict[str, Any]]
JSON = {"Content-Type": "application/json"}


def create(api: AsgiClient, definition: dict[str, Any]) -> None:
    assert api.post("/v1/guests", json={"definition": definition}).status_code == 201


def test_a_life(api: AsgiClient, definition: Definition) -> None:
    response = api.post("/v1/guests", json={"definition": definition("web")})
    assert response.status_code == 201
    assert response.json() | {"since": 0} == {
        "name": "web", "state": "defined", "reason": "", "board": "isa", "memory": 1 << 20, "vcpus": 1,
        "clock": "host", "autostart": False, "snapshots": 0, "since": 0,
    }  # fmt: skip
    verbs = ("start", "pause", "resume", "reset", "stop")
    assert [api.post(f"/v1/guests/web/{verb}").status_code for verb in verbs] == [204] * 5
    assert api.post("/v1/guests/web/rename", json={"name": "www"}).status_code == 204
    assert [guest["name"] for guest in api.get("/v1/guests").json()] == ["www"]
    assert api.get("/v1/guests/www").json()["definition"]["memory"] == 1 << 20
    assert 'name = "www"' in api.get("/v1/guests/www/definition").text
    assert api.delete("/v1/guests/www").json().keys() == {"frames", "bytes"}
    assert api.get("/v1/guests").json() == []


def test_start_paused(api: AsgiClient, definition: Definition) -> None:
    create(api, definition("web"))
    api.post("/v1/guests/web/start", json={"paused": True})
    assert api.get("/v1/guests/web").json()["state"] == "paused"
    assert api.delete("/v1/guests/web").status_code == 409
    assert api.delete("/v1/guests/web", params={"force": True}).status_code == 200


def test_changes(api: AsgiClient, definition: Definition) -> None:
    create(api, definition("web"))
    changes = {"cpu_weight": 200, "memory": "2M", "autostart": True, "seed": None}
    assert api.patch("/v1/guests/web", json={"changes": changes}).status_code == 204
    known = api.get("/v1/guests/web").json()
    assert (known["definition"]["cpu_weight"], known["memory"], known["autostart"]) == (200, 2 << 20, True)


def refused(response: httpx.Response) -> tuple[int, str, str]:
    """An error's status, class and text; and nothing else is said."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error", "kind"}
    return response.status_code, body["kind"], body["error"]


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/v1/guests/none", (404, "UsageError", "there is no guest 'none' in store {store}")),
        ("POST", "/v1/guests/none/start", (404, "UsageError", "there is no guest 'none' in store {store}")),
        ("GET", "/v1/guests/none/logs", (404, "UsageError", "there is no guest 'none' in store {store}")),
        ("DELETE", "/v1/guests/web/snapshots/s", (404, "UsageError", "guest 'web' has no snapshot 's'")),
        ("GET", "/v1/operations/0", (404, "UsageError", "there is no operation '0'; it may be long ago")),
        ("GET", "/v1/exports/x", (404, "UsageError", "there is no exported file 'x'")),
        ("GET", "/v1/nothing", (404, "UsageError", "Not Found")),
        ("GET", "/docs", (404, "UsageError", "Not Found")),
        ("PUT", "/v1/guests/web", (405, "UsageError", "Method Not Allowed")),
        ("POST", "/v1/guests/web/stop", (409, "StateError", None)),
        ("GET", "/v1/guests/web/screenshot", (409, "StateError", None)),
        (
            "GET",
            "/v1/events?limit=0",
            (422, "UsageError", "query.limit: Input should be greater than or equal to 1"),
        ),
        ("POST", "/v1/guests", (422, "UsageError", "body: Field required")),
        ("DELETE", "/v1/exports/.hidden", (400, "UsageError", None)),
    ],
)
def test_refusals(
    *,
    method: str,
    path: str,
    answer: tuple[int, str, str | None],
    api: AsgiClient,
    service: Service,
    definition: Definition,
) -> None:
    create(api, definition("web"))
    status, kind, text = refused(api.request(method, path))
    assert (status, kind) == answer[:2]
    if answer[2] is not None:
        assert text == answer[2].format(store=service.manager.store.folder)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 422, "body.1: JSON decode error"),
        (b"[]", 422, "body: Input should be a valid dictionary or object to extract fields from"),
        (b'{"definition": 1}', 422, "body.definition: Input should be a valid dictionary"),
        (b'{"definition": {}, "more": 1}', 422, "body.more: Extra inputs are not permitted"),
        (b'{"definition": {}}', 422, "the definition: nothing to boot from: give one of kernel, flat, firmware and "
         "disks"),
        (b'{"definition": {"name": "\\ud800", "flat": {"path": "/x", "address": 1}}}', 422, None),
        (b'{"definition": {}, "folder": "here"}', 400, "folder: 'here' is not an absolute path"),
        (b"[" * 100_000, 400, "There was an error parsing the body"),
        (b"9" * 10_000, 400, "There was an error parsing the body"),
    ],
)  # fmt: skip
def test_bodies_that_are_none(body: bytes, status: int, text: str | None, api: AsgiClient) -> None:
    response = api.post("/v1/guests", content=body, headers=JSON)
    assert refused(response)[0] == status
    assert text is None or response.json()["error"] == text


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("rename", b'{"name": "\\udc80"}', 422),
        ("keys", b'{"keys": ["\\udc80"]}', 422),
        ("", b'{"changes": {"until": "\\udc80"}}', 422),
        ("", b'{"changes": {"\\udc80": 1}}', 400),
    ],
)
def test_half_a_character(
    path: str, body: bytes, status: int, api: AsgiClient, definition: Definition
) -> None:
    create(api, definition("web"))
    method = "POST" if path else "PATCH"
    response = api.request(method, f"/v1/guests/web/{path}".rstrip("/"), content=body, headers=JSON)
    assert refused(response)[0] == status


def test_a_body_that_does_not_say_that_it_is_json(api: AsgiClient) -> None:
    response = api.post("/v1/guests", content=b"{}")
    text = "the body is not said to be JSON: send 'Content-Type: application/json', as curl --json does"
    assert refused(response) == (422, "UsageError", text)


def test_a_bug_does_not_tell_where_it_is(
    api: AsgiClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("in /home/me/secret.py")

    monkeypatch.setattr(service.manager, "guests", fail)
    assert refused(api.get("/v1/guests")) == (
        500,
        "HostError",
        "something went wrong; the daemon's log says what",
    )


def test_a_host_without_memory(api: AsgiClient, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise MemoryError

    monkeypatch.setattr(service.manager, "guests", fail)
    assert refused(api.get("/v1/guests")) == (503, "HostError", "the host has no memory left")


def test_the_host(api: AsgiClient, service: Service, definition: Definition) -> None:
    create(api, definition("web"))
    api.post("/v1/guests/web/start")
    host = api.get("/v1/host").json()
    assert (host["guests"], host["running"], host["memory"], host["pcpus"]) == (1, 1, 64 << 20, 1)
    assert host["memory_free"] < host["memory"]
    assert host["store"] == str(service.manager.store.folder)
    assert host["limits"]["body"] == service.limits.body


def test_the_description_is_there_and_scripts_of_others_are_not(api: AsgiClient) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    assert "/v1/guests/{name}/snapshots" in paths
    assert "http" not in "".join(paths)


def test_logs(api: AsgiClient, service: Service, definition: Definition) -> None:
    create(api, definition("web"))
    api.post("/v1/guests/web/start")
    with service.manager.console("web") as console:
        console.write(b"one two!")
        while not console.at_end:
            console.read(30)
    assert api.get("/v1/guests/web/logs").content == b"one two!"
    assert api.get("/v1/guests/web/logs?tail=4").content == b"two!"
    rest = api.get("/v1/guests/web/logs?after=4")
    assert (rest.content, rest.headers["Emuvisor-Log-Position"]) == (b"two!", "8")


def test_a_guest_that_wants_more_memory_than_one_may_have(
    make_service: Callable[..., Service], make_api: Callable[..., AsgiClient], definition: Definition
) -> None:
    api = make_api(make_service(memory=2 << 20))
    text = "guest 'big': 4 MiB of memory are more than the daemon gives a guest: 2 MiB"
    response = api.post("/v1/guests", json={"definition": definition("big", memory="4M")})
    assert refused(response) == (409, "AdmissionError", text)
    create(api, definition("big"))
    response = api.patch("/v1/guests/big", json={"changes": {"memory": "4M"}})
    assert refused(response) == (409, "AdmissionError", text)


def test_too_many_guests(api: AsgiClient, service: Service, definition: Definition) -> None:
    service.manager.max_guests = 1
    create(api, definition("a"))
    response = api.post("/v1/guests", json={"definition": definition("b")})
    assert refused(response) == (400, "UsageError", "there are 1 guests; 1 more are too many, 1 is the limit")


def test_a_thousand_guests(api: AsgiClient, service: Service, definition: Definition) -> None:
    service.manager.create(definition("g0"))
    made = definition("g0")
    for number in range(1, 1000):
        service.manager.create({**made, "name": f"g{number}"})
    assert len(api.get("/v1/guests").json()) == 1000


def test_files_are_named_or_have_absolute_paths(api: AsgiClient, definition: Definition) -> None:
    create(api, definition("web"))
    response = api.post("/v1/guests/web/export", json={"file": "here/web.tar"})
    assert refused(response) == (400, "UsageError", "'here/web.tar' is neither a name nor an absolute path")


def test_a_version_that_nobody_knows(
    api: AsgiClient, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert api.get("/v1/host").json()["version"] == ""
    assert make_app(service, Access()).version == "0"
