"""The human monitor (HMP): lines that people type, and texts that they read."""

import shlex
from collections.abc import Callable
from typing import Any

from emuvisor.errors import EmuvisorError
from emuvisor.qmp.errors import QmpError
from emuvisor.qmp.human.actions import ACTIONS
from emuvisor.qmp.human.examine import EXAMINE
from emuvisor.qmp.human.info import INFO
from emuvisor.qmp.human.line import Line
from emuvisor.qmp.monitor import Monitor, Then

__all__ = ["carry_out"]

MAX_LINE = 4096
ALIASES = {"c": "cont", "q": "quit", "?": "help"}


def carry_out(monitor: Monitor, text: str, processor: int = 0) -> str | Then:
    """What a line prints. `processor` is the one whose registers and addresses are meant."""
    if len(text) > MAX_LINE:
        return f"a line has at most {MAX_LINE} characters"
    try:
        words = shlex.split(text)
    except ValueError as error:
        return f"{text}: {error}"
    if not words:
        return ""
    name, _, format = words[0].partition("/")
    name = ALIASES.get(name, name)
    line = Line(words[1:], format, processor)
    commands: dict[str, Callable[[Monitor, Line], Any]] = ACTIONS | EXAMINE | {"info": _info, "help": _help}
    command = commands.get(name)
    if command is None:
        return f"unknown command: '{name}'"
    try:
        result: str | Then = command(monitor, line)
    except (QmpError, EmuvisorError) as error:
        return f"Error: {error}"
    return result


def _info(monitor: Monitor, line: Line) -> str:
    """show what there is: info SUBJECT"""
    subject = line.optional()
    if subject is None:
        return _descriptions(INFO, "info ")
    if subject not in INFO:
        raise QmpError(f"there is no info on '{subject}'; 'info' lists what there is")
    return INFO[subject](monitor, line)


def _help(_monitor: Monitor, line: Line) -> str:
    """list the commands: help [NAME]"""
    commands = ACTIONS | EXAMINE | {"info": _info, "help": _help}
    name = line.optional()
    if name is None:
        return _descriptions(commands)
    if name not in commands:
        raise QmpError(f"unknown command: '{name}'")
    return _descriptions({name: commands[name]})


def _descriptions(commands: dict[str, Callable[[Monitor, Line], Any]], before: str = "") -> str:
    return "\n".join(f"{before}{name} -- {commands[name].__doc__}" for name in sorted(commands))
