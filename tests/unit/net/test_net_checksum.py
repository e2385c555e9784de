from hypothesis import given
from hypothesis import strategies as st
from packets import plain_sum

from emuvisor.net.checksum import checksum, word_sum


def test_the_example_of_rfc_1071() -> None:
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert checksum(word_sum(data)) == 0xDDF2 ^ 0xFFFF


def test_zeros_have_the_positive_zero_as_their_sum() -> None:
    assert checksum(word_sum(bytes(40))) == 0xFFFF
    assert checksum(word_sum(bytes(4000))) == 0xFFFF


def test_a_sum_of_all_ones_has_checksum_zero() -> None:
    assert checksum(word_sum(b"\xff\xff")) == 0
    assert checksum(word_sum(b"\xff\xff" * 1000)) == 0


@given(st.binary(max_size=64), st.integers(0, 3000))
def test_any_length_gives_what_adding_word_by_word_gives(seed: bytes, length: int) -> None:
    data = (seed * (length // max(1, len(seed)) + 1))[:length]
    assert checksum(word_sum(data)) == plain_sum(data) ^ 0xFFFF
    assert checksum(word_sum(memoryview(data))) == plain_sum(data) ^ 0xFFFF
