"""What happens to the guest, as QMP's events say it."""

from emuvisor.host import Event, Guest, GuestState
from emuvisor.machine.outcome import Ending
from emuvisor.qmp.disks import disks
from emuvisor.qmp.memory import actual_memory
from emuvisor.qmp.monitor import Monitor

__all__ = ["GuestEvents", "reset_event"]

ON = (GuestState.RUNNING, GuestState.PAUSED)


def reset_event(monitor: Monitor, *, by_guest: bool) -> None:
    """Tell the clients of a reset."""
    reason = "guest-reset" if by_guest else "host-qmp-system-reset"
    monitor.publish("RESET", {"guest": by_guest, "reason": reason})


class GuestEvents:
    """Hears what the host says of the monitor's guest (`heard`), and looks from time to time (`poll`) for what it does
    not say: the guest's own resets, and its balloon."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._seen: Guest | None = None
        self._resets = 0
        self._memory: int | None = None

    def heard(self, event: Event) -> None:
        """A listener to the host's events: under the host's lock, in any thread."""
        monitor = self._monitor
        if event.guest != monitor.target.name:
            return
        guest = monitor.target.host.guests.get(event.guest)
        if event.new is GuestState.RUNNING:
            monitor.ready.set()
            if event.old is not GuestState.RUNNING:
                monitor.publish("RESUME", {})
            elif event.reason == "reset" and not monitor.resetting:
                reset_event(monitor, by_guest=False)
        elif event.old in ON and event.new is not event.old:
            if event.new is GuestState.PAUSED:
                if guest is not None and guest.suspended:
                    self._disk_full(guest, event.reason)
            elif event.new is GuestState.CRASHED:
                self._crashed(guest)
            elif event.new is not GuestState.MIGRATING:
                self._switched_off(guest)
            monitor.publish("STOP", {})

    def _disk_full(self, guest: Guest, reason: str) -> None:
        """A device paused the guest, which it does when the host has no room for what it writes."""
        for disk in disks(guest):
            if disk.image is not None and f"disk {disk.image.name}:" in reason:
                data = {"device": disk.device, "operation": "write", "action": "stop", "nospace": True}
                self._monitor.publish("BLOCK_IO_ERROR", data | {"reason": reason, "qom-path": disk.path})

    def _crashed(self, guest: Guest | None) -> None:
        ending = None if guest is None or guest.outcome is None else guest.outcome.ending
        if ending is Ending.PANIC:
            self._monitor.publish("GUEST_PANICKED", {"action": "pause"})
        elif ending is Ending.SHUTDOWN:  # a triple fault resets a PC; one that is not to reboot goes off
            self._monitor.publish("SHUTDOWN", {"guest": True, "reason": "guest-reset"})

    def _switched_off(self, guest: Guest | None) -> None:
        by_guest = guest is not None and guest.outcome is not None
        reason = "host-qmp-quit" if self._monitor.quits else "host-signal"
        self._monitor.publish(
            "SHUTDOWN", {"guest": by_guest, "reason": "guest-shutdown" if by_guest else reason}
        )

    def forget(self) -> None:
        """The next call of `poll` only looks: nobody has been there to be told."""
        self._seen = None

    def poll(self) -> None:
        """Tell of what has changed since the last call; the first one for a guest only looks."""
        monitor = self._monitor
        guest = monitor.target.host.guests.get(monitor.target.name)
        if guest is None or guest.loading:
            return
        resets = guest.machine.own_resets
        memory = None if guest.balloon_device is None else actual_memory(guest)
        if guest is self._seen:
            if resets > self._resets:
                reset_event(monitor, by_guest=True)
            if memory != self._memory:
                monitor.publish("BALLOON_CHANGE", {"actual": memory})
        self._seen, self._resets, self._memory = guest, resets, memory
