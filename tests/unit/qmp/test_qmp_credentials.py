"""What QMP's `migrate` shows to the other side: made by object-add, named by tls-creds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from qmp_rig import Client, Rig

from emuvisor.host import Guest
from emuvisor.qmp import PlainGuest
from emuvisor.qmp.commands import objects

TOKEN = "t" * 32


class Asked(PlainGuest):
    """A guest that is not moved, but knows what it was asked."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.options: dict[str, Any] = {}

    def migrate(self, to: str, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def migration(self) -> None:
        return None


@pytest.fixture
def target(rig: Rig) -> Asked:
    return Asked(rig.guest())


@pytest.fixture
def client(rig: Rig, target: Asked) -> Client:
    return rig.client(target)


def add(client: Client, kind: str, name: str = "c", **properties: Any) -> Any:
    return client.ask("object-add", qom_type=kind, id=name, **properties)


def moved(client: Client, target: Asked) -> dict[str, Any]:
    assert client.human("migrate tcp:h:1") == ""
    return {key: value for key, value in target.options.items() if key != "downtime_ms"}


@pytest.mark.parametrize("form", ["data", "file", "base64"])
def test_a_token(client: Client, target: Asked, tmp_path: Path, form: str) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    given = {
        "data": {"data": TOKEN},
        "file": {"file": str(tmp_path / "token")},
        "base64": {"data": "dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHQ=", "format": "base64"},
    }
    assert add(client, "secret", **given[form]) == {}
    assert moved(client, target) == {}
    assert client.ask("migrate-set-parameters", tls_creds="c") == {}
    assert moved(client, target) == {"token": TOKEN}
    assert client.ask("query-migrate-parameters")["tls-creds"] == "c"
    assert client.ask("migrate-set-parameters", tls_creds="") == {}
    assert moved(client, target) == {}


def test_certificates(client: Client, target: Asked, tmp_path: Path) -> None:
    assert add(client, "tls-creds-x509", dir=str(tmp_path), endpoint="client") == {}
    assert client.human("migrate_set_parameter tls-creds c") == ""
    files = {"certificate": "client-cert.pem", "key": "client-key.pem", "ca": "ca-cert.pem"}
    certificates = {key: str(tmp_path / name) for key, name in files.items()}
    assert moved(client, target) == certificates
    assert client.human("migrate_set_parameter tls-hostname there") == ""
    assert moved(client, target) == certificates | {"peer": "there"}
    assert client.ask("object-del", id="c") == {}
    assert client.ask("migrate", uri="tcp:h:1") == "GenericError: No TLS credentials with id 'c'"
    assert client.ask("object-del", id="c") == "GenericError: object 'c' not found"


def test_what_cannot_be(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_OBJECTS", 1)
    missing = tmp_path / "missing"
    (tmp_path / "large").write_bytes(bytes(objects.MAX_SECRET + 1))
    for properties, text in (
        ({}, "Either 'data' or 'file' must be provided, and not both"),
        ({"data": "a", "file": "b"}, "Either 'data' or 'file' must be provided, and not both"),
        (
            {"file": str(missing)},
            f"Unable to read {missing}: [Errno 2] No such file or directory: '{missing}'",
        ),
        ({"file": str(tmp_path / "large")}, "A secret of more than 65536 bytes"),
        ({"file": "a\0b"}, "Unable to read a\0b: embedded null byte"),
        ({"data": "é", "format": "base64"}, "The secret is no text"),
        ({"data": "/w==", "format": "base64"}, "The secret is no text"),
        ({"data": "a", "format": "hex"}, "Parameter 'format' does not accept value 'hex'"),
    ):
        assert add(client, "secret", **properties) == f"GenericError: {text}"
    assert (
        add(client, "rng-builtin") == "GenericError: Parameter 'qom-type' does not accept value 'rng-builtin'"
    )
    assert add(client, "tls-creds-x509") == "GenericError: Parameter 'dir' is missing"
    assert (
        add(client, "tls-creds-x509", dir="/", endpoint="server")
        == "GenericError: Parameter 'endpoint' does not accept value 'server'"
    )
    assert add(client, "secret", data=TOKEN) == {}
    assert (
        add(client, "secret", data=TOKEN)
        == "GenericError: attempt to add duplicate property 'c' to object (type 'container')"
    )
    assert add(client, "secret", "d", data=TOKEN) == "GenericError: There are 1 objects, which is the limit"
