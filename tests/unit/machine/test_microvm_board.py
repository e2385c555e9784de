"""The microvm board: its wires, how it switches off, and what it leaves behind for a kernel."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

from emuvisor.bus.clock import VirtualClock
from emuvisor.machine.boards.microvm import MicrovmBoard
from emuvisor.machine.boards.wiring import ProcessorPins, Wiring
from emuvisor.machine.loaders.boot import Piece
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.machine.tables import aml
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB

IO_APIC, LOCAL_APIC = 0xFEC00000, 0xFEE00000
MASTER_COMMAND, MASTER_DATA = 0x20, 0x21
COM1 = 0x3F8


class Bench:
    def __init__(self, **wiring: Any) -> None:
        self.log: list[str] = []
        self.intr = False
        self.clock = VirtualClock()
        self.memory = GuestMemory(FramePool(2 * MIB), [(0, MIB)])
        self.board = MicrovmBoard(
            Wiring(
                clock=self.clock,
                memory=self.memory,
                memory_map=MemoryMap.for_ram(MIB),
                epoch=datetime(2025, 1, 1, tzinfo=UTC),
                serial=[lambda data: self.log.append(f"serial {data!r}")],
                drives=[],
                processors=[
                    ProcessorPins(
                        on_intr=self._set_intr,
                        on_nmi=lambda: self.log.append("nmi"),
                        on_init=lambda: self.log.append("init"),
                        on_sipi=lambda vector: self.log.append(f"sipi {vector:#x}"),
                    )
                ],
                on_a20=lambda level: self.log.append(f"a20 {level}"),
                on_reset=lambda: self.log.append("reset"),
                on_shutdown=lambda: self.log.append("off"),
                on_exit=lambda code: self.log.append(f"exit {code}"),
                on_debug=lambda data: self.log.append(f"debug {data!r}"),
                on_panic=lambda: self.log.append("panic"),
                on_suspend=self.log.append,
                **wiring,
            )
        )

    def _set_intr(self, level: bool) -> None:
        self.intr = level

    def out(self, port: int, value: int, size: int = 1) -> None:
        self.board.ports.write(port, value, size)

    def program_pic(self) -> None:
        """Vectors from 20h on, all inputs but the cascade's masked."""
        for port, value in ((MASTER_COMMAND, 0x11), (MASTER_DATA, 0x20), (MASTER_DATA, 4), (MASTER_DATA, 1)):
            self.out(port, value)

    def route(self, pin: int, vector: int) -> None:
        """An I/O APIC entry: fixed, edge, to the local APIC with ID 0."""
        for register, value in ((0x10 + 2 * pin, vector), (0x11 + 2 * pin, 0)):
            self.board.mmio.write(IO_APIC, register, 4)
            self.board.mmio.write(IO_APIC + 0x10, value, 4)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.memory.close()


def request_serial_interrupt(bench: Bench) -> None:
    bench.out(COM1 + 4, 0x0B)
    bench.out(COM1 + 1, 0x02)  # transmitter empty


def test_without_firmware_the_pic_interrupts_in_virtual_wire_mode(bench):
    bench.board.load_roms([], programs_chipset=False)
    bench.program_pic()
    bench.out(MASTER_DATA, 0)
    request_serial_interrupt(bench)
    assert bench.intr
    assert bench.board.acknowledge() == 0x24


def test_firmware_finds_the_apic_as_after_power_on(bench):
    bench.board.load_roms([], programs_chipset=True)
    assert bench.board.mmio.read(LOCAL_APIC + 0xF0, 4) == 0xFF
    assert bench.board.mmio.read(LOCAL_APIC + 0x350, 4) == 0x10000


def test_isa_interrupts_reach_the_io_apic(bench):
    bench.board.load_roms([], programs_chipset=False)
    bench.route(4, 0x54)
    request_serial_interrupt(bench)
    assert bench.intr
    assert bench.board.acknowledge() == 0x54


def test_the_timer_drives_pin_2(bench):
    bench.board.load_roms([], programs_chipset=False)
    bench.route(2, 0x52)
    for port, value in ((0x43, 0x34), (0x40, 0x00), (0x40, 0x10)):
        bench.out(port, value)
    bench.clock.skip(20_000_000)
    bench.clock.fire_due()
    assert bench.board.acknowledge() == 0x52


@pytest.mark.parametrize(
    ("port", "value", "size", "expected"),
    [
        (0x608, 5 << 2 | 1 << 5, 1, "off"),
        (0x60A, 1, 1, "reset"),
        (0x604, 0x2000, 2, "off"),
        (0xF4, 3, 4, "exit 7"),
        (0xE9, ord("x"), 1, "debug b'x'"),
        (0x402, ord("y"), 1, "debug b'y'"),
        (COM1, ord("z"), 1, "serial b'z'"),
    ],
)
def test_ports(bench, port, value, size, expected):
    bench.out(port, value, size)
    assert bench.log == [expected]


def test_tables_name_what_is_there(bench):
    bench.board.load_roms([], programs_chipset=False)
    pieces = {piece.what: piece for piece in bench.board.tables()}
    acpi = bytes(pieces["ACPI tables"].data)
    assert b"COM1" in acpi
    assert b"COM2" not in acpi
    assert b"RTC_" in acpi
    assert "SMBIOS anchors" in pieces


def test_a_rom_in_the_f_segment_takes_the_place_of_ram(bench):
    bench.board.load_roms([Piece(0xF0000, b"ROM".ljust(0x1000, b"."), "ROM")], programs_chipset=False)
    assert bench.memory.read(0xF0000, 4) == b"ROM."
    assert "SMBIOS anchors" not in {piece.what for piece in bench.board.tables()}


def test_a_reset_puts_chips_back(bench):
    bench.board.load_roms([], programs_chipset=False)
    bench.program_pic()
    bench.out(MASTER_DATA, 0)
    request_serial_interrupt(bench)
    bench.board.reset()
    assert not bench.intr
    assert bench.board.mmio.read(LOCAL_APIC + 0xF0, 4) == 0xFF


def test_there_is_no_power_button(bench):
    assert not bench.board.press_power_button()


class Lamp:
    """A device of the user's that has itself announced."""

    name = "lamp"

    @classmethod
    def plug(cls, board: MicrovmBoard) -> "Lamp":
        lamp = cls()
        board.ports.attach(0x300, 1, lamp)
        return lamp

    def acpi(self) -> bytes:
        return aml.device("LAMP", aml.name("_HID", aml.eisa_id("EMU0042")))

    def read(self, offset: int, size: int) -> int:
        return 0x42

    def write(self, offset: int, value: int, size: int) -> None:
        pass

    def reset(self) -> None:
        pass


def test_user_devices_are_announced(monkeypatch):
    module = ModuleType("lamps")
    module.Lamp = Lamp  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lamps", module)
    bench = Bench(devices=("lamps:Lamp",))
    assert bench.board.ports.read(0x300, 1) == 0x42
    assert b"LAMP" in next(p.data for p in bench.board.tables() if p.what == "ACPI tables")
    bench.memory.close()
