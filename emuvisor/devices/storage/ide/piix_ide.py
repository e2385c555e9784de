"""The IDE controller of the PIIX3 south bridge: two channels at their traditional ports, and a bus master.

Source: Intel 82371SB (PIIX3) data sheet 290550-002, sections 2.3 (configuration) and 2.5 (bus master registers).
Ports and interrupts are the ISA ones and cannot move; the bus master's 16 ports are BAR 4. The timing registers are
plain storage but for the bits that let a channel decode its ports.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import saved_part
from emuvisor.devices.pci.bar import Bar
from emuvisor.devices.pci.function import PciFunction, Window
from emuvisor.devices.pci.registers import COMMAND, COMMAND_BUS_MASTER, COMMAND_IO
from emuvisor.devices.storage.ide.bus_master import PORT_COUNT, BusMaster
from emuvisor.devices.storage.ide.channel import IdeChannel
from emuvisor.devices.storage.ide.drive import Drive
from emuvisor.devices.storage.ide.registers import COMMAND_BLOCK_PORTS
from emuvisor.errors import UsageError

__all__ = ["DRIVE_PLACES", "PiixIde"]

DRIVE_PLACES = 4
"""Primary master, primary slave, secondary master, secondary slave."""

VENDOR_INTEL = 0x8086
DEVICE_PIIX3_IDE = 0x7010
CLASS_IDE = 0x010180
"""Mass storage, IDE; bus master, both channels in compatibility mode, which cannot be changed."""

# Configuration registers
IDETIM = (0x40, 0x42)  # primary, secondary; 2 bytes each
SIDETIM = 0x44
IDETIM_ENABLE = 0x8000

# Where the channels are: command block and control block
COMMAND_PORTS = (0x1F0, 0x170)
CONTROL_PORTS = (0x3F6, 0x376)

BUS_MASTER_BAR = 4


@dataclass(frozen=True, slots=True, eq=False)
class _FixedPorts(Bar):
    """Ports that no base address register moves, of any number."""

    def __post_init__(self) -> None:
        """The sizes that a base address register can have do not matter here."""


class _BusMasters:
    """The 16 ports of BAR 4: a bus master for each channel."""

    name = "piix3-ide-dma"

    def __init__(self, masters: Sequence[BusMaster]) -> None:
        self._masters = masters

    def read(self, offset: int, size: int) -> int:
        """A register of one of them."""
        return self._masters[offset // PORT_COUNT].read(offset % PORT_COUNT, size)

    def write(self, offset: int, value: int, size: int) -> None:
        """A register of one of them."""
        self._masters[offset // PORT_COUNT].write(offset % PORT_COUNT, value, size)

    def reset(self) -> None:
        """Both."""
        for master in self._masters:
            master.reset()


class PiixIde(PciFunction):
    """The function, with `drives` in up to `DRIVE_PLACES` places; `irqs` are the lines of IRQ 14 and 15.

    `channels[0]` is the primary one. Raises UsageError for more drives than there are places.
    """

    def __init__(
        self,
        *,
        irqs: tuple[InterruptLine, InterruptLine],
        drives: Sequence[Drive | None] = (),
        name: str = "piix3-ide",
    ) -> None:
        super().__init__(name=name, vendor=VENDOR_INTEL, device=DEVICE_PIIX3_IDE, class_code=CLASS_IDE)
        if len(drives) > DRIVE_PLACES:
            raise UsageError(
                f"{name}: {len(drives)} drives; there are places for {DRIVE_PLACES}, two on each channel"
            )
        places = [*drives, *[None] * (DRIVE_PLACES - len(drives))]
        self.channels = (
            self._channel(0, irqs[0], places[0], places[1]),
            self._channel(1, irqs[1], places[2], places[3]),
        )
        self.bus_masters = tuple(BusMaster(channel=channel, port=self) for channel in self.channels)
        self.add_bar(
            BUS_MASTER_BAR, Bar(size=2 * PORT_COUNT, space="io", device=_BusMasters(self.bus_masters))
        )
        for register in IDETIM:
            self.allow(register, 0xFFFF, 2)
            # Against the data sheet the channels decode from the start: OVMF counts on it.
            self.config[register : register + 2] = IDETIM_ENABLE.to_bytes(2, "little")
        self.allow(SIDETIM, 0xFF, 1)
        self._fixed = [
            (
                _FixedPorts(size=COMMAND_BLOCK_PORTS, space="io", device=channel),
                COMMAND_PORTS[number],
                _FixedPorts(size=1, space="io", device=channel.control_block, width=1),
                CONTROL_PORTS[number],
            )
            for number, channel in enumerate(self.channels)
        ]

    def _channel(
        self, number: int, irq: InterruptLine, master: Drive | None, slave: Drive | None
    ) -> IdeChannel:
        def on_irq(level: bool) -> None:
            self.bus_masters[number].interrupt(level)
            irq.set(level)

        return IdeChannel(
            name=f"ide{number}", irq=InterruptLine(on_irq, irq.name), master=master, slave=slave
        )

    def enable(self) -> None:
        """Leave the function as firmware does: both channels decode, DMA is allowed."""
        for register in IDETIM:
            self.config_write(register, IDETIM_ENABLE, 2)
        self.config_write(COMMAND, self.config_read(COMMAND, 2) | COMMAND_IO | COMMAND_BUS_MASTER, 2)

    # ---- configuration ----

    def windows(self) -> Iterator[Window]:
        """The bus master's BAR, and the ports of the channels that are enabled."""
        yield from super().windows()
        if self.config_read(COMMAND, 2) & COMMAND_IO:
            for register, (block, block_port, control, control_port) in zip(IDETIM, self._fixed, strict=True):
                if self.config_read(register, 2) & IDETIM_ENABLE:
                    yield block, block_port
                    yield control, control_port

    def config_write(self, offset: int, value: int, size: int) -> None:
        """A guest's write; the timing registers say which channel decodes."""
        super().config_write(offset, value, size)
        if IDETIM[0] <= offset < SIDETIM:
            self.remap()

    # ---- reset and saved state ----

    def reset(self) -> None:
        """RST#, for the channels and their drives too."""
        super().reset()
        for channel in self.channels:
            channel.reset()

    def save(self) -> SavedState:
        """Configuration, channels with their drives, bus masters."""
        state = super().save()
        for number in range(len(self.channels)):
            state[f"channel{number}"] = self.channels[number].save()
            state[f"bus_master{number}"] = self.bus_masters[number].save()
        return state

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave; the wiring and the kinds of drive are the same. Raises SnapshotError."""
        super().load(state)
        for number in range(len(self.channels)):
            self.channels[number].load(saved_part(state, self.name, f"channel{number}"))
            # Behind the channel: its interrupt line rises, which the bus master must not take for a new one.
            self.bus_masters[number].load(saved_part(state, self.name, f"bus_master{number}"))
