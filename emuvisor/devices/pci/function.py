"""A PCI function: a type 0 configuration space, base address registers, capabilities, INTx and DMA.

Source: PCI Local Bus Specification 3.0, chapter 6. Subclass it for a device, or build one and plug it in:

    class Adapter(PciFunction):
        def __init__(self) -> None:
            super().__init__(name="adapter", vendor=0x1AF4, device=0x10F0, class_code=0xFF0000, interrupt_pin=1)
            self.add_bar(0, Bar(size=32, space="io", device=registers))
            self.messages = self.add_msi(1)

All registers are bytes in `config`; which of their bits a guest can change is in `writable`.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, load_fields, save_fields, saved_part
from emuvisor.devices.pci.bar import Bar, OptionRom
from emuvisor.devices.pci.capabilities.capability import Capability
from emuvisor.devices.pci.capabilities.msi import Msi
from emuvisor.devices.pci.capabilities.msix import Msix
from emuvisor.devices.pci.capabilities.power import PowerManagement
from emuvisor.devices.pci.registers import (
    BAR_COUNT,
    BASE_ADDRESS,
    CACHE_LINE_SIZE,
    CAPABILITIES_POINTER,
    CLASS_CODE,
    COMMAND,
    COMMAND_BUS_MASTER,
    COMMAND_INTERRUPT_DISABLE,
    COMMAND_IO,
    COMMAND_MEMORY,
    COMMAND_WRITABLE,
    CONFIG_SIZE,
    DEVICE_ID,
    DEVICE_SPECIFIC,
    EXPANSION_ROM,
    HEADER_MULTIFUNCTION,
    HEADER_TYPE,
    INTERRUPT_LINE,
    INTERRUPT_PIN,
    LATENCY_TIMER,
    REVISION_ID,
    ROM_ENABLE,
    STATUS,
    STATUS_CAPABILITIES,
    STATUS_CLEARED_BY_ONES,
    STATUS_INTERRUPT,
    STATUS_RECEIVED_MASTER_ABORT,
    SUBSYSTEM_ID,
    SUBSYSTEM_VENDOR_ID,
    VENDOR_ID,
)
from emuvisor.errors import GuestAddressError, SnapshotError, UsageError
from emuvisor.memory import PhysicalMemory

__all__ = ["PciFunction", "PciHost", "Window"]

Window = tuple[Bar, int]
"""A BAR that decodes, and at which address."""

DECODING = {COMMAND, EXPANSION_ROM} | {BASE_ADDRESS + 4 * index for index in range(BAR_COUNT)}
"""The double words that decide what answers where."""

IDENTITY = (*range(VENDOR_ID, COMMAND), *range(REVISION_ID, CACHE_LINE_SIZE), HEADER_TYPE, INTERRUPT_PIN)
"""Registers that say what it is, and never change."""


def _masks(*registers: tuple[int, int, int]) -> bytes:
    """A configuration space that holds, for each register (offset, mask, size), its mask."""
    space = bytearray(CONFIG_SIZE)
    for offset, mask, size in registers:
        space[offset : offset + size] = mask.to_bytes(size, "little")
    return bytes(space)


_WRITABLE = _masks(
    (COMMAND, COMMAND_WRITABLE, 2),
    (CACHE_LINE_SIZE, 0xFF, 1),
    (LATENCY_TIMER, 0xFF, 1),
    (INTERRUPT_LINE, 0xFF, 1),
)
_CLEARED_BY_ONES = _masks((STATUS, STATUS_CLEARED_BY_ONES, 2))
"""What every function has."""

_VERSION = 1
_FIELDS = Fields({"config": Data(CONFIG_SIZE, minimum=CONFIG_SIZE), "intx": Flag()})


class PciHost(Protocol):
    """What a plugged function sees of its bus."""

    @property
    def memory(self) -> PhysicalMemory:
        """The target of DMA."""
        ...

    def remap(self) -> None:
        """Some function's windows have changed."""
        ...

    def send_msi(self, address: int, data: int) -> None:
        """A message-signalled interrupt: the write of `data` to `address`."""
        ...

    def set_pin(self, function: "PciFunction", level: bool) -> None:
        """The level of the function's interrupt pin."""
        ...


class PciFunction:
    """One function of a PCI device.

    `class_code` has 24 bits: class, subclass, programming interface. `subsystem` is (vendor, device).
    `interrupt_pin` is 1 to 4 for INTA# to INTD#, 0 for none. BARs and capabilities are added before the
    function is plugged in.
    """

    def __init__(
        self,
        *,
        name: str,
        vendor: int,
        device: int,
        class_code: int,
        revision: int = 0,
        subsystem: tuple[int, int] = (0x1AF4, 0x1100),
        interrupt_pin: int = 0,
        multifunction: bool = False,
    ) -> None:
        self.name = name
        self.config = bytearray(CONFIG_SIZE)
        self.writable = bytearray(_WRITABLE)
        """Which bits of `config` a guest's write sets."""
        self.cleared_by_ones = bytearray(_CLEARED_BY_ONES)
        """Which bits of `config` a guest clears by writing 1."""
        self.intx = False
        """What the device wants of its interrupt pin; `Interrupt Disable` may keep it from the wire."""
        self.bars: dict[int, Bar] = {}
        self.rom: OptionRom | None = None
        self._rom_bar: Bar | None = None
        self._capabilities: list[Capability] = []
        self._free = DEVICE_SPECIFIC
        self._power: PowerManagement | None = None
        self._host: PciHost | None = None
        self._power_on: bytes | None = None

        self._put(VENDOR_ID, vendor, 2)
        self._put(DEVICE_ID, device, 2)
        self._put(REVISION_ID, revision, 1)
        self._put(CLASS_CODE, class_code, 3)
        self._put(HEADER_TYPE, HEADER_MULTIFUNCTION if multifunction else 0, 1)
        self._put(SUBSYSTEM_VENDOR_ID, subsystem[0], 2)
        self._put(SUBSYSTEM_ID, subsystem[1], 2)
        self._put(INTERRUPT_PIN, interrupt_pin, 1)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name} {self._get(VENDOR_ID, 2):04x}:{self._get(DEVICE_ID, 2):04x}>"
        )

    # ---- what it is built of ----

    def _get(self, offset: int, size: int) -> int:
        return int.from_bytes(self.config[offset : offset + size], "little")

    def _put(self, offset: int, value: int, size: int) -> None:
        self.config[offset : offset + size] = value.to_bytes(size, "little")

    def allow(self, offset: int, mask: int, size: int) -> None:
        """Let a guest's write set the bits of `mask` in the register of `size` bytes at `offset`."""
        self.writable[offset : offset + size] = mask.to_bytes(size, "little")

    def add_bar(self, index: int, bar: Bar) -> None:
        """Make base address register `index` (0 to 5) show `bar`; a wide one takes the next register too.

        Raises UsageError when there is no such register or it is taken.
        """
        taken = {i + more for i, other in self.bars.items() for more in range(1 + other.wide)}
        wanted = set(range(index, index + 1 + bar.wide))
        if not wanted <= set(range(BAR_COUNT)) or wanted & taken:
            raise UsageError(f"{self.name}: BAR {index} is taken, or not one of 0 to {BAR_COUNT - 1}")
        self.bars[index] = bar
        size = 8 if bar.wide else 4
        self._put(BASE_ADDRESS + 4 * index, bar.flags, size)
        self.allow(BASE_ADDRESS + 4 * index, bar.address_mask, size)

    def add_rom(self, data: bytes, source: str = "option ROM") -> None:
        """Show `data` behind the expansion ROM register.

        Raises ImageError naming `source` unless it is an option ROM.
        """
        self.rom = OptionRom(data, source)
        self._rom_bar = Bar(size=self.rom.size, space="memory", device=self.rom, width=8)
        self.allow(EXPANSION_ROM, self._rom_bar.address_mask | ROM_ENABLE, 4)

    def add_capability(self, cap_id: int, body: bytes, writable: bytes) -> int:
        """Append a capability; `body` and its `writable` bits begin behind the identifier and the next pointer.

        Returns its offset. Raises UsageError when it does not fit.
        """
        offset, length = self._free, 2 + len(body)
        if offset + length > CONFIG_SIZE:
            raise UsageError(
                f"{self.name}: capability {cap_id:#x} of {length} bytes does not fit at {offset:#x}"
            )
        self._put(offset, cap_id, 1)
        self._put(offset + 1, self.config[CAPABILITIES_POINTER], 1)
        self.config[offset + 2 : offset + length] = body
        self.writable[offset + 2 : offset + length] = writable
        self._put(CAPABILITIES_POINTER, offset, 1)
        self._put(STATUS, self._get(STATUS, 2) | STATUS_CAPABILITIES, 2)
        self._free = (offset + length + 3) & ~3
        return offset

    def add_msi(self, vectors: int = 1, *, wide: bool = True, maskable: bool = True) -> Msi:
        """Message-signalled interrupts with 1 to 32 vectors, a power of two. Raises UsageError."""
        msi = Msi(self, vectors=vectors, wide=wide, maskable=maskable)
        self._capabilities.append(msi)
        return msi

    def add_msix(self, table_bar: int, vectors: int) -> Msix:
        """MSI-X with 1 to 2048 vectors; BAR `table_bar` holds its table and pending bits. Raises UsageError."""
        msix = Msix(self, bar=table_bar, vectors=vectors)
        self.add_bar(table_bar, Bar(size=msix.size, space="memory", device=msix, width=8))
        self._capabilities.append(msix)
        return msix

    def add_power_management(self) -> None:
        """The power states D0 and D3hot; nothing decodes in the latter. Raises UsageError."""
        self._power = PowerManagement(self)

    # ---- on the bus ----

    def connect(self, host: PciHost) -> None:
        """Called by the bus into which the function is plugged."""
        self._seal()
        self._host = host
        self._drive_pin()

    def _seal(self) -> None:
        """From here on registers change by the guest's doing: remember what a reset goes back to."""
        if self._power_on is None:
            self._power_on = bytes(self.config)

    def config_read(self, offset: int, size: int) -> int:
        """A guest's read of 1, 2 or 4 bytes inside one double word of configuration space."""
        return self._get(offset, size)

    def config_write(self, offset: int, value: int, size: int) -> None:
        """A guest's write of 1, 2 or 4 bytes inside one double word of configuration space."""
        self._seal()
        for i, byte in enumerate(value.to_bytes(size, "little"), offset):
            mask = self.writable[i]
            self.config[i] = (self.config[i] & ~mask | byte & mask) & ~(byte & self.cleared_by_ones[i])
        self._changed(offset)

    def _changed(self, offset: int) -> None:
        """The double word that holds `offset` was written: let what hangs on it follow."""
        double_word = offset & ~3
        for capability in self._capabilities:
            capability.config_changed()
        if double_word in DECODING or (self._power is not None and double_word == self._power.control):
            self.remap()
        self._drive_pin()

    def windows(self) -> Iterator[Window]:
        """The BARs that decode now, with their addresses. A subclass adds what it decodes by other registers."""
        if self._power is not None and not self._power.awake:
            return
        command = self._get(COMMAND, 2)
        for index, bar in self.bars.items():
            enable = COMMAND_IO if bar.space == "io" else COMMAND_MEMORY
            register = self._get(BASE_ADDRESS + 4 * index, 8 if bar.wide else 4)
            if command & enable and (address := register & bar.address_mask):
                yield bar, address
        if self._rom_bar is not None:
            register = self._get(EXPANSION_ROM, 4)
            address = register & self._rom_bar.address_mask
            if command & COMMAND_MEMORY and register & ROM_ENABLE and address:
                yield self._rom_bar, address

    def remap(self) -> None:
        """What `windows` yields has changed."""
        if self._host is not None:
            self._host.remap()

    # ---- interrupts and DMA ----

    def set_intx(self, level: bool) -> None:
        """What the device wants of its pin. The wire stays low while the guest disables it or uses messages."""
        self.intx = level
        status = self._get(STATUS, 2)
        self._put(STATUS, status | STATUS_INTERRUPT if level else status & ~STATUS_INTERRUPT, 2)
        self._drive_pin()

    @property
    def pin_level(self) -> bool:
        """The level on the wire."""
        disabled = self._get(COMMAND, 2) & COMMAND_INTERRUPT_DISABLE
        return self.intx and not disabled and not any(c.replaces_pin for c in self._capabilities)

    def _drive_pin(self) -> None:
        if self._host is not None and self.config[INTERRUPT_PIN]:
            self._host.set_pin(self, self.pin_level)

    def send_msi(self, address: int, data: int) -> None:
        """Write a message; nothing without bus mastering, for a message is a memory write."""
        if self._host is not None and self.bus_master:
            self._host.send_msi(address, data)

    @property
    def bus_master(self) -> bool:
        """Whether the guest allows the function to access memory."""
        return bool(self._get(COMMAND, 2) & COMMAND_BUS_MASTER)

    def dma_read(self, gpa: int, length: int) -> bytes:
        """`length` bytes of guest memory; all ones without bus mastering and where there is no memory."""
        if self._host is not None and self.bus_master:
            try:
                return self._host.memory.read(gpa, length)
            except GuestAddressError:
                self._master_abort()
        return b"\xff" * length

    def dma_write(self, gpa: int, data: bytes | memoryview) -> None:
        """Store `data` in guest memory; nothing happens without bus mastering and where there is no RAM.

        Raises OutOfFrames when the host has no frame for it.
        """
        if self._host is not None and self.bus_master:
            try:
                self._host.memory.write(gpa, data)
            except GuestAddressError:
                self._master_abort()

    def _master_abort(self) -> None:
        self._put(STATUS, self._get(STATUS, 2) | STATUS_RECEIVED_MASTER_ABORT, 2)

    # ---- reset and saved state ----

    def reset(self) -> None:
        """RST#: registers as after power-on, nothing decodes, no interrupt; the chips behind the BARs too."""
        self._seal()
        assert self._power_on is not None
        self.config[:] = self._power_on
        for capability in self._capabilities:
            capability.reset()
        for bar in self.bars.values():
            chip: Any = bar.device
            if chip is not None and chip is not self:
                chip.reset()
        self.set_intx(False)
        self.remap()

    def save(self) -> SavedState:
        """The configuration space and the capabilities' own state as plain data."""
        parts = {str(i): capability.save() for i, capability in enumerate(self._capabilities)}
        return save_fields(self, self.name, _VERSION, _FIELDS) | {"capabilities": parts}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave; the wiring stays. Raises SnapshotError."""
        self._seal()
        before = bytes(self.config)
        load_fields(self, state, self.name, _VERSION, _FIELDS)
        remapped = self.config != before
        if remapped and any(self.config[register] != before[register] for register in IDENTITY):
            self.config[:] = before
            raise SnapshotError(f"{self.name}: the saved configuration space is that of another function")
        parts = saved_part(state, self.name, "capabilities")
        for i, capability in enumerate(self._capabilities):
            capability.load(saved_part(parts, self.name, str(i)))
        if remapped:
            self.remap()
        self._drive_pin()
