"""Each side is told why they do not come to terms, whatever the one and the other was given."""

import socket
import subprocess
import threading

import pytest

from emuvisor.errors import MigrationError
from emuvisor.migration.calling import call
from emuvisor.migration.channel import Channel, LineLost, alert_text
from emuvisor.migration.greeting import Hello, greet
from emuvisor.migration.security import Certificates, Insecure, Security, Token, secure

FINE = ("", "")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Security]:
    """What a side may have been given; `stranger` has a certificate that nobody else believes."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("mine", "other"):
        subprocess.run(
            [
                *(
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                ),
                *("-days", "1", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", "/CN=host"),
            ],
            check=True,
            cwd=folder,
            capture_output=True,
        )
    mine, stranger = (
        Certificates(folder / f"{name}.pem", folder / f"{name}.key", folder / "mine.pem")
        for name in ("mine", "other")
    )
    return {
        "nothing": Insecure(),
        "token": Token("t" * 20),
        "another token": Token("a" * 20),
        "certificate": mine,
        "stranger": stranger,
    }


def terms(listening: Security, connecting: Security) -> tuple[str, str]:
    """What each side says, the one that connects first."""
    here, there = socket.socketpair()
    there.settimeout(10)
    said = []

    def listen() -> None:
        sock = there
        try:
            sock = secure(there, listening, server=True)
            greet(Channel(sock, 10), "target", lambda _: listening.key())
            said.append("")
        except (MigrationError, LineLost) as error:
            said.append(str(error))
        sock.close()

    other = threading.Thread(target=listen)
    other.start()
    try:
        hello = Hello("migrate", "1")
        call(
            "", connecting, hello, connecting.key(), role="source", timeout_s=10, dial=lambda _: here
        ).close()
        told = ""
    except (MigrationError, LineLost) as error:
        told = str(error)
    here.close()
    other.join(10)
    return told, said[0]


def both(text: str) -> tuple[str, str]:
    return f"migration: {text}", f"migration: {text}"


@pytest.mark.parametrize(
    ("listening", "connecting", "errors"),
    [
        ("nothing", "nothing", FINE),
        ("token", "token", FINE),
        ("certificate", "certificate", FINE),
        (
            "token",
            "nothing",
            both("the side that listens wants a token, and the side that connects has none"),
        ),
        (
            "certificate",
            "nothing",
            both("the side that listens wants a certificate, and the side that connects has none"),
        ),
        ("token", "another token", both("the other side does not know the token")),
        (
            "token",
            "certificate",
            (
                "migration: this side was given a certificate, and the side that listens a token",
                "migration: this side was given a token, and the side that connects a certificate",
            ),
        ),
        (
            "certificate",
            "token",
            (
                "migration: this side was given a token, and the side that listens a certificate",
                "migration: this side was given a certificate, and the side that connects a token",
            ),
        ),
        (
            "certificate",
            "stranger",
            (
                "migration: the other side does not accept this side's certificate: unknown ca",
                "migration: the other side's certificate: self-signed certificate",
            ),
        ),
        (
            "stranger",
            "certificate",
            (
                "migration: the other side's certificate: self-signed certificate",
                "migration: the other side does not accept this side's certificate: unknown ca",
            ),
        ),
    ],
)
def test_terms(given: dict[str, Security], listening: str, connecting: str, errors: tuple[str, str]) -> None:
    assert terms(given[listening], given[connecting]) == errors


@pytest.mark.parametrize("what", ["token", "certificate"])
def test_a_side_that_listens_without_tls(given: dict[str, Security], what: str) -> None:
    told, said = terms(given["nothing"], given[what])
    assert told == f"migration: this side was given a {what}, and the side that listens speaks no TLS"
    assert said.startswith("migration: the other side sent a frame of kind ")


def test_one_that_connects_and_leaves(given: dict[str, Security]) -> None:
    here, there = socket.socketpair()
    here.close()
    with there, pytest.raises((MigrationError, LineLost)):
        secure(there, given["token"], server=True)


def test_one_that_connects_and_says_nothing(given: dict[str, Security]) -> None:
    here, there = socket.socketpair()
    there.settimeout(0.01)
    with here, there, pytest.raises(LineLost, match="timed out"):
        secure(there, given["token"], server=True)


def test_other_troubles_of_a_line_are_no_refusals() -> None:
    assert alert_text("TLSV13_ALERT_CERTIFICATE_REQUIRED").endswith(": certificate required")
    for reason in (None, "", "TLSV1_ALERT_INTERNAL_ERROR", "RECORD_LAYER_FAILURE"):
        assert alert_text(reason) == ""
