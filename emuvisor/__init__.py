"""emuvisor: a hypervisor in Python that needs no hardware virtualization.

    from emuvisor import GuestConfig, Host, KernelConfig

    with Host(memory=1 << 30) as host:
        guest = host.create(GuestConfig(name="debian", kernel=KernelConfig(path, initrd, append)))
        guest.start()
        guest.expect("login:", timeout_s=60)

host       Host and Guest: many guests in one process
machine    Machine and GuestConfig: one guest
cpu        the processor; the only package that knows Unicorn
memory     host frames and guest memory
devices    one chip a file
bus        ports, memory-mapped I/O, interrupt lines, clocks
images     ready-made guests; firmware: our own ones
cli        the command `emuvisor`
errors     every error; units: sizes and times

The names below are loaded when they are first used, so that `import emuvisor` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emuvisor.cpu.pcpu import Pcpu
    from emuvisor.cpu.state import CpuState
    from emuvisor.errors import (
        AdmissionError,
        BusConflict,
        ConfigError,
        EmuvisorError,
        EngineError,
        GuestAddressError,
        HostError,
        ImageError,
        MigrationError,
        OutOfFrames,
        PageLost,
        SnapshotError,
        StateError,
        UsageError,
    )
    from emuvisor.host import Event, Guest, GuestState, GuestStatistics, Host
    from emuvisor.machine.config import (
        DiskConfig,
        FlatConfig,
        GuestConfig,
        KernelConfig,
        NicConfig,
        ShareConfig,
    )
    from emuvisor.machine.config_file import load_config
    from emuvisor.machine.console import Console
    from emuvisor.machine.machine import Machine
    from emuvisor.machine.outcome import Ending, Outcome
    from emuvisor.memory import FramePool

__all__ = [
    "AdmissionError",
    "BusConflict",
    "ConfigError",
    "Console",
    "CpuState",
    "DiskConfig",
    "EmuvisorError",
    "Ending",
    "EngineError",
    "Event",
    "FlatConfig",
    "FramePool",
    "Guest",
    "GuestAddressError",
    "GuestConfig",
    "GuestState",
    "GuestStatistics",
    "Host",
    "HostError",
    "ImageError",
    "KernelConfig",
    "Machine",
    "MigrationError",
    "NicConfig",
    "OutOfFrames",
    "Outcome",
    "PageLost",
    "Pcpu",
    "ShareConfig",
    "SnapshotError",
    "StateError",
    "UsageError",
    "load_config",
]

_HOMES = {
    "emuvisor.cpu.pcpu": ("Pcpu",),
    "emuvisor.cpu.state": ("CpuState",),
    "emuvisor.errors": (
        "AdmissionError",
        "BusConflict",
        "ConfigError",
        "EmuvisorError",
        "EngineError",
        "GuestAddressError",
        "HostError",
        "ImageError",
        "MigrationError",
        "OutOfFrames",
        "PageLost",
        "SnapshotError",
        "StateError",
        "UsageError",
    ),
    "emuvisor.host": ("Event", "Guest", "GuestState", "GuestStatistics", "Host"),
    "emuvisor.machine.config": (
        "DiskConfig",
        "FlatConfig",
        "GuestConfig",
        "KernelConfig",
        "NicConfig",
        "ShareConfig",
    ),
    "emuvisor.machine.config_file": ("load_config",),
    "emuvisor.machine.console": ("Console",),
    "emuvisor.machine.machine": ("Machine",),
    "emuvisor.machine.outcome": ("Ending", "Outcome"),
    "emuvisor.memory": ("FramePool",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its module at its first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'emuvisor' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
