"""Disks: the part "Block devices"."""

from contextlib import suppress
from typing import Any

from emuvisor.devices.limits import DiskLimits, Rate
from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.devices.storage.formats import format_of
from emuvisor.qmp.disks import Disk, disks
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.registry import Registry

__all__ = ["REGISTRY"]

REGISTRY = Registry()


@REGISTRY.command("query-block")
def query_block(monitor: Monitor) -> list[dict[str, Any]]:
    """The drives, and what is in them."""
    guest = monitor.guest
    return [_block(disk, guest.suspended and _is_full(disk, guest.reason)) for disk in disks(guest)]


def _is_full(disk: Disk, reason: str) -> bool:
    return disk.image is not None and f"disk {disk.image.name}:" in reason


def _block(disk: Disk, full: bool) -> dict[str, Any]:
    block: dict[str, Any] = {
        "device": disk.device,
        "qdev": disk.path,
        "type": "unknown",
        "removable": disk.removable,
        "locked": False,
    }
    if disk.removable:
        block["tray_open"] = False
    else:
        block["io-status"] = "nospace" if full else "ok"
    if disk.image is not None:
        block["inserted"] = _inserted(disk, disk.image)
    return block


def _inserted(disk: Disk, image: BlockDevice) -> dict[str, Any]:
    path = str(disk.config.path)
    format = format_of(path, disk.config.format)
    limits = disk.drive.meter.throttle.limits
    assert isinstance(limits, DiskLimits)
    described: dict[str, Any] = {
        "filename": path,
        "format": format,
        "virtual-size": image.sectors * SECTOR_SIZE,
    }
    with suppress(OSError):
        described["actual-size"] = image.allocated
    return {
        "file": path,
        "node-name": disk.device,
        "ro": image.read_only,
        "drv": format,
        "backing_file_depth": 0,
        "encrypted": False,
        "detect_zeroes": "off",
        "bps": _rate(limits.total_bytes),
        "bps_rd": _rate(limits.read_bytes),
        "bps_wr": _rate(limits.write_bytes),
        "iops": _rate(limits.total_iops),
        "iops_rd": _rate(limits.read_iops),
        "iops_wr": _rate(limits.write_iops),
        "write_threshold": 0,
        "cache": {"writeback": True, "direct": False, "no-flush": False},
        "image": described,
    }


def _rate(rate: Rate | None) -> int:
    return 0 if rate is None else rate.per_second


@REGISTRY.command("query-blockstats")
def query_blockstats(monitor: Monitor, *, query_nodes: bool = False) -> list[dict[str, Any]]:
    """What the drives did. With `query-nodes` by the names of nodes, which here are the drives'."""
    found = []
    for disk in disks(monitor.guest):
        name = {"node-name": disk.device} if query_nodes else {"device": disk.device, "qdev": disk.path}
        found.append(name | {"stats": _statistics(disk)})
    return found


def _statistics(disk: Disk) -> dict[str, Any]:
    meter = disk.drive.meter
    done = meter.statistics
    return {
        "rd_bytes": done.read_bytes,
        "wr_bytes": done.written_bytes,
        "unmap_bytes": 0,
        "rd_operations": done.reads,
        "wr_operations": done.writes,
        "flush_operations": done.flushes,
        "unmap_operations": done.discards,
        "rd_total_time_ns": meter.read.summary().total_ns,
        "wr_total_time_ns": meter.write.summary().total_ns,
        "flush_total_time_ns": meter.flush.summary().total_ns,
        "unmap_total_time_ns": 0,
        "wr_highest_offset": 0,
        "rd_merged": 0,
        "wr_merged": 0,
        "unmap_merged": 0,
        "failed_rd_operations": 0,
        "failed_wr_operations": done.errors,
        "failed_flush_operations": 0,
        "failed_unmap_operations": 0,
        "invalid_rd_operations": 0,
        "invalid_wr_operations": 0,
        "invalid_flush_operations": 0,
        "invalid_unmap_operations": 0,
        "account_invalid": False,
        "account_failed": True,
        "timed_stats": [],
    }
