"""Intel 8259A programmable interrupt controller, and the cascaded pair of a PC.

Source: Intel 8259A data sheet (231468); the edge/level control registers from the 82371 (PIIX) data sheet.
The MCS-80/85 mode (ICW4.uPM = 0) is accepted and vectors as the 8086 mode does.
"""

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import Fields, Flag, Number, load_fields, save_fields, saved_part

__all__ = ["I8259A", "EdgeLevelControl", "PicPair"]

INPUTS = 8
ALL_INPUTS = 0xFF
CASCADE_INPUT = 2
"""The master's input that the slave's INT output drives."""
SPURIOUS_INPUT = 7
"""What an acknowledge cycle answers when the request has gone away."""

# Register offsets: the A0 pin.
COMMAND = 0
DATA = 1

# ICW1, told from the operation command words by bit 4.
ICW1_SELECT = 0x10
ICW1_IC4 = 0x01
ICW1_SNGL = 0x02
ICW1_LTIM = 0x08

ICW2_BASE_MASK = 0xF8

ICW4_AEOI = 0x02
ICW4_SFNM = 0x10

# OCW2: bits 7-5 are R, SL and EOI; bits 2-0 the level.
OCW2_COMMAND_SHIFT = 5
OCW2_LEVEL_MASK = 0x07
OCW2_ROTATE_AEOI_CLEAR = 0b000
OCW2_NONSPECIFIC_EOI = 0b001
OCW2_SPECIFIC_EOI = 0b011
OCW2_ROTATE_AEOI_SET = 0b100
OCW2_ROTATE_NONSPECIFIC_EOI = 0b101
OCW2_SET_PRIORITY = 0b110
OCW2_ROTATE_SPECIFIC_EOI = 0b111

# OCW3, told from OCW2 by bit 3.
OCW3_SELECT = 0x08
OCW3_RIS = 0x01
OCW3_RR = 0x02
OCW3_POLL = 0x04
OCW3_SMM = 0x20
OCW3_ESMM = 0x40

POLL_INTERRUPT = 0x80

ELCR_WRITABLE = (0xF8, 0xDE)
"""Inputs that may be level-triggered, per chip: not the timer, keyboard, cascade, clock and FPU error."""

_VERSION = 1
_PAIR = "i8259a-pair"
_CHIP = "i8259a"
_FIELDS = Fields(
    {
        "irr": Number(0xFF),
        "isr": Number(0xFF),
        "imr": Number(0xFF),
        "levels": Number(0xFF),
        "level_triggered": Number(0xFF),
        "vector_base": Number(ICW2_BASE_MASK),
        "slave_inputs": Number(0xFF),
        "icw1": Number(0xFF),
        "icw4": Number(0xFF),
        "next_icw": Number(4),
        "ready": Flag(),
        "lowest_priority": Number(7),
        "rotate_on_aeoi": Flag(),
        "special_mask": Flag(),
        "read_isr": Flag(),
        "poll": Flag(),
    }
)


class I8259A:
    """One 8259A with its eight inputs; `output` is its INT pin.

    A rising edge stays latched until it is acknowledged, so a pulse is never lost; a level request goes away
    with its level, which is how spurious interrupts come about.
    """

    def __init__(self, name: str, output: InterruptLine) -> None:
        self.name = name
        self.output = output
        self.levels = 0
        self.level_triggered = 0
        self._clear()

    def _clear(self) -> None:
        self.irr = 0
        self.isr = 0
        self.imr = 0
        self.vector_base = 0
        self.slave_inputs = 0
        self.icw1 = 0
        self.icw4 = 0
        self.next_icw = 0
        """Which initialization command word a write to the data register is: 2, 3, 4, or 0 for none."""
        self.ready = False
        """The initialization sequence has been completed once; before that the chip requests nothing."""
        self.lowest_priority = 7
        self.rotate_on_aeoi = False
        self.special_mask = False
        self.read_isr = False
        self.poll = False

    def reset(self) -> None:
        """As after power-on: silent until it is initialized. The levels on the inputs stay what they are."""
        self.level_triggered = 0
        self._clear()
        self.update_output()

    def read(self, offset: int, size: int) -> int:
        """IRR, ISR or the poll byte at the command register, IMR at the data register."""
        if self.poll:
            self.poll = False
            return self._poll()
        if offset == DATA:
            return self.imr
        return self.isr if self.read_isr else self.irr

    def write(self, offset: int, value: int, size: int) -> None:
        """ICW1, OCW2 or OCW3 at the command register; ICW2 to ICW4 or OCW1 at the data register."""
        value &= 0xFF
        if offset == DATA:
            self._write_data(value)
        elif value & ICW1_SELECT:
            self._write_icw1(value)
        elif value & OCW3_SELECT:
            self._write_ocw3(value)
        else:
            self._write_ocw2(value)
        self.update_output()

    def set_input(self, index: int, level: bool) -> None:
        """Drive input `index` (0 to 7) high or low."""
        bit = 1 << index
        if level:
            if self._is_level(bit) or not self.levels & bit:
                self.irr |= bit
            self.levels |= bit
        else:
            self.levels &= ~bit
            if self._is_level(bit):
                self.irr &= ~bit
        self.update_output()

    def set_level_triggered(self, inputs: int) -> None:
        """Make the inputs in the bit mask `inputs` level-triggered and the others edge-triggered."""
        self.level_triggered = inputs
        self.irr = self.irr & ~inputs | self.levels & inputs
        self.update_output()

    def pending(self) -> int | None:
        """The input that would be served now; None if nothing may interrupt."""
        requests = self.irr & ~self.imr
        if not requests or not self.ready or self.next_icw:
            return None
        in_service = self.isr & ~self.imr if self.special_mask else self.isr
        candidate = self._rank_highest(requests)
        if in_service:
            serving = self._rank_highest(in_service)
            nested_slave = (
                candidate == serving
                and self.icw4 & ICW4_SFNM
                and self.slave_inputs >> self._input_of(candidate) & 1
            )
            if candidate >= serving and not nested_slave:
                return None
        return self._input_of(candidate)

    def acknowledge(self) -> int | None:
        """Take the pending request into service, as the first INTA pulse does; None if it has gone away."""
        served = self.pending()
        if served is not None:
            self._serve(served)
        # INTA takes INT low for a moment, also when more requests wait: the master needs an edge for each.
        self.output.set(False)
        self.update_output()
        return served

    def vector_of(self, served: int | None) -> int:
        """The interrupt vector for what `acknowledge` returned; IR7's for a spurious request."""
        return self.vector_base + (SPURIOUS_INPUT if served is None else served)

    def save(self) -> SavedState:
        """The registers as plain data."""
        return save_fields(self, _CHIP, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over the registers that `save` returned; `update_output` drives the pin afterwards.

        Raises SnapshotError.
        """
        load_fields(self, state, _CHIP, _VERSION, _FIELDS)

    def _is_level(self, bit: int) -> bool:
        return bool(self.icw1 & ICW1_LTIM or self.level_triggered & bit)

    def _rank_highest(self, inputs: int) -> int:
        """Rank (0 is the highest priority) of the most urgent of `inputs`, a non-zero bit mask."""
        shift = self.lowest_priority + 1
        ranked = (inputs << INPUTS | inputs) >> shift & ALL_INPUTS
        return (ranked & -ranked).bit_length() - 1

    def _input_of(self, rank: int) -> int:
        return (rank + self.lowest_priority + 1) % INPUTS

    def _serve(self, served: int) -> None:
        bit = 1 << served
        if not self._is_level(bit):
            self.irr &= ~bit
        if not self.icw4 & ICW4_AEOI:
            self.isr |= bit
        elif self.rotate_on_aeoi:
            self.lowest_priority = served

    def _poll(self) -> int:
        served = self.acknowledge()
        return 0 if served is None else POLL_INTERRUPT | served

    def _write_icw1(self, value: int) -> None:
        self._clear()
        self.icw1 = value
        self.next_icw = 2
        self.irr = self.levels & (ALL_INPUTS if value & ICW1_LTIM else self.level_triggered)

    def _write_data(self, value: int) -> None:
        if self.next_icw == 0:
            self.imr = value
        elif self.next_icw == 2:
            self.vector_base = value & ICW2_BASE_MASK
            self._next_icw(3 if not self.icw1 & ICW1_SNGL else 4)
        elif self.next_icw == 3:
            self.slave_inputs = value
            self._next_icw(4)
        else:
            self.icw4 = value
            self._finish_initialization()

    def _next_icw(self, word: int) -> None:
        if word == 4 and not self.icw1 & ICW1_IC4:
            self._finish_initialization()
        else:
            self.next_icw = word

    def _finish_initialization(self) -> None:
        self.next_icw = 0
        self.ready = True

    def _write_ocw2(self, value: int) -> None:
        command = value >> OCW2_COMMAND_SHIFT
        level = value & OCW2_LEVEL_MASK
        if command in (OCW2_NONSPECIFIC_EOI, OCW2_ROTATE_NONSPECIFIC_EOI):
            self._end_of_interrupt(rotate=command == OCW2_ROTATE_NONSPECIFIC_EOI)
        elif command == OCW2_SPECIFIC_EOI:
            self.isr &= ~(1 << level)
        elif command == OCW2_ROTATE_SPECIFIC_EOI:
            self.isr &= ~(1 << level)
            self.lowest_priority = level
        elif command == OCW2_SET_PRIORITY:
            self.lowest_priority = level
        elif command in (OCW2_ROTATE_AEOI_SET, OCW2_ROTATE_AEOI_CLEAR):
            self.rotate_on_aeoi = command == OCW2_ROTATE_AEOI_SET

    def _end_of_interrupt(self, rotate: bool) -> None:
        # In special mask mode a non-specific EOI does not see the masked levels (data sheet, "Special Mask").
        in_service = self.isr & ~self.imr if self.special_mask else self.isr
        if in_service:
            ended = self._input_of(self._rank_highest(in_service))
            self.isr &= ~(1 << ended)
            if rotate:
                self.lowest_priority = ended

    def _write_ocw3(self, value: int) -> None:
        if value & OCW3_ESMM:
            self.special_mask = bool(value & OCW3_SMM)
        self.poll = bool(value & OCW3_POLL)
        if value & OCW3_RR:
            self.read_isr = bool(value & OCW3_RIS)

    def update_output(self) -> None:
        """Drive INT to whether a request is pending."""
        self.output.set(self.pending() is not None)


class EdgeLevelControl:
    """ELCR1 and ELCR2: which of the pair's inputs are level-triggered. A bit for each, the master's first."""

    name = "elcr"

    def __init__(self, pair: "PicPair") -> None:
        self._chips = (pair.master, pair.slave)

    def read(self, offset: int, size: int) -> int:
        """ELCR1 or ELCR2."""
        return self._chips[offset & 1].level_triggered

    def write(self, offset: int, value: int, size: int) -> None:
        """Set ELCR1 or ELCR2; inputs that a PC wires as edges stay edges."""
        index = offset & 1
        self._chips[index].set_level_triggered(value & ELCR_WRITABLE[index])

    def reset(self) -> None:
        """All inputs edge-triggered."""
        for chip in self._chips:
            chip.set_level_triggered(0)


class PicPair:
    """A PC's two 8259As. `intr` is the CPU's INTR pin.

    Attach `master`, `slave` and `elcr` to the bus (two registers each). `lines[0..15]` are the inputs;
    lines[2] is the cascade, which the slave drives itself.
    """

    def __init__(self, intr: InterruptLine) -> None:
        self.name = _PAIR
        self.intr = intr
        cascade = InterruptLine(lambda level: self.master.set_input(CASCADE_INPUT, level), "irq2")
        self.master = I8259A("i8259a-master", intr)
        self.slave = I8259A("i8259a-slave", cascade)
        self.elcr = EdgeLevelControl(self)
        self.lines = [cascade if irq == CASCADE_INPUT else self._input_line(irq) for irq in range(2 * INPUTS)]

    def _input_line(self, irq: int) -> InterruptLine:
        chip = self.slave if irq >= INPUTS else self.master
        index = irq % INPUTS
        return InterruptLine(lambda level: chip.set_input(index, level), f"irq{irq}")

    def acknowledge(self) -> int:
        """The CPU's interrupt acknowledge cycle: the vector of the request that is now in service.

        With no request left it is a spurious one: IRQ 7's vector, or IRQ 15's when the slave's request went.
        """
        served = self.master.acknowledge()
        if served == CASCADE_INPUT:
            return self.slave.vector_of(self.slave.acknowledge())
        return self.master.vector_of(served)

    def reset(self) -> None:
        """Both chips as after power-on."""
        self.slave.reset()
        self.master.reset()

    def save(self) -> SavedState:
        """Both chips as plain data."""
        return {
            "device": _PAIR,
            "version": _VERSION,
            "master": self.master.save(),
            "slave": self.slave.save(),
        }

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave, the levels on the input lines too. Raises SnapshotError."""
        check_saved(state, _PAIR, _VERSION)
        for chip, part in ((self.master, "master"), (self.slave, "slave")):
            chip.load(saved_part(state, _PAIR, part))
        for irq, line in enumerate(self.lines):
            chip = self.slave if irq >= INPUTS else self.master
            line.level = bool(chip.levels >> irq % INPUTS & 1)
        self.slave.update_output()
        self.master.update_output()
