from collections import deque
from typing import Any

import pytest

from emuvisor.bus.device import check_saved
from emuvisor.bus.saved import (
    OPTIONAL_TIME,
    TIME,
    Data,
    Fields,
    Flag,
    Number,
    Numbers,
    load_fields,
    save_fields,
    saved_part,
)
from emuvisor.errors import SnapshotError

FIELDS = Fields(
    {
        "count": Number(0xFF),
        "latch": Number(0xFF, optional=True),
        "enabled": Flag(),
        "fifo": Data(4),
        "codes": Numbers(length=3, maximum=9),
        "ram": Data(2, minimum=2),
        "origin": TIME,
        "deadline": OPTIONAL_TIME,
    }
)


class Chip:
    def __init__(self) -> None:
        self.count = 7
        self.latch: int | None = None
        self.enabled = True
        self.fifo: deque[int] = deque(b"ab")
        self.codes: deque[int] = deque([1, 2], maxlen=3)
        self.ram = bytearray(b"xy")
        self.origin = -5
        self.deadline: int | None = None


def saved() -> dict[str, Any]:
    return save_fields(Chip(), "chip", 1, FIELDS)


def test_a_saved_chip_is_plain_data() -> None:
    assert saved() == {
        "device": "chip",
        "version": 1,
        "count": 7,
        "latch": None,
        "enabled": True,
        "fifo": b"ab",
        "codes": [1, 2],
        "ram": b"xy",
        "origin": -5,
        "deadline": None,
    }
    assert {type(value) for value in saved().values()} == {str, int, bytes, bool, list, type(None)}


def test_loading_refills_the_containers_that_the_chip_has() -> None:
    state = {**saved(), "count": 9, "fifo": b"cde", "codes": [3], "ram": b"zz", "deadline": 12}
    chip = Chip()
    fifo, codes, ram = chip.fifo, chip.codes, chip.ram
    load_fields(chip, state, "chip", 1, FIELDS)
    assert (chip.count, chip.deadline) == (9, 12)
    assert (chip.fifo, chip.codes, chip.ram) == (deque(b"cde"), deque([3]), bytearray(b"zz"))
    assert (chip.fifo is fifo, chip.codes is codes, chip.ram is ram) == (True, True, True)
    assert save_fields(chip, "chip", 1, FIELDS) == state


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("count", 256, "'count' is 256; expected an integer from 0 to 255"),
        ("count", True, "'count' is True; expected an integer from 0 to 255"),
        ("count", None, "'count' is None; expected an integer from 0 to 255"),
        ("latch", -1, "'latch' is -1; expected an integer from 0 to 255 or None"),
        ("enabled", 1, "'enabled' is 1; expected True or False"),
        ("fifo", b"abcde", "'fifo' is b'abcde'; expected 0 to 4 bytes"),
        ("fifo", [1], "'fifo' is [1]; expected 0 to 4 bytes"),
        ("ram", b"x", "'ram' is b'x'; expected 2 to 2 bytes"),
        ("codes", [10], "'codes' is [10]; expected a list of at most 3 integers from 0 to 9"),
        ("codes", [1, 2, 3, 4], "'codes' is [1, 2, 3, 4]; expected a list of at most 3 integers from 0 to 9"),
        ("codes", "12", "'codes' is '12'; expected a list of at most 3 integers from 0 to 9"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(field: str, value: Any, expected: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        load_fields(Chip(), {**saved(), field: value}, "chip", 1, FIELDS)
    assert str(caught.value) == f"chip: saved field {expected}"


def test_a_long_value_is_shown_short() -> None:
    with pytest.raises(SnapshotError) as caught:
        load_fields(Chip(), {**saved(), "fifo": b"a" * 10_000}, "chip", 1, FIELDS)
    assert len(str(caught.value)) < 100


def test_a_missing_field_is_named() -> None:
    state = saved()
    del state["latch"]
    with pytest.raises(SnapshotError) as caught:
        load_fields(Chip(), state, "chip", 1, FIELDS)
    assert str(caught.value) == "chip: the saved state has no field 'latch'"


def test_another_device_and_other_versions_are_refused() -> None:
    with pytest.raises(SnapshotError) as caught:
        check_saved({"device": "toaster", "version": 1}, "chip", 1)
    assert str(caught.value) == "the saved state is of device 'toaster', not 'chip'"
    for version in (3, 0, "1", None):
        with pytest.raises(SnapshotError) as caught:
            check_saved({"device": "chip", "version": version}, "chip", 2)
        assert str(caught.value) == f"chip: saved state has version {version!r}; this emuvisor reads 1 to 2"


def test_a_part_is_a_state_of_its_own() -> None:
    assert saved_part({"counter": {"device": "c"}}, "chip", "counter") == {"device": "c"}
    with pytest.raises(SnapshotError) as caught:
        saved_part({"counter": 3}, "chip", "counter")
    assert str(caught.value) == "chip: saved field 'counter' is 3; expected a saved state"
