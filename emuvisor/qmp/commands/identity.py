"""Who and what the guest is: the parts "QMP monitor control", "Machines" and "Miscellanea"."""

import os
import uuid
from typing import Any, get_args

from emuvisor.machine.choices import BoardName
from emuvisor.machine.config import MAX_VCPUS
from emuvisor.machine.tables.smbios import UUID
from emuvisor.qmp.errors import ErrorClass, QmpError
from emuvisor.qmp.memory import plugged_memory
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.registry import Registry
from emuvisor.qmp.version import VERSION

__all__ = ["REGISTRY"]

REGISTRY = Registry()
ARCHITECTURE = "x86_64"


@REGISTRY.command("query-version")
def query_version(_monitor: Monitor) -> dict[str, Any]:
    """Which QEMU the commands follow, and what this is."""
    return VERSION


@REGISTRY.command("query-name")
def query_name(monitor: Monitor) -> dict[str, Any]:
    """The guest's name."""
    return {"name": monitor.target.name}


@REGISTRY.command("query-uuid")
def query_uuid(_monitor: Monitor) -> dict[str, Any]:
    """As the guest finds it by SMBIOS."""
    return {"UUID": str(uuid.UUID(bytes_le=UUID))}


@REGISTRY.command("query-vm-generation-id")
def query_vm_generation_id(monitor: Monitor) -> dict[str, Any]:
    """As the guest finds it by ACPI. Raises QmpError where it has none."""
    device = monitor.guest.machine.board.generation_id
    if device is None:
        raise QmpError("VM Generation ID device not found", ErrorClass.DEVICE_NOT_FOUND)
    return {"guid": str(uuid.UUID(bytes_le=device.identifier))}


@REGISTRY.command("query-kvm")
def query_kvm(_monitor: Monitor) -> dict[str, Any]:
    """It is not needed."""
    return {"enabled": False, "present": False}


@REGISTRY.command("query-target")
def query_target(_monitor: Monitor) -> dict[str, Any]:
    """The architecture."""
    return {"arch": ARCHITECTURE}


@REGISTRY.command("query-machines")
def query_machines(monitor: Monitor) -> list[dict[str, Any]]:
    """The boards."""
    return [
        {
            "name": board,
            "is-default": board == monitor.guest.config.board,
            "cpu-max": 1 if board == "isa" else MAX_VCPUS,
            "hotpluggable-cpus": False,
            "numa-mem-supported": False,
            "deprecated": False,
        }
        for board in get_args(BoardName)
    ]


@REGISTRY.command("query-current-machine")
def query_current_machine(_monitor: Monitor) -> dict[str, Any]:
    """There is no suspend to RAM."""
    return {"wakeup-suspend-support": False}


@REGISTRY.command("query-cpus-fast")
def query_cpus_fast(monitor: Monitor) -> list[dict[str, Any]]:
    """The vCPUs. They have no threads of their own: the number is that of the process."""
    return [
        {
            "cpu-index": number,
            "qom-path": f"/machine/unattached/device[{number}]",
            "thread-id": os.getpid(),
            "props": {"socket-id": 0, "core-id": number, "thread-id": 0},
            "target": ARCHITECTURE,
        }
        for number in range(monitor.guest.config.vcpus)
    ]


@REGISTRY.command("query-memory-size-summary")
def query_memory_size_summary(monitor: Monitor) -> dict[str, Any]:
    """What it booted with, and what was plugged."""
    guest = monitor.guest
    return {"base-memory": guest.config.memory, "plugged-memory": plugged_memory(guest)}
