"""The token of those who come over TCP."""

import hmac
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.daemon import token as token_module
from emuvisor.daemon.token import authorized, read_token
from emuvisor.errors import UsageError

TOKEN = "0123456789abcdef"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("token", [TOKEN, "a" * 512, "AZaz09._~+/-1234=="])
def test_a_token(tmp_path: Path, token: str) -> None:
    assert read_token(write(tmp_path / "token", f"{token}\n")) == token


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_one_that_others_can_read(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "token", TOKEN, mode)
    with pytest.raises(UsageError) as error:
        read_token(path)
    assert str(error.value) == f"{path}: others can read the token (mode {mode:04o}); chmod 600 {path}"


@pytest.mark.parametrize(
    "text", ["", "short", "a" * 513, "two words in a line", "späße" * 4, TOKEN + "\nmore"]
)
def test_what_is_no_token(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "token", text)
    with pytest.raises(UsageError) as error:
        read_token(path)
    assert str(error.value) == (
        f"{path}: no token in it; one has 16 to 512 letters, digits and characters of '._~+/-', such as "
        "'openssl rand -hex 32' gives"
    )


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read_token(tmp_path / "token")
    assert str(error.value) == f"{tmp_path}/token: the token cannot be read: No such file or directory"


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_who_has_it(header: str) -> None:
    assert authorized(header.encode(), TOKEN)


@given(st.none() | st.binary() | st.text().map(lambda text: f"Bearer {text}".encode()))
def test_who_does_not(header: bytes | None) -> None:
    assert not authorized(header, TOKEN)


def test_the_comparison_takes_as_long_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, right: bytes) -> bool:
        compared.append((given, right))
        return hmac.compare_digest(given, right)

    monkeypatch.setattr(token_module, "hmac", SimpleNamespace(compare_digest=compare))
    for header in (None, b"", b"Basic x", b"Bearer y"):
        assert not authorized(header, TOKEN)
    assert [right for _, right in compared] == [TOKEN.encode()] * 4
