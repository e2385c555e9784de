"""Power management: the states D0 and D3hot.

Source: PCI Bus Power Management Interface Specification 1.2, section 3.2.
"""

from emuvisor.devices.pci.capabilities.capability import Owner
from emuvisor.devices.pci.registers import CAP_POWER_MANAGEMENT

__all__ = ["PowerManagement"]

CAPABILITIES_VERSION_1_2 = 3
CONTROL = 4
POWER_STATE = 0x0003
NO_SOFT_RESET = 0x0008
"""Registers keep their values through D3hot."""
D0 = 0


class PowerManagement:
    """The capability; its state is all in configuration space."""

    def __init__(self, owner: Owner) -> None:
        body = CAPABILITIES_VERSION_1_2.to_bytes(2, "little") + NO_SOFT_RESET.to_bytes(4, "little")
        writable = bytes(2) + POWER_STATE.to_bytes(4, "little")
        self._owner = owner
        self.control = owner.add_capability(CAP_POWER_MANAGEMENT, body, writable) + CONTROL
        """Offset of the control and status register."""

    @property
    def awake(self) -> bool:
        """Whether the function is in D0."""
        return self._owner.config[self.control] & POWER_STATE == D0
