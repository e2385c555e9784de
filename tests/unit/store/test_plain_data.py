import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.errors import SnapshotError
from emuvisor.store import plain

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES
    | st.binary(max_size=20)
)
DATA = st.recursive(
    LEAVES,
    lambda part: st.lists(part, max_size=4) | st.dictionaries(NAMES | st.just("$bytes"), part, max_size=4),
    max_leaves=20,
)


@given(DATA)
def test_data_comes_back(data):
    assert plain.decode(plain.encode(data)) == data


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_other_text_is_refused_or_is_plain_data(text):
    try:
        data = plain.decode(text)
    except SnapshotError:
        return
    assert plain.decode(plain.encode(data)) == data


def test_bytes_are_in_base64_and_names_keep_their_dollars():
    assert plain.encode({"a": b"\x00\x01", "$b": 1}) == b'{"a":{"$bytes":"AAE="},"$$b":1}'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": [1, {2}]}, "{2} is no plain data, at .a[1]"),
        ((1,), "(1,) is no plain data, at its top"),
        (float("nan"), "nan is no plain data, at its top"),
        ("\ud800", "'\\ud800' is no plain data, at its top"),
        ({"a": {1: 2}}, "data has the name 1 at .a; names are strings"),
        ({"\ud800": 2}, "data has the name '\\ud800' at its top; names are strings"),
    ],
)
def test_what_cannot_be_saved(data, message):
    with pytest.raises(SnapshotError) as caught:
        plain.encode(data)
    assert str(caught.value) == message


def test_too_deep():
    data = []
    for _ in range(70):
        data = [data]
    with pytest.raises(SnapshotError, match="data is nested deeper than 64 at"):
        plain.encode(data)
    with pytest.raises(SnapshotError, match="saved data is damaged: maximum recursion depth exceeded"):
        plain.decode(b"[" * 100_000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"$bytes":"A"}', "saved data is damaged: bytes are not in base64"),
        (b'{"$bytes":1}', "saved data is damaged: bytes are not in base64"),
        (b'{"$class":"os.system"}', "saved data is damaged: unknown names ['$class']"),
        (b"NaN", "saved data is damaged: NaN is no number"),
    ],
)
def test_damaged_text(text, message):
    with pytest.raises(SnapshotError) as caught:
        plain.decode(text)
    assert str(caught.value) == message
