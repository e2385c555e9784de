"""Power and run state: the parts "VM run state" and "Machines"."""

from typing import Any

from emuvisor.host import GuestState
from emuvisor.machine.outcome import Ending
from emuvisor.qmp.errors import QmpError
from emuvisor.qmp.events import reset_event
from emuvisor.qmp.monitor import Monitor, Then
from emuvisor.qmp.registry import Registry

__all__ = ["REGISTRY", "run_state"]

REGISTRY = Registry()

_RUN_STATES = {
    GuestState.RUNNING: "running",
    GuestState.PAUSED: "paused",
    GuestState.DEFINED: "shutdown",
    GuestState.SAVED: "shutdown",
    GuestState.GONE: "shutdown",
    GuestState.MIGRATING: "finish-migrate",
}


def run_state(monitor: Monitor) -> str:
    """QAPI's RunState of the guest."""
    state = monitor.target.state
    if state is GuestState.PAUSED and monitor.guest.suspended:
        return "io-error"
    if state is GuestState.CRASHED:
        outcome = monitor.guest.outcome
        panicked = outcome is not None and outcome.ending is Ending.PANIC
        return "guest-panicked" if panicked else "internal-error"
    return _RUN_STATES[state]


@REGISTRY.command("query-status")
def query_status(monitor: Monitor) -> dict[str, Any]:
    """Whether it runs, and why not."""
    state = run_state(monitor)
    return {"status": state, "running": state == "running"}


@REGISTRY.command("stop")
def stop(monitor: Monitor) -> dict[str, Any]:
    """Pause; what stands already, stands."""
    if monitor.target.state is GuestState.RUNNING:
        monitor.target.pause()
    return {}


@REGISTRY.command("cont")
def cont(monitor: Monitor) -> dict[str, Any]:
    """Go on, or switch on what is off; what runs already, runs. Raises QmpError for a guest that crashed."""
    match monitor.target.state:
        case GuestState.PAUSED:
            monitor.target.resume()
        case GuestState.DEFINED | GuestState.SAVED:
            monitor.target.start()
        case GuestState.CRASHED:
            raise QmpError("Resetting the Virtual Machine is required")
    return {}


@REGISTRY.command("system_reset")
def system_reset(monitor: Monitor) -> dict[str, Any]:
    """The reset button; a guest that crashed or is off boots anew."""
    if monitor.target.state in (GuestState.DEFINED, GuestState.CRASHED):
        monitor.target.start()
        return {}
    monitor.resetting = True
    try:
        monitor.target.reset()
    finally:
        monitor.resetting = False
    reset_event(monitor, by_guest=False)
    return {}


@REGISTRY.command("system_powerdown")
def system_powerdown(monitor: Monitor) -> dict[str, Any]:
    """Press the power button. Whether somebody in the guest listens is the guest's affair, as right after a reset,
    when its system has not switched ACPI on yet; the event says only that it was pressed."""
    monitor.look(lambda guest: guest.machine.board.press_power_button())
    monitor.publish("POWERDOWN", {})
    return {}


@REGISTRY.command("quit")
def quit(monitor: Monitor) -> Then:
    """Switch it off at once, when the client has its answer."""
    monitor.quits = True
    return Then({}, monitor.target.stop)
