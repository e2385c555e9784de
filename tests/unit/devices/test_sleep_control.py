"""Hardware-reduced ACPI's registers: off and reset."""

import pytest
from loading import loaded

from emuvisor.devices.sleep_control import SleepControl
from emuvisor.errors import SnapshotError

CONTROL, STATUS, RESET = 0, 1, 2


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture(params=["fresh", "restored"])
def chip(request, log) -> SleepControl:
    events = {"on_shutdown": lambda: log.append("off"), "on_reset": lambda: log.append("reset")}
    chip = SleepControl(**events)
    return chip if request.param == "fresh" else loaded(SleepControl(**events), chip.save())


@pytest.mark.parametrize(
    ("offset", "value", "expected"),
    [
        (CONTROL, 5 << 2 | 1 << 5, ["off"]),
        (CONTROL, 5 << 2, []),
        (CONTROL, 3 << 2 | 1 << 5, []),
        (STATUS, 5 << 2 | 1 << 5, []),
        (RESET, 1, ["reset"]),
        (RESET, 2, []),
    ],
)
def test_writes(chip, log, offset, value, expected):
    chip.write(offset, value, 1)
    assert log == expected
    assert chip.read(offset, 1) == 0


def test_a_reset_changes_nothing(chip, log):
    chip.reset()
    assert log == []


def test_another_devices_state_is_refused():
    with pytest.raises(SnapshotError) as error:
        SleepControl(on_shutdown=print, on_reset=print).load({"device": "toaster", "version": 1})
    assert str(error.value) == "the saved state is of device 'toaster', not 'sleep-control'"
