from collections.abc import Callable

import pytest
from device_rigs import Rig

from emuvisor.devices.uart import NS16550A, QUEUE_SIZE

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7
ERBFI, ETBEI, ELSI, EDSSI = 1, 2, 4, 8
NONE, MODEM, THRE, DATA, LINE, TIMEOUT = 0x01, 0x00, 0x02, 0x04, 0x06, 0x0C
FIFOS = 0xC0
DR, OE, EMPTY = 0x01, 0x02, 0x60
DTR, RTS, OUT1, OUT2, LOOP = 1, 2, 4, 8, 0x10
CHARACTER_NS = 10 * 16 * 10**9 // 1_843_200  # 8N1 at a divisor of 1


class Bench:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.uart: NS16550A = rig.chips["uart"]

    def read(self, register: int) -> int:
        return self.uart.read(register, 1)

    def write(self, register: int, value: int) -> None:
        self.uart.write(register, value, 1)

    def set_up(self, fcr: int = 0xC1, ier: int = ERBFI) -> None:
        """115200 8N1, interrupts connected; by default FIFOs with a trigger level of 14."""
        self.write(LCR, 0x83)
        self.write(DLL, 1)
        self.write(DLM, 0)
        self.write(LCR, 0x03)
        self.write(FCR, fcr)
        self.write(MCR, DTR | RTS | OUT2)
        self.write(IER, ier)

    def drain(self) -> bytes:
        """Read as a polling driver does."""
        data = bytearray()
        while self.read(LSR) & DR:
            data.append(self.read(RBR))
        return bytes(data)

    @property
    def irq(self) -> bool:
        return self.rig.level("irq4")

    def edges(self) -> int:
        return self.rig.logged("irq4").count(True)


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("uart"))


def test_the_registers_after_reset(bench: Bench) -> None:
    assert [bench.read(r) for r in range(8)] == [0, 0, NONE, 0, 0, EMPTY, 0xB0, 0]


def test_output_is_with_the_sink_at_once(bench: Bench) -> None:
    for byte in b"hello\n":
        bench.write(THR, byte)
        assert bench.read(LSR) & EMPTY == EMPTY
    assert bench.rig.sent() == b"hello\n"


def test_the_divisor_latch_hides_data_and_ier(bench: Bench) -> None:
    bench.write(LCR, 0x80)
    bench.write(DLL, 0x34)
    bench.write(DLM, 0x12)
    assert (bench.read(DLL), bench.read(DLM)) == (0x34, 0x12)
    bench.write(LCR, 0)
    assert bench.read(IER) == 0
    assert bench.uart.divisor == 0x1234
    assert bench.rig.sent() == b""


def test_scratch_and_read_only_registers(bench: Bench) -> None:
    bench.write(SCR, 0x5A)
    bench.write(LSR, 0xFF)
    bench.write(MSR, 0xFF)
    bench.write(IER, 0xF0)
    bench.write(MCR, 0xE0)
    assert [bench.read(r) for r in (SCR, LSR, MSR, IER, MCR)] == [0x5A, EMPTY, 0xB0, 0, 0]


def test_linux_finds_a_16550a(bench: Bench) -> None:
    bench.write(FCR, 0x01)
    assert bench.read(IIR) >> 6 == 3
    bench.write(FCR, 0x00)
    assert bench.read(IIR) == NONE
    bench.write(MCR, LOOP | RTS | OUT2)
    assert bench.read(MSR) & 0xF0 == 0x90


@pytest.mark.parametrize(("mcr", "ready"), [(0, False), (DTR, False), (RTS, False), (DTR | RTS, True)])
def test_a_driver_that_listens_raises_dtr_and_rts(bench: Bench, mcr: int, ready: bool) -> None:
    bench.write(MCR, mcr)
    assert bench.uart.terminal_ready is ready


def test_without_fifos_one_byte_is_in_the_receiver(bench: Bench) -> None:
    bench.set_up(fcr=0)
    assert bench.uart.receive(b"abc") == 3
    assert bench.irq
    assert bench.read(IIR) == DATA
    edges = bench.edges()
    assert bench.drain() == b"abc"
    assert not bench.irq
    assert bench.edges() == edges  # the level stays until the last byte, as the driver's loop expects


def test_the_trigger_level_and_then_the_time_out(bench: Bench) -> None:
    bench.set_up()
    bench.uart.receive(b"x" * 13)
    assert not bench.irq
    bench.uart.receive(b"x")
    assert bench.irq
    assert bench.read(IIR) == FIFOS | DATA
    bench.read(RBR)
    assert not bench.irq
    assert bench.read(IIR) == FIFOS | NONE
    bench.rig.pass_ns(4 * CHARACTER_NS - 1)
    assert not bench.irq
    bench.rig.pass_ns(1)
    assert bench.irq
    assert bench.read(IIR) == FIFOS | TIMEOUT
    bench.read(RBR)
    assert not bench.irq  # a read starts the time-out anew
    bench.rig.pass_ns(4 * CHARACTER_NS)
    assert bench.irq
    assert bench.drain() == b"x" * 12
    assert not bench.irq
    assert bench.rig.wires.clock.next_deadline_ns() is None


@pytest.mark.parametrize(("fcr", "level"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_trigger_levels(bench: Bench, fcr: int, level: int) -> None:
    bench.set_up(fcr=fcr)
    bench.uart.receive(b"x" * (level - 1))
    assert not bench.irq
    bench.uart.receive(b"x")
    assert bench.irq


def test_pasted_input_is_never_lost(bench: Bench) -> None:
    bench.set_up()
    text = bytes(i & 0xFF for i in range(10_000))
    assert bench.uart.receive(text) == len(text)
    got = bytearray()
    while bench.irq:
        assert bench.read(IIR) & 0x0F in (DATA, TIMEOUT)
        got += bytes(bench.read(RBR) for _ in range(8))
        bench.rig.pass_ns(4 * CHARACTER_NS)
    assert bytes(got) == text
    assert not bench.read(LSR) & OE


def test_a_full_queue_takes_only_what_fits(bench: Bench) -> None:
    bench.set_up()
    assert bench.uart.room == QUEUE_SIZE
    assert bench.uart.receive(bytes(QUEUE_SIZE + 100)) == QUEUE_SIZE
    assert bench.uart.room == 16  # moved into the FIFO
    assert bench.uart.receive(bytes(100)) == 16
    assert bench.uart.receive(b"x") == 0
    bench.read(RBR)
    assert bench.uart.receive(b"xy") == 1


def test_resetting_the_fifo_drops_what_is_in_it(bench: Bench) -> None:
    bench.set_up()
    bench.uart.receive(b"a" * 16 + b"b")
    bench.write(FCR, 0xC1 | 0x02)
    assert bench.drain() == b"b"


def test_switching_the_fifos_drops_what_is_in_them(bench: Bench) -> None:
    bench.set_up()
    bench.uart.receive(b"a" * 10)
    bench.write(FCR, 0)
    assert bench.drain() == b""


def test_enabling_the_thre_interrupt_raises_it(bench: Bench) -> None:
    bench.set_up(ier=0)
    for _ in range(2):  # Linux enables it twice to find chips that do this only once
        bench.write(IER, ETBEI)
        assert bench.irq
        assert bench.read(IIR) == FIFOS | THRE
        assert not bench.irq
        assert bench.read(IIR) == FIFOS | NONE
        bench.write(IER, 0)


def test_each_byte_sent_raises_the_thre_interrupt_again(bench: Bench) -> None:
    bench.set_up(ier=ETBEI)
    edges = bench.edges()
    for i in range(5):
        bench.write(THR, i)  # also if nobody read IIR: an edge-triggered controller must see it
        assert bench.edges() == edges + 1 + i
    assert bench.read(IIR) == FIFOS | THRE
    assert not bench.irq
    bench.write(IER, 0)
    bench.write(THR, 0)
    assert not bench.irq


def test_interrupts_are_told_in_order_of_urgency(bench: Bench) -> None:
    bench.set_up(fcr=0x01, ier=0)
    bench.write(MCR, LOOP)
    for _ in range(17):
        bench.write(THR, 0)
    bench.write(MCR, LOOP | RTS)
    bench.write(IER, ERBFI | ETBEI | ELSI | EDSSI)
    assert bench.read(IIR) == FIFOS | LINE
    assert bench.read(LSR) == EMPTY | OE | DR
    assert bench.read(LSR) == EMPTY | DR
    assert bench.read(IIR) == FIFOS | DATA
    for _ in range(16):
        bench.read(RBR)
    assert bench.read(IIR) == FIFOS | THRE
    assert bench.read(IIR) == FIFOS | MODEM
    assert bench.read(MSR) & 0x0F
    assert bench.read(IIR) == FIFOS | NONE


def test_loopback_returns_what_is_sent_and_keeps_input_waiting(bench: Bench) -> None:
    bench.set_up(fcr=0x01, ier=ERBFI)
    bench.write(MCR, LOOP | OUT2)
    bench.uart.receive(b"input")
    bench.write(THR, 0x42)
    assert bench.read(IIR) == FIFOS | DATA
    assert not bench.irq  # OUT2's pin is inactive in loopback
    assert bench.drain() == b"\x42"
    assert bench.rig.sent() == b""
    bench.write(MCR, OUT2)
    assert bench.drain() == b"input"


def test_overrun_without_fifos_keeps_the_newer_byte(bench: Bench) -> None:
    bench.write(MCR, LOOP)
    bench.write(THR, 1)
    bench.write(THR, 2)
    assert bench.read(LSR) == EMPTY | OE | DR
    assert bench.drain() == b"\x02"


def test_overrun_of_the_fifo_keeps_the_older_bytes(bench: Bench) -> None:
    bench.write(FCR, 1)
    bench.write(MCR, LOOP)
    for i in range(20):
        bench.write(THR, i)
    assert bench.read(LSR) & OE
    assert bench.drain() == bytes(range(16))


def test_loopback_wires_modem_outputs_to_inputs(bench: Bench) -> None:
    bench.write(MCR, LOOP)
    bench.read(MSR)
    for output, pin, delta in ((RTS, 0x10, 0x01), (DTR, 0x20, 0x02), (OUT2, 0x80, 0x08)):
        bench.write(MCR, LOOP | output)
        assert bench.read(MSR) == pin | delta
        bench.write(MCR, LOOP)
        assert bench.read(MSR) == delta
    bench.write(MCR, LOOP | OUT1)
    assert bench.read(MSR) == 0x40
    bench.write(MCR, LOOP)
    assert bench.read(MSR) == 0x04  # the trailing edge of RI


def test_out2_connects_the_interrupt(bench: Bench) -> None:
    bench.set_up(fcr=0)
    bench.write(MCR, DTR | RTS)
    bench.uart.receive(b"x")
    assert not bench.irq
    bench.write(MCR, OUT2)
    assert bench.irq


def test_the_time_out_follows_the_line_settings(bench: Bench) -> None:
    bench.set_up()
    bench.write(LCR, 0x80)
    bench.write(DLL, 0)
    bench.write(LCR, 0x0F)  # 8 bits, parity, two stop bits, divisor 0: the slowest
    bench.uart.receive(b"x")
    assert bench.rig.wires.clock.next_deadline_ns() == 4 * (12 * 16 * 65536 * 10**9 // 1_843_200)


def test_reset_drops_input_and_keeps_the_divisor(bench: Bench) -> None:
    bench.set_up(fcr=0)
    bench.write(SCR, 3)
    bench.uart.receive(b"abc")
    bench.uart.reset()
    assert not bench.irq
    assert bench.drain() == b""
    assert (bench.uart.divisor, bench.read(SCR), bench.read(IER)) == (1, 3, 0)
