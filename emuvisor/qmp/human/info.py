"""The human monitor's `info`: what there is, for people and for scripts that read what is meant for people."""

import time
from collections.abc import Callable

from emuvisor.cpu.state import CpuState, Segment
from emuvisor.qmp.commands import block, devices, identity, migration, power
from emuvisor.qmp.human.examine import processor
from emuvisor.qmp.human.line import Line
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.version import VERSION_TEXT
from emuvisor.units import MIB, format_size

__all__ = ["INFO"]

_GENERAL = (
    ("rax", "rbx", "rcx", "rdx"),
    ("rsi", "rdi", "rbp", "rsp"),
    ("r8", "r9", "r10", "r11"),
    ("r12", "r13", "r14", "r15"),
)
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")


def _status(monitor: Monitor, line: Line) -> str:
    """whether it runs"""
    line.end()
    state = power.run_state(monitor)
    return f"VM status: {'running' if state == 'running' else f'paused ({state})'}".replace(" (paused)", "")


def _version(_monitor: Monitor, line: Line) -> str:
    """the version"""
    line.end()
    return VERSION_TEXT


def _name(monitor: Monitor, line: Line) -> str:
    """the guest's name"""
    line.end()
    return monitor.target.name


def _uuid(monitor: Monitor, line: Line) -> str:
    """the guest's UUID"""
    line.end()
    return str(identity.query_uuid(monitor)["UUID"])


def _kvm(_monitor: Monitor, line: Line) -> str:
    """whether KVM is used"""
    line.end()
    return "kvm support: not compiled"


def _cpus(monitor: Monitor, line: Line) -> str:
    """the processors"""
    line.end()
    return "\n".join(
        f"{'*' if cpu['cpu-index'] == line.processor else ' '} CPU #{cpu['cpu-index']}: thread_id={cpu['thread-id']}"
        for cpu in identity.query_cpus_fast(monitor)
    )


def _registers(monitor: Monitor, line: Line) -> str:
    """the processor's registers: info registers [-a]"""
    every = line.flag("-a")
    line.end()
    numbers = range(monitor.guest.config.vcpus) if every else [processor(monitor.guest, line)]
    states = monitor.look(lambda guest: [guest.machine.vcpus[number].state for number in numbers])
    return "\n\n".join(
        f"CPU#{number}\n{_registers_of(state)}" for number, state in zip(numbers, states, strict=True)
    )


def _registers_of(state: CpuState) -> str:
    lines = [" ".join(f"{name.upper():3}={getattr(state, name):016x}" for name in row) for row in _GENERAL]
    lines.append(
        f"RIP={state.rip:016x} RFL={state.rflags:08x} CPL={state.cpl} A20={int(state.a20)} HLT={int(state.halted)}"
    )
    for name in _SEGMENTS:
        segment: Segment = getattr(state, name)
        lines.append(
            f"{name.upper()[:3]:3}={segment.selector:04x} {segment.base:016x} {segment.limit:08x} {segment.flags:08x}"
        )
    for name in ("gdtr", "idtr"):
        table = getattr(state, name)
        lines.append(f"{name.upper()[:3]}=     {table.base:016x} {table.limit:08x}")
    lines.append(f"CR0={state.cr0:08x} CR2={state.cr2:016x} CR3={state.cr3:016x} CR4={state.cr4:08x}")
    lines.append(f"EFER={state.efer:016x}")
    return "\n".join(lines)


def _block(monitor: Monitor, line: Line) -> str:
    """the drives"""
    line.end()
    parts = []
    for drive in block.query_block(monitor):
        inserted = drive.get("inserted")
        if inserted is None:
            parts.append(f"{drive['device']}: [not inserted]")
            continue
        rights = ", read-only" if inserted["ro"] else ""
        parts.append(f"{drive['device']}: {inserted['file']} ({inserted['drv']}{rights})")
        parts.append(f"    Attached to:      {drive['qdev']}")
        if drive["removable"]:
            parts.append("    Removable device: not locked, tray closed")
    return "\n".join(parts)


def _blockstats(monitor: Monitor, line: Line) -> str:
    """what the drives did"""
    line.end()
    shown = (
        *("rd_bytes", "wr_bytes", "rd_operations", "wr_operations", "flush_operations"),
        *("wr_total_time_ns", "rd_total_time_ns", "flush_total_time_ns"),
    )
    return "\n".join(
        f"{drive['device']}: " + " ".join(f"{key}={drive['stats'][key]}" for key in shown)
        for drive in block.query_blockstats(monitor)
    )


def _network(monitor: Monitor, line: Line) -> str:
    """the network cards"""
    line.end()
    guest = monitor.guest
    return "\n".join(
        f"net{number}: index=0,type=nic,model=virtio-net,macaddr={port.mac.hex(':')}\n"
        f" \\ {nic.network}: index=0,type=hub"
        for number, (port, nic) in enumerate(zip(guest.nics, guest.config.nics, strict=True))
    )


def _balloon(monitor: Monitor, line: Line) -> str:
    """how much memory the balloon has left to it"""
    line.end()
    return f"balloon: actual={devices.query_balloon(monitor)['actual'] // MIB}"


def _snapshots(monitor: Monitor, line: Line) -> str:
    """the snapshots"""
    line.end()
    snapshots = monitor.target.snapshots()
    if not snapshots:
        return "There is no snapshot available."
    lines = [f"{'ID':8}{'TAG':24}{'VM SIZE':>12} {'DATE':19}"]
    for number, snapshot in enumerate(snapshots, 1):
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.created))
        lines.append(f"{number:<8}{snapshot.name:24}{format_size(snapshot.size):>12} {date}")
    return "\n".join(lines)


def _migrate(monitor: Monitor, line: Line) -> str:
    """how far a migration is"""
    line.end()
    moving = migration.query_migrate(monitor)
    if not moving:
        return ""
    lines = [f"Migration status: {moving['status']}"]
    if "error-desc" in moving:
        lines[0] += f" ({moving['error-desc']})"
    if "downtime" in moving:
        lines.append(f"downtime: {moving['downtime']} ms")
    for key, value in moving.get("ram", {}).items():
        lines.append(f"{key.replace('-', ' ')}: {value}")
    return "\n".join(lines)


def _memory(monitor: Monitor, line: Line) -> str:
    """what it booted with, and what was plugged"""
    line.end()
    return "\n".join(
        f"{key.replace('-', ' ')}: {value}"
        for key, value in identity.query_memory_size_summary(monitor).items()
    )


INFO: dict[str, Callable[[Monitor, Line], str]] = {
    "balloon": _balloon,
    "block": _block,
    "blockstats": _blockstats,
    "cpus": _cpus,
    "kvm": _kvm,
    "memory_size_summary": _memory,
    "migrate": _migrate,
    "name": _name,
    "network": _network,
    "registers": _registers,
    "snapshots": _snapshots,
    "status": _status,
    "uuid": _uuid,
    "version": _version,
}
