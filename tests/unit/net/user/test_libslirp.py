import subprocess
import sys
from pathlib import Path

import pytest

from emuvisor.errors import HostError
from emuvisor.net.user import library


@pytest.mark.parametrize("version", ["4.5.0", "4.7.0", "4.10", "4.8.0-git"])
def test_versions_that_do(version: str) -> None:
    library.check_version(version)


@pytest.mark.parametrize("version", ["4.4.0", "5.0.0", "3.9", "", "unknown"])
def test_versions_that_do_not(version: str) -> None:
    with pytest.raises(HostError) as raised:
        library.check_version(version)
    assert str(raised.value) == f"uplink 'user' needs libslirp 4.5 or a newer 4.x; this one is {version}"


@pytest.fixture
def fresh() -> None:
    """Loads anew, and forgets it afterwards."""
    library.load.cache_clear()


def test_a_library_that_is_not_there(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "libslirp.so"
    monkeypatch.setenv("EMUVISOR_LIBSLIRP", str(missing))
    with pytest.raises(HostError) as raised:
        library.load()
    assert str(raised.value) == (
        f"uplink 'user' needs libslirp, and {missing} cannot be used ({missing}: cannot open shared object file: "
        "No such file or directory): install Debian's package libslirp0, or name the library's file in "
        "$EMUVISOR_LIBSLIRP"
    )


def test_a_library_that_is_another_one(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMUVISOR_LIBSLIRP", "libc.so.6")
    with pytest.raises(HostError, match=r"libc\.so\.6 cannot be used .*slirp_version_string"):
        library.load()


def test_the_package_loads_nothing_until_it_is_used() -> None:
    code = (
        "import sys; import emuvisor.net.user.uplink; sys.exit('libslirp' in open('/proc/self/maps').read())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
