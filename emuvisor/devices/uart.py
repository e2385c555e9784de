"""National Semiconductor NS16550A UART with its 16-byte receive FIFO.

Source: NS PC16550D data sheet (TL/C/8652). A byte that the guest sends is with the sink at once, so the
transmitter is always empty again when the guest looks; a byte from the host arrives whole and without parity,
framing or break errors. Only the receiver's time-out takes guest time, four characters of it.
"""

from collections import deque
from collections.abc import Callable

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import (
    OPTIONAL_TIME,
    Data,
    Deadline,
    Fields,
    Flag,
    LineLevel,
    Number,
    load_fields,
    save_fields,
)
from emuvisor.units import KIB, NS_PER_S

__all__ = ["NS16550A", "QUEUE_SIZE", "UART_HZ"]

UART_HZ = 1_843_200
"""The crystal; the baud rate is this over 16 times the divisor."""

FIFO_SIZE = 16
QUEUE_SIZE = 64 * KIB
"""Bytes from the host that wait for room in the receiver."""

# Registers; the first two are the divisor latch while LCR.DLAB is set.
RBR_THR_DLL = 0
IER_DLM = 1
IIR_FCR = 2
LCR = 3
MCR = 4
LSR = 5
MSR = 6
SCR = 7

# Interrupt enable.
ERBFI = 0x01
ETBEI = 0x02
ELSI = 0x04
EDSSI = 0x08
IER_MASK = 0x0F

# Interrupt identification, the most urgent first.
IIR_LINE_STATUS = 0x06
IIR_DATA_AVAILABLE = 0x04
IIR_TIMEOUT = 0x0C
IIR_THRE = 0x02
IIR_MODEM_STATUS = 0x00
IIR_NONE = 0x01
IIR_FIFOS = 0xC0

# FIFO control.
FCR_ENABLE = 0x01
FCR_RESET_RECEIVER = 0x02
FCR_TRIGGER_SHIFT = 6
TRIGGER_LEVELS = (1, 4, 8, 14)

# Line control.
LCR_WORD_LENGTH = 0x03
LCR_STOP_BITS = 0x04
LCR_PARITY = 0x08
LCR_DLAB = 0x80
SHORTEST_WORD = 5

# Modem control.
MCR_DTR = 0x01
MCR_RTS = 0x02
MCR_OUT1 = 0x04
MCR_OUT2 = 0x08
"""Gates the interrupt in a PC."""
MCR_LOOP = 0x10
MCR_MASK = 0x1F

# Line status.
LSR_DR = 0x01
LSR_OE = 0x02
LSR_THRE = 0x20
LSR_TEMT = 0x40

# Modem status: four inputs, and below them whether each has changed (for RI: has gone away).
MSR_CTS = 0x10
MSR_DSR = 0x20
MSR_RI = 0x40
MSR_DCD = 0x80
MSR_INPUTS = 0xF0
MSR_DELTAS = 0x0F
MSR_DELTA_SHIFT = 4
MSR_CONNECTED = MSR_CTS | MSR_DSR | MSR_DCD
"""The host is always there and ready."""
LOOPED_INPUTS = ((MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD))

DIVISOR_DEFAULT = 12
"""9600 baud, as firmware leaves it; the chip's own reset does not touch the latch."""
DIVISOR_MODULUS = 0x10000
CLOCKS_PER_BIT = 16
TIMEOUT_CHARACTERS = 4

_DEVICE = "ns16550a"
_VERSION = 1
_FIELDS = Fields(
    {
        "divisor": Number(0xFFFF),
        "ier": Number(IER_MASK),
        "lcr": Number(0xFF),
        "mcr": Number(MCR_MASK),
        "msr": Number(0xFF),
        "scr": Number(0xFF),
        "fifo_enabled": Flag(),
        "trigger": Number(max(TRIGGER_LEVELS), minimum=1),
        "fifo": Data(FIFO_SIZE),
        "queue": Data(QUEUE_SIZE),
        "overrun": Flag(),
        "timed_out": Flag(),
        "thre_pending": Flag(),
        "irq_level": Flag(),
        "deadline_ns": OPTIONAL_TIME,
    }
)
_BYTES = tuple(bytes((value,)) for value in range(256))


class NS16550A:
    """One serial port. `sink` gets what the guest sends; `receive` gives it what the host sends.

    Input waits in a queue of 64 KiB on the host's side and moves into the chip's FIFO whenever there is room,
    so pasted text never overruns it. In loopback mode it stays in the queue.
    """

    def __init__(self, *, name: str, clock: Clock, irq: InterruptLine, sink: Callable[[bytes], None]) -> None:
        self.name = name
        self._clock = clock
        self._irq = irq
        self._sink = sink
        self._timer = clock.timer(self._time_out, f"{name} time-out")
        self.divisor = DIVISOR_DEFAULT
        self.scr = 0
        self.queue: deque[int] = deque()
        self.fifo: deque[int] = deque()
        self._clear()

    def _clear(self) -> None:
        self.ier = 0
        self.lcr = 0
        self.mcr = 0
        self.msr = MSR_CONNECTED
        self.fifo_enabled = False
        self.trigger = TRIGGER_LEVELS[0]
        self.fifo.clear()
        self.overrun = False
        self.timed_out = False
        self.thre_pending = False
        """The transmitter has become empty, with its interrupt enabled, since IIR last showed it."""

    def reset(self) -> None:
        """As the master reset does: divisor and scratch register stay. Input that waits is dropped."""
        self._clear()
        self.queue.clear()
        self._received()

    @property
    def terminal_ready(self) -> bool:
        """Whether the guest has raised DTR and RTS, as drivers do when they begin to listen."""
        return self.mcr & (MCR_DTR | MCR_RTS) == MCR_DTR | MCR_RTS

    @property
    def room(self) -> int:
        """How many bytes `receive` takes now."""
        return QUEUE_SIZE - len(self.queue)

    def receive(self, data: bytes) -> int:
        """Send `data` to the guest; returns how many bytes were taken, fewer than all when the queue is full.

        Call it while the guest does not run. What is taken reaches the guest in order and whole, unless the
        guest itself resets its FIFO.
        """
        taken = min(len(data), self.room)
        self.queue.extend(data[:taken])
        self._refill()
        return taken

    def read(self, offset: int, size: int) -> int:
        """A register."""
        if offset == LSR:
            return self._read_lsr()
        if offset == RBR_THR_DLL:
            return self.divisor & 0xFF if self.lcr & LCR_DLAB else self._read_rbr()
        if offset == IER_DLM:
            return self.divisor >> 8 if self.lcr & LCR_DLAB else self.ier
        if offset == IIR_FCR:
            return self._read_iir()
        if offset == LCR:
            return self.lcr
        if offset == MCR:
            return self.mcr
        if offset == MSR:
            return self._read_msr()
        return self.scr

    def write(self, offset: int, value: int, size: int) -> None:
        """A register; line and modem status are read-only."""
        value &= 0xFF
        if offset == RBR_THR_DLL:
            if self.lcr & LCR_DLAB:
                self.divisor = self.divisor & ~0xFF | value
            else:
                self._transmit(value)
        elif offset == IER_DLM:
            if self.lcr & LCR_DLAB:
                self.divisor = value << 8 | self.divisor & 0xFF
            else:
                self._write_ier(value & IER_MASK)
        elif offset == IIR_FCR:
            self._write_fcr(value)
        elif offset == LCR:
            self.lcr = value
        elif offset == MCR:
            self._write_mcr(value & MCR_MASK)
        elif offset == SCR:
            self.scr = value

    irq_level = LineLevel("_irq")
    """The interrupt line."""

    deadline_ns = Deadline("_timer")
    """When the receiver's time-out comes."""

    def save(self) -> SavedState:
        """The registers, the FIFO and the input that waits, as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)

    # Registers.

    def _read_rbr(self) -> int:
        value = self.fifo.popleft() if self.fifo else 0
        self._refill()
        return value

    def _read_lsr(self) -> int:
        value = LSR_THRE | LSR_TEMT
        if self.fifo:
            value |= LSR_DR
        if self.overrun:
            value |= LSR_OE
            self.overrun = False
            self._update_irq()
        return value

    def _read_iir(self) -> int:
        value = self._pending()
        if value == IIR_THRE:
            self.thre_pending = False
            self._update_irq()
        return value | (IIR_FIFOS if self.fifo_enabled else 0)

    def _read_msr(self) -> int:
        value = self.msr
        if value & MSR_DELTAS:
            self.msr = value & ~MSR_DELTAS
            self._update_irq()
        return value

    def _write_ier(self, value: int) -> None:
        # Enabling the interrupt while the transmitter is empty raises it: so a driver starts to send.
        if value & ETBEI and not self.ier & ETBEI:
            self.thre_pending = True
        self.ier = value
        self._update_irq()

    def _write_fcr(self, value: int) -> None:
        enable = bool(value & FCR_ENABLE)
        if enable != self.fifo_enabled or value & FCR_RESET_RECEIVER:
            self.fifo.clear()
        self.fifo_enabled = enable
        if enable:
            self.trigger = TRIGGER_LEVELS[value >> FCR_TRIGGER_SHIFT]
        self._refill()

    def _write_mcr(self, value: int) -> None:
        self.mcr = value
        inputs = (
            sum(pin for output, pin in LOOPED_INPUTS if value & output) if value & MCR_LOOP else MSR_CONNECTED
        )
        changed = (self.msr ^ inputs) & MSR_INPUTS
        if inputs & MSR_RI:
            changed &= ~MSR_RI  # only RI going away counts
        self.msr = inputs | self.msr & MSR_DELTAS | changed >> MSR_DELTA_SHIFT
        self._refill()

    def _transmit(self, value: int) -> None:
        if self.mcr & MCR_LOOP:
            self._loop_back(value)
        else:
            self._sink(_BYTES[value])
        if self.ier & ETBEI:
            # The write ends one interrupt, the empty transmitter starts the next: the line must show an edge.
            self.thre_pending = False
            self._update_irq()
            self.thre_pending = True
            self._update_irq()

    def _loop_back(self, value: int) -> None:
        if len(self.fifo) < self._capacity():
            self.fifo.append(value)
        else:
            self.overrun = True
            if not self.fifo_enabled:
                self.fifo[0] = value  # the buffer register is overwritten, a full FIFO is not
        self._received()

    # The receiver and its interrupts.

    def _capacity(self) -> int:
        return FIFO_SIZE if self.fifo_enabled else 1

    def _refill(self) -> None:
        """Move waiting input into the receiver."""
        if not self.mcr & MCR_LOOP:
            room = self._capacity() - len(self.fifo)
            while self.queue and room > 0:
                self.fifo.append(self.queue.popleft())
                room -= 1
        self._received()

    def _received(self) -> None:
        """After the receiver was written or read: its time-out starts anew."""
        self.timed_out = False
        if self.fifo_enabled and 0 < len(self.fifo) < self.trigger:
            self._timer.arm(self._clock.now_ns() + TIMEOUT_CHARACTERS * self._character_ns())
        else:
            self._timer.cancel()
        self._update_irq()

    def _character_ns(self) -> int:
        """How long one character is on the line."""
        bits = 1 + SHORTEST_WORD + (self.lcr & LCR_WORD_LENGTH) + 1
        bits += bool(self.lcr & LCR_PARITY) + bool(self.lcr & LCR_STOP_BITS)
        divisor = self.divisor or DIVISOR_MODULUS
        return bits * CLOCKS_PER_BIT * divisor * NS_PER_S // UART_HZ

    def _time_out(self, deadline_ns: int) -> None:
        self.timed_out = True
        self._update_irq()

    def _data_available(self) -> bool:
        return len(self.fifo) >= (self.trigger if self.fifo_enabled else 1)

    def _pending(self) -> int:
        """The most urgent enabled interrupt, as IIR names it."""
        if self.ier & ELSI and self.overrun:
            return IIR_LINE_STATUS
        if self.ier & ERBFI:
            if self._data_available():
                return IIR_DATA_AVAILABLE
            if self.timed_out:
                return IIR_TIMEOUT
        if self.ier & ETBEI and self.thre_pending:
            return IIR_THRE
        if self.ier & EDSSI and self.msr & MSR_DELTAS:
            return IIR_MODEM_STATUS
        return IIR_NONE

    def _update_irq(self) -> None:
        connected = self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2
        self._irq.set(connected and self._pending() != IIR_NONE)
