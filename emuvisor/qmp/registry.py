"""Commands by name. A command is a function; its keyword parameters are the command's arguments.

`def balloon(monitor, *, value: int)` takes {"value": 5}; what has a default may be left out; underscores are written
as hyphens. The texts of the errors are QEMU's, by which scripts know them.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

from emuvisor.qmp.errors import ErrorClass, QmpError
from emuvisor.qmp.monitor import Monitor

__all__ = ["Command", "Registry"]

_F = TypeVar("_F", bound=Callable[..., Any])

_KINDS: dict[type, str] = {
    int: "integer",
    float: "number",
    bool: "boolean",
    str: "string",
    list: "array",
    dict: "object",
}
"""The types of arguments, with QAPI's names for them."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument: what it is called in Python, what it is to be, and whether it must be there. One without a name is
    taken, and makes no difference here."""

    name: str
    kind: type
    needed: bool

    def check(self, key: str, value: object) -> object:
        """The value, which is of this kind. Raises QmpError."""
        fits = isinstance(value, self.kind) and (self.kind is bool or not isinstance(value, bool))
        if self.kind is float:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits:
            raise QmpError(f"Invalid parameter type for '{key}', expected: {_KINDS[self.kind]}")
        return value


def _kind_of(annotation: Any) -> type:
    """`int` for `int | None`, `list` for `list[Any]`."""
    choices = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    (kind,) = {get_origin(choice) or choice for choice in choices} - {NoneType}
    assert kind in _KINDS, annotation
    return kind  # type: ignore[no-any-return]


class Command:
    """A function as a command."""

    def __init__(self, function: Callable[..., Any], ignored: Mapping[str, type]) -> None:
        self._function = function
        self._parameters = {
            name.replace("_", "-"): Parameter("", kind, False) for name, kind in ignored.items()
        }
        for name, given in inspect.signature(function).parameters.items():
            if given.kind is inspect.Parameter.KEYWORD_ONLY:
                kind = _kind_of(given.annotation)
                needed = given.default is inspect.Parameter.empty
                self._parameters[name.replace("_", "-")] = Parameter(name, kind, needed)

    def __call__(self, monitor: Monitor, arguments: Mapping[str, Any]) -> Any:
        """Carry it out. Raises QmpError for arguments that do not fit, and what the function raises."""
        found = {}
        for key, value in arguments.items():
            if key not in self._parameters:
                raise QmpError(f"Parameter '{key}' is unexpected")
            parameter = self._parameters[key]
            checked = parameter.check(key, value)
            if parameter.name:
                found[parameter.name] = checked
        for key, parameter in self._parameters.items():
            if parameter.needed and parameter.name not in found:
                raise QmpError(f"Parameter '{key}' is missing")
        return self._function(monitor, **found)


class Registry(dict[str, Command]):
    """The commands that there are."""

    def command(self, name: str, **ignored: type) -> Callable[[_F], _F]:
        """Decorates the function that is command `name`; `ignored` are arguments of QEMU's that say nothing here."""

        def add(function: _F) -> _F:
            self[name] = Command(function, ignored)
            return function

        return add

    def run(self, monitor: Monitor, name: str, arguments: Mapping[str, Any]) -> Any:
        """Carry command `name` out. Raises QmpError, and what the command raises."""
        command = self.get(name)
        if command is None:
            raise QmpError(f"The command {name} has not been found", ErrorClass.COMMAND_NOT_FOUND)
        return command(monitor, arguments)
