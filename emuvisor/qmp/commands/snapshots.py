"""Snapshots as jobs: parts of "Migration" and "Background jobs".

A job is carried out before its command returns, and is concluded then; it stays until it is dismissed.
"""

from collections.abc import Callable
from typing import Any

from emuvisor.errors import EmuvisorError
from emuvisor.qmp.errors import ErrorClass, QmpError
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.registry import Registry

__all__ = ["REGISTRY"]

REGISTRY = Registry()
MAX_JOBS = 64


def _run(monitor: Monitor, kind: str, identifier: str, action: Callable[[], object]) -> dict[str, Any]:
    if identifier in monitor.jobs:
        raise QmpError(f"Job ID '{identifier}' already in use")
    if len(monitor.jobs) >= MAX_JOBS:
        raise QmpError(f"{MAX_JOBS} jobs wait to be dismissed")
    for status in ("created", "running"):
        monitor.publish("JOB_STATUS_CHANGE", {"id": identifier, "status": status})
    job: dict[str, Any] = {"id": identifier, "type": kind, "status": "concluded"}
    job |= {"current-progress": 1, "total-progress": 1}
    try:
        action()
    except EmuvisorError as error:
        job |= {"error": str(error), "current-progress": 0}
    monitor.jobs[identifier] = job
    for status in ("aborting",) if "error" in job else ("waiting", "pending"):
        monitor.publish("JOB_STATUS_CHANGE", {"id": identifier, "status": status})
    monitor.publish("JOB_STATUS_CHANGE", {"id": identifier, "status": "concluded"})
    return {}


@REGISTRY.command("snapshot-save", vmstate=str, devices=list)
def snapshot_save(monitor: Monitor, *, job_id: str, tag: str) -> dict[str, Any]:
    """Keep the whole guest as `tag`, with all its disks."""
    return _run(monitor, "snapshot-save", job_id, lambda: monitor.target.take_snapshot(tag))


@REGISTRY.command("snapshot-load", vmstate=str, devices=list)
def snapshot_load(monitor: Monitor, *, job_id: str, tag: str) -> dict[str, Any]:
    """Be again what it was at `tag`."""
    return _run(monitor, "snapshot-load", job_id, lambda: monitor.target.go_back(tag))


@REGISTRY.command("snapshot-delete", devices=list)
def snapshot_delete(monitor: Monitor, *, job_id: str, tag: str) -> dict[str, Any]:
    """Forget `tag`."""
    return _run(monitor, "snapshot-delete", job_id, lambda: monitor.target.delete_snapshot(tag))


@REGISTRY.command("query-jobs")
def query_jobs(monitor: Monitor) -> list[dict[str, Any]]:
    """Those that nobody dismissed yet."""
    return list(monitor.jobs.values())


@REGISTRY.command("job-dismiss")
def job_dismiss(monitor: Monitor, *, id: str) -> dict[str, Any]:
    """Forget a job that is concluded."""
    if monitor.jobs.pop(id, None) is None:
        raise QmpError("Job not found", ErrorClass.DEVICE_NOT_ACTIVE)
    monitor.publish("JOB_STATUS_CHANGE", {"id": id, "status": "null"})
    return {}
