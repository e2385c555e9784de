"""The server as a whole: who may come, and how it ends."""

import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rfb_client import Display

from emuvisor.devices.display.screen import Screen
from emuvisor.errors import HostError, StateError, UsageError
from emuvisor.vnc import server as module
from emuvisor.vnc.server import VncServer
from emuvisor.vnc.session import Session

PATIENCE_S = 120
VERSION = b"RFB 003.008\n"


def serve(address: str = "127.0.0.1:0", display: Display | None = None, **options: Any) -> VncServer:
    display = display or Display()
    return VncServer(address, screen=display.screen, key=display.key, pointer=display.pointer, **options)


def connect(server: VncServer) -> socket.socket:
    host, port = server.address.split(":")
    if host == "unix":
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(port)
        except OSError:
            connection.close()
            raise
    else:
        connection = socket.create_connection((host, int(port)))
    connection.settimeout(PATIENCE_S)
    return connection


def receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (more := connection.recv(length - len(data))):
        data += more
    return data


def start(connection: socket.socket) -> None:
    """The handshake up to the server's last message."""
    connection.sendall(VERSION + b"\x01\x01")
    assert receive(connection, 12 + 2 + 4 + 24 + 8) == VERSION + b"\x01\x01" + bytes(4) + (
        b"\x00\x64\x00\x46"
        + b"\x20\x18\x00\x01\x00\xff\x00\xff\x00\xff\x10\x08\x00\0\0\0"
        + b"\0\0\0\x08emuvisor"
    )


@pytest.mark.parametrize("unix", [False, True])
def test_viewers_are_served_until_it_is_closed(tmp_path: Path, unix: bool) -> None:
    path = tmp_path / "vnc"
    with serve(f"unix:{path}" if unix else "127.0.0.1:0") as server:
        with connect(server) as first, connect(server) as second:
            start(first)
            start(second)
            assert server.viewers == 2
            server.close()
            assert receive(first, 1) == receive(second, 1) == b""
        server.close()  # once more does nothing
        assert server.viewers == 0
    assert not path.exists()
    with pytest.raises(OSError, match=r"refused|No such file"):
        connect(server)


def test_too_many_viewers_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_VIEWERS", 1)
    with serve() as server, connect(server) as first:
        start(first)
        with connect(server) as second:
            assert receive(second, 1) == b""
        first.sendall(b"\x03\0\0\0\0\0\0\x01\0\x01")
        assert len(receive(first, 4 + 12 + 4)) == 20


def test_a_guest_that_is_gone_ends_the_sessions() -> None:
    def gone() -> Screen:
        raise StateError("guest 'a' is gone")

    with VncServer("127.0.0.1:0", screen=gone, key=print, pointer=print) as server, connect(server) as viewer:
        viewer.sendall(VERSION + b"\x01\x01")
        assert receive(viewer, 100) == VERSION + b"\x01\x01" + bytes(4)


def test_a_viewer_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.vnc.session.SEND_TIMEOUT_S", 0.05)
    dropped = threading.Event()
    display = Display()
    display.pixels = np.random.default_rng(1).integers(0, 256, (1600, 2560, 3), np.uint8)

    def key(name: str, pressed: bool) -> None:
        if not pressed:
            dropped.set()  # what the viewer held down is released when its session ends

    server = VncServer("127.0.0.1:0", screen=display.screen, key=key, pointer=print)
    with server, connect(server) as viewer:
        viewer.sendall(VERSION + b"\x01\x01" + b"\x04\x01\0\0\0\0\0a")
        viewer.sendall(b"\x03\0\0\0\0\0\xff\xff\xff\xff")
        assert dropped.wait(PATIENCE_S)


def test_a_key_that_is_being_pressed_when_the_server_closes_is_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pressing, letting_go = threading.Event(), threading.Event()
    typed: list[tuple[str, bool]] = []
    let_go = Session._let_go

    async def tell_and_let_go(session: Session) -> None:
        letting_go.set()
        await let_go(session)

    def key(name: str, pressed: bool) -> None:
        pressing.set()
        assert letting_go.wait(PATIENCE_S)
        typed.append((name, pressed))

    monkeypatch.setattr(Session, "_let_go", tell_and_let_go)
    with (
        VncServer("127.0.0.1:0", screen=Display().screen, key=key, pointer=print) as server,
        connect(server) as viewer,
    ):
        start(viewer)
        viewer.sendall(b"\x04\x01\0\0\0\0\0a")
        assert pressing.wait(PATIENCE_S)
        server.close()
    assert typed == [("KeyA", True), ("KeyA", False)]


@pytest.mark.parametrize(("password", "length"), [("", 0), ("123456789", 9), ("ääääx", 9)])
def test_passwords_that_the_protocol_cannot_check(password: str, length: int) -> None:
    with pytest.raises(UsageError) as error:
        serve(password=password)
    assert str(error.value) == (
        f"a VNC password has 1 to 8 bytes, this one has {length}; the protocol uses no more"
    )


def test_a_password_is_asked_for() -> None:
    with serve(password="secret") as server, connect(server) as viewer:
        viewer.sendall(VERSION)
        assert receive(viewer, 14) == VERSION + b"\x01\x02"


def test_an_address_in_use() -> None:
    with serve() as server, pytest.raises(HostError) as error:
        serve(server.address)
    assert str(error.value) == f"VNC cannot listen on {server.address}: Address already in use"
