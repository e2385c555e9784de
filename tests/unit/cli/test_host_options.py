"""The options that say what the host is."""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from emuvisor.cli.host_options import limit_backends, parse_backend_limit
from emuvisor.devices.limits import Rate
from emuvisor.errors import UsageError
from emuvisor.host import Host

FORM = "PATH,bytes=RATE[:BURST],iops=RATE[:BURST]"


def test_a_backend_limit() -> None:
    assert parse_backend_limit("/srv/disks,bytes=10M:64M,iops=500") == {
        "path": Path("/srv/disks"),
        "bytes": Rate(10 << 20, 64 << 20),
        "iops": Rate(500),
    }
    assert parse_backend_limit(".,iops=1") == {"path": Path(), "iops": Rate(1)}


@pytest.mark.parametrize("text", ["", "/srv", ",bytes=1", "/srv,shares=3", "/srv,bytes=1,"])
def test_what_is_no_backend_limit(text: str) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        parse_backend_limit(text)
    assert str(caught.value) == f"{text!r} is not {FORM}, with one of the two at least"


def test_what_is_no_rate() -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        parse_backend_limit("/srv,bytes")
    assert str(caught.value) == (
        "bytes: '' is not RATE[:BURST[:ONCE]], such as 10M:64M: '' is not a size; write a whole number with K, M, G "
        "or T, such as 256M"
    )


def test_backends_are_limited(tmp_path: Path) -> None:
    asked = []

    class Recorded(Host):
        def set_backend_limit(
            self,
            path: Path | str,
            *,
            bytes: Rate | int | str | None = None,
            iops: Rate | int | str | None = None,
        ) -> None:
            asked.append((path, bytes, iops))
            super().set_backend_limit(path, bytes=bytes, iops=iops)

    with Recorded() as host:
        limit_backends(host, [parse_backend_limit(f"{tmp_path},bytes=1M"), parse_backend_limit(".,iops=5")])
        assert asked == [(tmp_path, Rate(1 << 20), None), (Path(), None, Rate(5))]
        missing = tmp_path / "missing"
        with pytest.raises(UsageError) as caught:
            limit_backends(host, [parse_backend_limit(f"{missing},iops=5")])
    assert str(caught.value) == f"{missing}: No such file or directory"
