"""Moving the guest to another host: parts of "Migration". The other side is emuvisor, too; QEMU's own stream is not
understood."""

import threading
from typing import TYPE_CHECKING, Any

from emuvisor.errors import EmuvisorError
from emuvisor.migration.options import Phase
from emuvisor.qmp.errors import QmpError
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.registry import Registry
from emuvisor.units import PAGE_SIZE

if TYPE_CHECKING:
    from emuvisor.manager.records import MigrationStatus

__all__ = ["REGISTRY"]

REGISTRY = Registry()

BANDWIDTH, DOWNTIME = "max-bandwidth", "downtime-limit"
CREDENTIALS, HOSTNAME = "tls-creds", "tls-hostname"
DEFAULTS = {BANDWIDTH: 0, DOWNTIME: 300}
"""Bytes per second, 0 is no limit; milliseconds."""
CAPABILITIES = ("events", "postcopy-ram")
_STATUS = {
    Phase.COPYING: "active",
    Phase.SWITCHING: "device",
    Phase.IN_DOUBT: "device",
    Phase.FOLLOWING: "postcopy-active",
    Phase.MOVED: "completed",
    Phase.STAYED: "failed",
    Phase.LOST: "failed",
}
"""QAPI's MigrationStatus by where it is."""


def _status(monitor: Monitor, moving: "MigrationStatus") -> str:
    if moving.phase == Phase.STAYED and monitor.cancelled:
        return "cancelled"
    return _STATUS[Phase(moving.phase)]


def _last(monitor: Monitor) -> "MigrationStatus | None":
    """What the target says of the last `migrate`; None while it says nothing of it yet, or when it did not begin."""
    said = monitor.target.migration()
    return None if monitor.moving is not None and said == monitor.moved_before else said


def _end(monitor: Monitor) -> str:
    """The status of one that did not begin."""
    return "cancelled" if monitor.cancelled else "failed"


def _move(monitor: Monitor, uri: str, options: dict[str, Any]) -> str:
    """Carry a `migrate` out; returns the status in which it ended."""
    try:
        monitor.target.migrate(uri, options)
    except EmuvisorError as error:
        monitor.migration_error = str(error)
    last = _last(monitor)
    return _end(monitor) if last is None else _status(monitor, last)


def _tell(monitor: Monitor, status: str) -> None:
    if "events" in monitor.capabilities:
        monitor.publish("MIGRATION", {"status": status})


@REGISTRY.command("migrate", detach=bool)
def migrate(monitor: Monitor, *, uri: str, resume: bool = False) -> dict[str, Any]:
    """Begin to move the guest to `uri`, "tcp:host:port" or "unix:path"; `query-migrate` says how far it is."""
    if resume:
        raise QmpError("A migration that was interrupted cannot be resumed")
    if not uri.startswith(("tcp:", "unix:")):
        raise QmpError("Parameter 'uri' expects a valid migration protocol")
    if monitor.migrates:
        raise QmpError("There's a migration process in progress")
    monitor.guest  # noqa: B018 - one that is off has nothing to move, and says so now
    monitor.migration_error, monitor.cancelled = "", False
    set_ = DEFAULTS | monitor.migration_parameters
    options: dict[str, Any] = {"downtime_ms": set_[DOWNTIME]}
    if set_[BANDWIDTH]:
        options["bandwidth"] = set_[BANDWIDTH]
    if "postcopy-ram" in monitor.capabilities:
        options["mode"] = "hybrid"
    options |= _credentials(monitor)

    def move() -> None:
        _tell(monitor, "setup")
        try:
            status = _move(monitor, uri, options)
        finally:
            monitor.migrates = False  # before it is told: who hears of it may begin the next one
        _tell(monitor, status)

    monitor.migrates, monitor.moved_before = True, monitor.target.migration()
    monitor.moving = threading.Thread(target=move, name=f"migration of {monitor.target.name}", daemon=True)
    monitor.moving.start()
    return {}


def _credentials(monitor: Monitor) -> dict[str, str]:
    """What is shown to the other side, and what that has to be called. Raises QmpError."""
    name, peer = (monitor.migration_parameters.get(key) for key in (CREDENTIALS, HOSTNAME))
    if name is None:
        return {}
    found = monitor.credentials.get(str(name))
    if found is None:
        raise QmpError(f"No TLS credentials with id '{name}'")
    return found | ({"peer": str(peer)} if peer is not None and "certificate" in found else {})


@REGISTRY.command("migrate_cancel")
def migrate_cancel(monitor: Monitor) -> dict[str, Any]:
    """End a migration that is under way; without one nothing happens."""
    if monitor.migrates:
        monitor.cancelled = True
        monitor.target.cancel_migration()
    return {}


@REGISTRY.command("query-migrate")
def query_migrate(monitor: Monitor) -> dict[str, Any]:
    """How far it is; empty when there was none."""
    moving = _last(monitor)
    if moving is None:
        if monitor.migrates:
            return {"status": "setup"}
        if not monitor.migration_error:
            return {}
        return {"status": _end(monitor), "error-desc": monitor.migration_error}
    found: dict[str, Any] = {"status": _status(monitor, moving)}
    if error := moving.error or monitor.migration_error:
        found["error-desc"] = error
    if moving.downtime_ms is not None:
        found["downtime"] = round(moving.downtime_ms)
    found["ram"] = {
        "total": moving.total * PAGE_SIZE,
        "remaining": moving.remaining * PAGE_SIZE,
        "transferred": moving.bytes_sent,
        "normal": moving.sent,
        "normal-bytes": moving.sent * PAGE_SIZE,
        "duplicate": 0,
        "mbps": moving.bytes_per_s * 8 / 1e6,
        "dirty-sync-count": moving.round,
        "dirty-pages-rate": 0,
        "page-size": PAGE_SIZE,
    }
    return found


@REGISTRY.command("migrate-set-parameters")
def migrate_set_parameters(
    monitor: Monitor,
    *,
    max_bandwidth: int | None = None,
    downtime_limit: int | None = None,
    tls_creds: str | None = None,
    tls_hostname: str | None = None,
) -> dict[str, Any]:
    """For the next migration; an empty text takes one back."""
    for key, value in ((BANDWIDTH, max_bandwidth), (DOWNTIME, downtime_limit)):
        if value is not None:
            if not 0 <= value < 1 << 63:
                raise QmpError(f"Parameter '{key}' expects a value that is not negative")
            monitor.migration_parameters[key] = value
    for key, text in ((CREDENTIALS, tls_creds), (HOSTNAME, tls_hostname)):
        if text:
            monitor.migration_parameters[key] = text
        elif text is not None:
            monitor.migration_parameters.pop(key, None)
    return {}


@REGISTRY.command("query-migrate-parameters")
def query_migrate_parameters(monitor: Monitor) -> dict[str, Any]:
    """As they are set."""
    return DEFAULTS | monitor.migration_parameters


@REGISTRY.command("migrate-set-capabilities")
def migrate_set_capabilities(monitor: Monitor, *, capabilities: list[Any]) -> dict[str, Any]:
    """Switch some on or off; all or none of the list. Raises QmpError for one that there is not."""
    wanted = set(monitor.capabilities)
    for item in capabilities:
        name, state = (item.get("capability"), item.get("state")) if isinstance(item, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(state, bool):
            raise QmpError(
                "Invalid parameter type for 'capabilities', expected: array of capability and state"
            )
        if name not in CAPABILITIES and state:
            raise QmpError(f"Migration capability '{name}' is not available")
        (wanted.add if state else wanted.discard)(name)
    monitor.capabilities = wanted
    return {}


@REGISTRY.command("query-migrate-capabilities")
def query_migrate_capabilities(monitor: Monitor) -> list[dict[str, Any]]:
    """All that there are."""
    return [{"capability": name, "state": name in monitor.capabilities} for name in CAPABILITIES]
