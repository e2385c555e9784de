"""The human monitor's commands that do something. A command's description is what `help` shows."""

from collections.abc import Callable
from typing import Any

from emuvisor.devices.keymap import key_called
from emuvisor.qmp.commands import devices, inputs, migration, power
from emuvisor.qmp.human.line import Line
from emuvisor.qmp.monitor import Monitor, Then
from emuvisor.units import MIB, parse_size

__all__ = ["ACTIONS"]


def _plain(command: Callable[[Monitor], Any], description: str) -> Callable[[Monitor, Line], str]:
    """A QMP command without arguments and answer."""

    def act(monitor: Monitor, line: Line) -> str:
        line.end()
        command(monitor)
        return ""

    act.__doc__ = description
    return act


def _quit(monitor: Monitor, line: Line) -> Then:
    """switch the guest off at once: quit"""
    line.end()
    return Then("", power.quit(monitor).action)


def _sendkey(monitor: Monitor, line: Line) -> str:
    """press keys together: sendkey ctrl-alt-delete"""
    keys = line.word("a key")
    line.optional()  # how long they are held, which makes no difference here
    line.end()
    inputs.press_together(monitor.guest, [key_called(key) for key in keys.split("-")])
    return ""


def _screendump(monitor: Monitor, line: Line) -> str:
    """write the screen to a file: screendump FILE [-f png]"""
    filename = line.word("a file")
    format = "ppm"
    if line.flag("-f"):
        format = line.word("a format")
    line.end()
    devices.screendump(monitor, filename=filename, format=format)
    return ""


def _balloon(monitor: Monitor, line: Line) -> str:
    """ask the guest to get along with so much memory: balloon MEBIBYTES"""
    size = line.number("a size") * MIB
    line.end()
    devices.balloon(monitor, value=size)
    return ""


def _savevm(monitor: Monitor, line: Line) -> str:
    """take a snapshot: savevm NAME"""
    name = line.word("a name")
    line.end()
    monitor.target.take_snapshot(name)
    return ""


def _loadvm(monitor: Monitor, line: Line) -> str:
    """go back to a snapshot: loadvm NAME"""
    name = line.word("a name")
    line.end()
    monitor.target.go_back(name)
    return ""


def _delvm(monitor: Monitor, line: Line) -> str:
    """delete a snapshot: delvm NAME"""
    name = line.word("a name")
    line.end()
    monitor.target.delete_snapshot(name)
    return ""


def _migrate(monitor: Monitor, line: Line) -> str:
    """begin to move the guest: migrate [-d] tcp:HOST:PORT"""
    detached = line.flag("-d")
    uri = line.word("an address")
    line.end()
    migration.migrate(monitor, uri=uri)
    if not detached and monitor.moving is not None:
        monitor.moving.join()
        return monitor.migration_error
    return ""


def _migrate_set_parameter(monitor: Monitor, line: Line) -> str:
    """for the next migration: migrate_set_parameter max-bandwidth|downtime-limit|tls-creds|tls-hostname VALUE"""
    key, text = line.word("a parameter"), line.word("a value")
    value = text if key in (migration.CREDENTIALS, migration.HOSTNAME) else parse_size(text)
    line.end()
    migration.REGISTRY.run(monitor, "migrate-set-parameters", {key: value})
    return ""


ACTIONS: dict[str, Callable[[Monitor, Line], Any]] = {
    "stop": _plain(power.stop, "pause the guest: stop"),
    "cont": _plain(power.cont, "let it go on: cont"),
    "system_reset": _plain(power.system_reset, "press the reset button: system_reset"),
    "system_powerdown": _plain(power.system_powerdown, "press the power button: system_powerdown"),
    "migrate_cancel": _plain(migration.migrate_cancel, "end a migration: migrate_cancel"),
    "quit": _quit,
    "sendkey": _sendkey,
    "screendump": _screendump,
    "balloon": _balloon,
    "savevm": _savevm,
    "loadvm": _loadvm,
    "delvm": _delvm,
    "migrate": _migrate,
    "migrate_set_parameter": _migrate_set_parameter,
}
