"""`human-monitor-command`: what people type into QEMU's monitor."""

from typing import Any

from emuvisor.qmp.human import carry_out
from emuvisor.qmp.monitor import Monitor, Then
from emuvisor.qmp.registry import Registry

__all__ = ["REGISTRY"]

REGISTRY = Registry()


@REGISTRY.command("human-monitor-command")
def human_monitor_command(monitor: Monitor, *, command_line: str, cpu_index: int = 0) -> Any:
    """The text that it prints, also for what cannot be done."""
    result = carry_out(monitor, command_line, cpu_index)
    if isinstance(result, Then):
        return Then(_lines(result.answer), result.action)
    return _lines(result)


def _lines(text: str) -> str:
    """With the line ends of a terminal, as QEMU prints it."""
    return "".join(f"{line}\r\n" for line in text.splitlines())
