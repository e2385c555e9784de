from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.errors import ConfigError
from emuvisor.net.forward import Forward

LOOPBACK = IPv4Address("127.0.0.1")


@pytest.mark.parametrize(
    ("text", "forward", "whole"),
    [
        ("tcp:8080:80", Forward("tcp", 8080, 80), "tcp:127.0.0.1:8080:80"),
        ("udp:127.0.0.1:5353:53", Forward("udp", 5353, 53, LOOPBACK), "udp:127.0.0.1:5353:53"),
        ("tcp:[::1]:8080:80", Forward("tcp", 8080, 80, IPv6Address("::1")), "tcp:[::1]:8080:80"),
        ("tcp:0:80", Forward("tcp", 0, 80), "tcp:127.0.0.1:0:80"),
        ("tcp:0:web:80", Forward("tcp", 0, 80, guest="web"), "tcp:127.0.0.1:0:web:80"),
        (
            "tcp:0.0.0.0:22:10.0.2.16:22",
            Forward("tcp", 22, 22, IPv4Address("0.0.0.0"), IPv4Address("10.0.2.16")),
            "tcp:0.0.0.0:22:10.0.2.16:22",
        ),
        (
            "tcp:[::]:22:[fec0::15]:22",
            Forward("tcp", 22, 22, IPv6Address("::"), IPv6Address("fec0::15")),
            "tcp:[::]:22:[fec0::15]:22",
        ),
    ],
)
def test_parse_and_write(text: str, forward: Forward, whole: str) -> None:
    assert Forward.parse(text) == forward
    assert str(forward) == whole
    assert Forward.parse(whole) == forward


SYNTAX = "PROTOCOL:[HOST-ADDRESS:]HOST-PORT:[GUEST:]GUEST-PORT"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"forward '' is not of the form {SYNTAX}, such as tcp:8080:80"),
        ("tcp:80", f"forward 'tcp:80' is not of the form {SYNTAX}, such as tcp:8080:80"),
        ("tcp:::1:80:80", f"forward 'tcp:::1:80:80' is not of the form {SYNTAX}, such as tcp:8080:80"),
        ("tcp::80:80", "forward 'tcp::80:80': '' is no IP address of the host"),
        ("tcp:[::1:80:80", f"forward 'tcp:[::1:80:80' is not of the form {SYNTAX}, such as tcp:8080:80"),
        ("tcp:1:2:3:4:5", f"forward 'tcp:1:2:3:4:5' is not of the form {SYNTAX}, such as tcp:8080:80"),
        (
            "tcp:localhost:8080:80",
            "forward 'tcp:localhost:8080:80': 'localhost' is no IP address of the host",
        ),
        ("tcp:8080::80", "forward 'tcp:8080::80' names no guest"),
        ("sctp:8080:80", "forward sctp:127.0.0.1:8080:80: 'sctp' is not one of tcp, udp"),
        ("tcp:65536:80", "forward tcp:127.0.0.1:65536:80: host port 65536 is outside 0 to 65535"),
        ("tcp:8080:0", "forward tcp:127.0.0.1:8080:0: guest port 0 is outside 1 to 65535"),
        (
            "tcp:8080:[fec0::15]:80",
            "forward tcp:127.0.0.1:8080:[fec0::15]:80: leads from IPv4 to IPv6; both ends have to be of one kind",
        ),
    ],
)
def test_what_is_no_forward(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Forward.parse(text)
    assert str(raised.value) == message


@given(st.text(alphabet="tcpud:[]0123456789.az", max_size=30))
def test_any_text_is_a_forward_or_an_error(text: str) -> None:
    try:
        forward = Forward.parse(text)
    except ConfigError:
        return
    assert Forward.parse(str(forward)) == forward
