"""Devices of the user's: classes outside emuvisor that put a chip onto a board.

A device is named as "module:Class", or by an entry point in the group "emuvisor.devices". The class has one obligation:

    class MyDevice:
        @classmethod
        def plug(cls, board: Slots) -> "MyDevice":
            device = cls(board.isa.input(5, "mine"))
            board.ports.attach(0x300, 4, device)
            return device

What goes wrong there stops the guest's creation with the device's name. `plug` returns the device; its board keeps
it. A device that guests shall find by ACPI also has a method `acpi()`, whose AML goes into the DSDT's scope _SB.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

from emuvisor.bus.bus import Bus
from emuvisor.bus.clock import Clock
from emuvisor.devices.pci.pci_bus import PciBus
from emuvisor.errors import ConfigError
from emuvisor.machine.boards.legacy import IsaLines
from emuvisor.memory import GuestMemory

__all__ = ["ENTRY_POINTS", "FIRST_USER_SLOT", "Pluggable", "Slots", "load_device", "plug_devices"]

ENTRY_POINTS = "emuvisor.devices"
FIRST_USER_SLOT = 3
"""PCI slots below this one are the board's own."""


class Slots(Protocol):
    """What a board offers to a device of the user's.

    Ports and addresses are claimed with `ports.attach` and `mmio.attach`, interrupts with `isa.input`. A PCI
    function goes into `pci.plug(function, pci.free_slot(FIRST_USER_SLOT))`; a board without PCI has None there.
    """

    @property
    def clock(self) -> Clock:
        """The guest's only clock."""
        ...

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory, for DMA."""
        ...

    @property
    def ports(self) -> Bus:
        """I/O space."""
        ...

    @property
    def mmio(self) -> Bus:
        """Memory space where there is no RAM."""
        ...

    @property
    def isa(self) -> IsaLines:
        """Interrupt lines 0 to 15."""
        ...

    @property
    def pci(self) -> PciBus | None:
        """Bus 0, or None."""
        ...


class Pluggable(Protocol):
    """A class that can be named as a device."""

    def plug(self, board: Slots) -> Any:
        """Make the device, attach it to `board`, and return it."""
        ...


def load_device(name: str) -> Pluggable:
    """The class that `name` stands for. Raises ConfigError when there is none, or it has no `plug`."""
    if ":" in name:
        module_name, _, class_name = name.partition(":")
        try:
            found = getattr(import_module(module_name), class_name)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"device {name}: cannot import {module_name!r}: {error}") from error
        except AttributeError:
            raise ConfigError(f"device {name}: module {module_name!r} has no {class_name!r}") from None
    else:
        entries = entry_points(group=ENTRY_POINTS, name=name)
        if not entries:
            known = ", ".join(sorted(entry_points(group=ENTRY_POINTS).names)) or "none"
            raise ConfigError(
                f"device {name}: neither module:Class nor an entry point of {ENTRY_POINTS} (known: {known})"
            )
        try:
            found = next(iter(entries)).load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"device {name}: its entry point cannot be loaded: {error}") from error
    if not callable(getattr(found, "plug", None)):
        raise ConfigError(f"device {name}: it has no class method plug(board)")
    device: Pluggable = found
    return device


def plug_devices(board: Slots, names: Sequence[str]) -> list[Any]:
    """Load the devices called `names` and plug them into `board`, in that order.

    Raises ConfigError naming the device.
    """
    plugged = []
    for name in names:
        device = load_device(name)
        try:
            plugged.append(device.plug(board))
        except Exception as error:  # the user's code: any error of it is an error of the configuration
            raise ConfigError(f"device {name}: plug failed: {type(error).__name__}: {error}") from error
    return plugged
