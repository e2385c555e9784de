from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packages import COMPRESSIONS, ar_member, deb

from emuvisor.errors import ImageError
from emuvisor.images.deb import read_package

FILES = {"boot/vmlinuz": b"kernel", "usr/share/doc": b"text"}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_wanted_files_are_read(tmp_path, compression):
    path = tmp_path / "k.deb"
    path.write_bytes(deb(FILES, compression))
    assert read_package(path, lambda name: name.startswith("boot/")) == {"boot/vmlinuz": b"kernel"}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"PK", "k.deb: not a Debian package: no ar archive"),
        (b"!<arch>\n", "k.deb: not a Debian package: no data.tar in it"),
        (b"!<arch>\nshort", "k.deb: damaged ar header at 0x8"),
        (b"!<arch>\n" + ar_member("data.tar.xz", b"12345678")[:-3],
         "k.deb: truncated: data.tar.xz has 8 bytes, 5 are there"),
        (b"!<arch>\n" + ar_member("data.tar.xz", b"12345678"),
         "k.deb: data.tar.xz: damaged: file could not be opened successfully:"),
    ],
)  # fmt: skip
def test_damaged(tmp_path, raw, message):
    path = tmp_path / "k.deb"
    path.write_bytes(raw)
    with pytest.raises(ImageError) as error:
        read_package(path, lambda name: True)
    assert str(error.value).split("\n")[0] == message


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(st.integers(0, 2000), st.integers(0, 255), st.booleans())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_damage_is_an_image_error(tmp_path_factory, compression, place, value, cut):
    raw = bytearray(deb(FILES, compression))
    place %= len(raw)
    raw[place] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.deb"
    path.write_bytes(raw[:place] if cut else raw)
    # Not every compression has a checksum: names may change, but nothing other than ImageError is raised.
    with suppress(ImageError):
        assert len(read_package(path, lambda name: True)) <= len(FILES)
