"""Where VNC listens."""

import socket
import stat
from pathlib import Path

import pytest

from emuvisor.errors import HostError, UsageError
from emuvisor.vnc.address import Address, listen, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":1", Address("127.0.0.1", 5901)),
        ("127.0.0.1:5901", Address("127.0.0.1", 5901)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:5902", Address("::1", 5902)),
        ("unix:/tmp/a socket", Address(path=Path("/tmp/a socket"))),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5901", "'5901' is not an address for VNC; write :1 (display 1), 127.0.0.1:5901 or unix:/path"),
        ("", "'' is not an address for VNC; write :1 (display 1), 127.0.0.1:5901 or unix:/path"),
        ("host:x", "'host:x' is not an address for VNC; write :1 (display 1), 127.0.0.1:5901 or unix:/path"),
        ("a:70000", "'a:70000': there is no TCP port 70000; the last one is 65535"),
        (":60000", "':60000': there is no TCP port 65900; the last one is 65535"),
        ("unix:", "'unix:' names no socket; write unix:/path"),
        ("unix:\0", "'unix:\\x00' names no socket; write unix:/path"),
    ],
)
def test_texts_that_are_no_addresses(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_address(text)
    assert str(error.value) == message


def test_a_free_port_is_found() -> None:
    listener, address = listen(Address())
    with listener:
        assert address.port == listener.getsockname()[1] != 0


def test_a_port_in_use() -> None:
    listener, address = listen(Address())
    with listener, pytest.raises(HostError) as error:
        listen(address)
    assert str(error.value) == f"VNC cannot listen on 127.0.0.1:{address.port}: Address already in use"


def test_a_host_that_is_not_here() -> None:
    with pytest.raises(HostError) as error:
        listen(Address("192.0.2.1", 5901))  # reserved for documentation
    assert str(error.value) == "VNC cannot listen on 192.0.2.1:5901: Cannot assign requested address"


def test_a_name_that_no_host_can_have() -> None:
    with pytest.raises(HostError) as error:
        listen(Address("a" * 70 + ".b", 5901))
    assert str(error.value).startswith(f"VNC cannot listen on {'a' * 70}.b:5901: ")


def test_a_unix_socket_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "vnc"
    listener, address = listen(Address(path=path))
    with listener:
        assert str(address) == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(HostError) as error:
            listen(address)
        assert str(error.value) == f"VNC cannot listen on unix:{path}: Address already in use"


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "vnc"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    listener, _ = listen(Address(path=path))
    listener.close()


def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    path = tmp_path / "vnc"
    path.write_text("precious")
    with pytest.raises(HostError) as error:
        listen(Address(path=path))
    assert str(error.value) == f"VNC cannot listen on unix:{path}: Address already in use"
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long() -> None:
    path = Path("/tmp", "x" * 200)
    with pytest.raises(HostError) as error:
        listen(Address(path=path))
    assert str(error.value) == f"VNC cannot listen on unix:{path}: AF_UNIX path too long"
