"""Where a QMP server listens."""

import socket
import stat
from pathlib import Path

import pytest

from emuvisor.errors import HostError, UsageError
from emuvisor.qmp.address import Address, listen, parse_address


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("unix:/run/q", Address(path=Path("/run/q")), "unix:/run/q"),
        ("/run/q", Address(path=Path("/run/q")), "unix:/run/q"),
        ("unix:q,server=on,wait=off", Address(path=Path("q")), "unix:q"),
        ("unix:q,server,nowait", Address(path=Path("q")), "unix:q"),
        ("tcp::4444", Address("127.0.0.1", 4444), "tcp:127.0.0.1:4444"),
        ("tcp:localhost:4444,server", Address("localhost", 4444), "tcp:localhost:4444"),
        ("tcp:[::1]:1", Address("::1", 1), "tcp:[::1]:1"),
    ],
)
def test_addresses(text: str, address: Address, shown: str) -> None:
    assert parse_address(text) == address
    assert str(address) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' names no socket for QMP; write unix:/path or tcp:127.0.0.1:4444"),
        ("unix:", "'unix:' names no socket for QMP; write unix:/path or tcp:127.0.0.1:4444"),
        ("tcp:4444", "'tcp:4444' is not an address for QMP; write unix:/path or tcp:127.0.0.1:4444"),
        ("tcp::65536", "'tcp::65536' is not an address for QMP; write unix:/path or tcp:127.0.0.1:4444"),
        (
            "tcp:0.0.0.0:4444",
            "'tcp:0.0.0.0:4444': QMP knows no passwords; TCP is for loopback only (127.0.0.1, ::1)",
        ),
        (
            "tcp:example.org:4444",
            "'tcp:example.org:4444': QMP knows no passwords; TCP is for loopback only (127.0.0.1, ::1)",
        ),
    ],
)
def test_no_addresses(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_address(text)
    assert str(error.value) == message


def test_a_socket_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener, address = listen(Address(path=path))
    with listener:
        assert address == Address(path=path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(HostError) as error:
            listen(address)
        assert str(error.value) == f"QMP cannot listen on unix:{path}: Address already in use"
    listen(address)[0].close()  # nobody listens there any more


def test_tcp_on_loopback() -> None:
    listener, address = listen(parse_address("tcp:127.0.0.1:0"))
    with listener, socket.create_connection(("127.0.0.1", address.port)):
        assert address.port
