import pytest

from emuvisor.errors import UsageError
from emuvisor.units import GIB, KIB, MIB, TIB, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512B", 512),
        ("64K", 64 * KIB),
        ("256M", 256 * MIB),
        ("256MB", 256 * MIB),
        (" 4 GiB ", 4 * GIB),
        ("4g", 4 * GIB),
        ("1TiB", TIB),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "1.5G", "-1", "256 megabytes", "10iB", "1P", "٣M", "1 2", "9" * 19]
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert str(caught.value) == (
        f"{text!r} is not a size; write a whole number with K, M, G or T, such as 256M"
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1 KiB"),
        (1536 * MIB, "1.5 GiB"),
        (256 * MIB, "256 MiB"),
        (3 * TIB, "3 TiB"),
    ],
)
def test_sizes_as_people_read_them(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize("size", [1, KIB, 3 * MIB, 7 * GIB, 2 * TIB])
def test_a_printed_whole_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size
