"""Commands and their arguments."""

from typing import Any, cast

import pytest

from emuvisor.qmp.errors import ErrorClass, QmpError
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.registry import Registry

REGISTRY = Registry()
MONITOR = cast("Monitor", None)


@REGISTRY.command("everything", left_out=int)
def everything(
    _monitor: Monitor,
    *,
    a_number: int,
    text: str = "none",
    yes: bool | None = None,
    real: float = 0.5,
    items: list[Any] | None = None,
    thing: dict[str, Any] | None = None,
) -> Any:
    return a_number, text, yes, real, items, thing


def test_what_is_left_out_has_its_default() -> None:
    assert REGISTRY.run(MONITOR, "everything", {"a-number": 1}) == (1, "none", None, 0.5, None, None)
    full = {"a-number": 1, "text": "", "yes": True, "real": 2, "items": [1], "thing": {}, "left-out": 3}
    assert REGISTRY.run(MONITOR, "everything", full) == (1, "", True, 2, [1], {})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Parameter 'a-number' is missing"),
        ({"a_number": 1}, "Parameter 'a_number' is unexpected"),
        ({"a-number": True}, "Invalid parameter type for 'a-number', expected: integer"),
        ({"a-number": 1.5}, "Invalid parameter type for 'a-number', expected: integer"),
        ({"a-number": 1, "text": 1}, "Invalid parameter type for 'text', expected: string"),
        ({"a-number": 1, "yes": 1}, "Invalid parameter type for 'yes', expected: boolean"),
        ({"a-number": 1, "real": True}, "Invalid parameter type for 'real', expected: number"),
        ({"a-number": 1, "items": {}}, "Invalid parameter type for 'items', expected: array"),
        ({"a-number": 1, "thing": []}, "Invalid parameter type for 'thing', expected: object"),
        ({"a-number": 1, "left-out": ""}, "Invalid parameter type for 'left-out', expected: integer"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(QmpError) as error:
        REGISTRY.run(MONITOR, "everything", arguments)
    assert (str(error.value), error.value.error_class) == (text, ErrorClass.GENERIC)


def test_no_such_command() -> None:
    with pytest.raises(QmpError) as error:
        REGISTRY.run(MONITOR, "nothing", {})
    assert str(error.value) == "The command nothing has not been found"
    assert error.value.error_class is ErrorClass.COMMAND_NOT_FOUND
