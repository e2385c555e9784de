"""The socket: greeting, negotiation, several clients, and those that mean no good."""

import json
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qmp_rig import SPIN, Client, Rig, make_rig

from emuvisor.qmp import PlainGuest, QmpServer
from emuvisor.qmp import server as server_module
from emuvisor.qmp.messages import MAX_NESTING

PARSE_ERROR = "JSON parse error, invalid text "


def error(text: str, error_class: str = "GenericError") -> dict[str, dict[str, str]]:
    return {"error": {"class": error_class, "desc": text}}


def test_greeting_and_negotiation(rig: Rig) -> None:
    client = rig.connect(rig.serve(rig.guest()))
    version = client.greeting["QMP"].pop("version")
    assert client.greeting == {"QMP": {"capabilities": []}}
    assert version["qemu"] == {"major": 9, "minor": 0, "micro": 0}
    assert version["package"].startswith("emuvisor ")
    too_early = "CommandNotFound: Expecting capabilities negotiation with 'qmp_capabilities'"
    assert client.ask("query-status") == too_early
    assert client.ask("qmp_capabilities", enable=["oob"]) == "GenericError: Capability oob not available"
    assert client.ask("qmp_capabilities", enable=1) == (
        "GenericError: Invalid parameter type for 'enable', expected: array"
    )
    assert client.ask("qmp_capabilities", other=1) == "GenericError: Parameter 'other' is unexpected"
    assert client.ask("qmp_capabilities", enable=[]) == {}
    assert client.ask("qmp_capabilities") == (
        "CommandNotFound: Capabilities negotiation is already complete, command ignored"
    )
    assert client.ask("query-status") == {"status": "running", "running": True}


def test_who_does_not_negotiate_hears_no_events(rig: Rig) -> None:
    guest = rig.guest()
    server = rig.serve(guest)
    silent, client = rig.connect(server), rig.connect(server).negotiate()
    guest.pause()
    assert client.await_event("STOP") is None
    silent.negotiate()  # its answer is the first that comes
    assert silent.events == []
    guest.resume()
    assert (client.await_event("RESUME"), silent.await_event("RESUME")) == (None, None)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (
            '{"execute": "query-name", "id": [1, {"a": null}]}',
            {"return": {"name": "g"}, "id": [1, {"a": None}]},
        ),
        (
            '{"execute": "no", "id": 0}',
            error("The command no has not been found", "CommandNotFound") | {"id": 0},
        ),
        ('{"execute": "query-name", "id": null}', {"return": {"name": "g"}, "id": None}),
        ("[1]", error("QMP input must be a JSON object")),
        ("{}", error("QMP input lacks member 'execute'")),
        ('{"execute": 1}', error("QMP input member 'execute' must be a string")),
        ('{"execute": "stop", "arguments": []}', error("QMP input member 'arguments' must be an object")),
        ('{"exec-oob": "stop"}', error("QMP input member 'exec-oob' is unexpected")),
        ("hello\n", error(f"{PARSE_ERROR}'hello'")),
        ("{'execute': 'stop'}", error(f"{PARSE_ERROR}\"{{'execute': 'stop'}}\"")),
    ],
)
def test_requests(rig: Rig, sent: str, answer: object) -> None:
    client = rig.client(rig.guest())
    client.send(sent)
    assert client.read() == answer


def test_requests_need_no_lines(rig: Rig) -> None:
    client = rig.client(rig.guest())
    client.send('{"execute":"query-name","id":1}{"execute":\n"query-name",\n"id":2}{"execute"')
    client.send(':"query-name","id":3}')
    assert [client.read()["id"] for _ in range(3)] == [1, 2, 3]


def test_what_has_no_end_ends_the_connection(rig: Rig) -> None:
    client = rig.client(rig.guest())
    client.send("[" * (MAX_NESTING + 1))
    assert client.read() == error(f"JSON nesting depth limit exceeded: {MAX_NESTING}")
    assert client.read() is None


def test_only_so_many_clients(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 1)
    server = rig.serve(rig.guest())
    first = rig.connect(server).negotiate()
    second = rig.connect(server)
    assert second.greeting is None
    assert first.ask("query-name") == {"name": "g"}


def test_who_does_not_read_is_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.qmp.session.MAX_PENDING", 10_000)
    guest = rig.guest()
    server = rig.serve(guest)
    lazy, client = rig.connect(server).negotiate(), rig.connect(server).negotiate()
    for number in range(6000):  # more than the kernel keeps for it, too
        rig.host.lock.acquire()
        server._publish("STOP", {"number": number})
        rig.host.lock.release()
        if number % 100 == 0:
            client.ask("query-name")
    client.ask("query-name")
    end = b""
    with suppress(ConnectionError):
        while end := lazy.lines.read(1 << 16):
            pass
    assert end == b""


def test_a_client_that_goes_in_the_middle(rig: Rig) -> None:
    server = rig.serve(rig.guest())
    client = rig.connect(server)
    client.send('{"execute": "que')
    client.close()
    assert rig.connect(server).negotiate().ask("query-name") == {"name": "g"}


def test_the_socket_goes_with_the_server(rig: Rig) -> None:
    server = rig.serve(rig.guest())
    path = Path(server.address.removeprefix("unix:"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = rig.connect(server)
    server.close()
    server.close()
    assert client.read() is None
    assert not path.exists()
    assert rig.host.listeners == []
    server._publish("STOP", {})  # nobody is left to hear it


def test_tcp(rig: Rig) -> None:
    with QmpServer(PlainGuest(rig.guest()), "tcp:127.0.0.1:0") as server:
        assert server.address.startswith("tcp:127.0.0.1:")


requests = st.fixed_dictionaries(
    {
        "execute": st.sampled_from(
            [
                *("stop", "cont", "balloon", "screendump", "send-key", "input-send-event", "pmemsave"),
                *("human-monitor-command", "query-blockstats", "migrate", "migrate-set-capabilities"),
                *("migrate-set-parameters", "snapshot-load", "job-dismiss", "qmp_capabilities"),
            ]
        )
        | st.text(max_size=5)
    },
    optional={
        "arguments": st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "value",
                        "filename",
                        "keys",
                        "events",
                        "val",
                        "size",
                        "command-line",
                        "cpu-index",
                        "uri",
                    ),
                    *("capabilities", "max-bandwidth", "id", "tag", "job-id", "format", "device", "enable"),
                ]
            ),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats(allow_nan=False)
                | st.sampled_from(["", "\0", "key", "btn", "rel", "x/4xw 0", "xp/9999i -1", "info registers"])
                | st.text(max_size=6),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(
                            ["type", "data", "key", "button", "axis", "value", "down", "capability"]
                        ),
                        inner,
                        max_size=3,
                    )
                ),
                max_leaves=6,
            ),
            max_size=3,
        ),
        "id": st.integers(),
    },
)


def test_hostile_clients(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is asked for, there is one answer, and the server goes on."""
    with make_rig(tmp_path_factory.mktemp("qmp")) as rig:
        guest = rig.guest(SPIN, board="pc", memory=16 << 20)
        server = rig.serve(guest)

        @settings(max_examples=150, deadline=None)
        @given(st.lists(requests, min_size=1, max_size=4), st.binary(max_size=40))
        def attack(messages: list[object], garbage: bytes) -> None:
            client = Client(server.address)
            try:
                client.negotiate()
                for message in messages:
                    # A floating-point infinity is no JSON, but Python writes it.
                    client.send(json.dumps(message) + "\n")
                    answer = client.answer()
                    assert set(answer) - {"id"} in ({"return"}, {"error"})
                client.send(garbage)
            finally:
                client.close()

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(rig.folder)  # files that are named are written there
            attack()
        assert rig.connect(server).negotiate().ask("query-name") == {"name": "g"}
