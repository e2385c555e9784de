"""A board's state: all parts by name, and what is said about states that do not fit."""

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from board_rig import BoardRig, Disk

from emuvisor.bus.device import SavedState
from emuvisor.devices.pci.function import PciFunction
from emuvisor.errors import SnapshotError
from emuvisor.machine.boards.wiring import Drive
from emuvisor.memory import FramePool
from emuvisor.units import KIB, MIB

DRIVES = (Drive("disk", Disk(2048)), Drive("cdrom", None), Drive("floppy", Disk(2880)))


class Lamp:
    """A device of the user's that can be saved."""

    level = 0

    @classmethod
    def plug(cls, board: Any) -> "Lamp":
        lamp = cls()
        board.ports.attach(0x300, 1, lamp)
        return lamp

    name = "lamp"

    def read(self, offset: int, size: int) -> int:
        return self.level

    def write(self, offset: int, value: int, size: int) -> None:
        self.level = value

    def reset(self) -> None:
        self.level = 0

    def save(self) -> SavedState:
        return {"level": self.level}

    def load(self, state: SavedState) -> None:
        if not 0 <= state["level"] <= 255:
            raise SnapshotError("lamp: too bright")
        self.level = state["level"]


class Stone(Lamp):
    """One that cannot."""

    save = None  # type: ignore[assignment]


class Odd(Lamp):
    """One that saves something else."""

    def save(self) -> Any:
        return 7


class Broken(Lamp):
    """One with a mistake in it."""

    def save(self) -> SavedState:
        raise ValueError("no lamp oil")


class Card(PciFunction):
    """A PCI function, which is saved with its bus."""

    @classmethod
    def plug(cls, board: Any) -> "Card":
        card = cls(name="card", vendor=1, device=2, class_code=0xFF0000)
        board.pci.plug(card, 9)
        return card


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    made = types.ModuleType("state_devices")
    for item in (Lamp, Stone, Odd, Broken, Card):
        setattr(made, item.__name__, item)
    monkeypatch.setitem(sys.modules, "state_devices", made)


@pytest.fixture(scope="module")
def pool() -> FramePool:
    return FramePool(24 * MIB)


@pytest.fixture
def rigs(pool: FramePool) -> Iterator[list[BoardRig]]:
    made: list[BoardRig] = []
    yield made
    for rig in made:
        rig.close()


def build(rigs: list[BoardRig], pool: FramePool, *devices: str, **options: Any) -> BoardRig:
    options = {"drives": DRIVES, "processors": 2, **options}
    rigs.append(BoardRig(pool, devices=[f"state_devices:{name}" for name in devices], **options))
    return rigs[-1]


def test_everything_comes_back(rigs: list[BoardRig], pool: FramePool) -> None:
    rig = build(rigs, pool, "Lamp", "Card")
    rig.board.load_roms([], programs_chipset=False)
    rig.outb(0x300, 200)
    rig.outb(0x92, 0)  # A20 closed
    rig.outb(0x3C8, 5)
    rig.set(2, 0x10, 0xD000_0000)
    rig.board.uarts[0].receive(b"typed")
    state = rig.board.save()
    again = build(rigs, pool, "Lamp", "Card")
    again.outb(0x300, 7)
    again.board.load(state)
    assert again.board.save() == state
    assert again.inb(0x300) == 200
    assert ("a20", False) in again.log
    assert again.memory.regions[0].gpa == rig.memory.regions[0].gpa == 0xD000_0000
    assert [(a.device.name, a.start) for a in again.board.ports] == [
        (a.device.name, a.start) for a in rig.board.ports
    ]
    rig.board.reset()
    rig.board.load(state)
    assert rig.board.save() == state
    assert rig.memory.regions[0].gpa == 0xD000_0000


def test_interrupts_under_way_come_back_though_lines_change_on_the_way(
    rigs: list[BoardRig], pool: FramePool
) -> None:
    rig = build(rigs, pool)
    board = rig.board
    board.load_roms([], programs_chipset=False)
    for port, value in ((0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 1), (0x21, 0)):
        rig.outb(port, value)
    wires = [board.isa.input(5, "one"), board.isa.input(5, "two")]
    quiet = board.save()
    wires[0].set(True)
    raised = board.save()
    assert rig.intr
    wires[0].set(False)
    board.load(quiet)
    assert (rig.intr, board.save()) == (False, quiet)
    board.load(raised)
    assert (rig.intr, board.save()) == (True, raised)
    assert board.acknowledge() == 13


def test_a_flash_chip_comes_back_with_its_content(rigs: list[BoardRig], pool: FramePool) -> None:
    rig = build(rigs, pool)
    rig.board._add_flash(0xFFC0_0000, bytes(8 * KIB))
    assert rig.board.flash is not None
    for offset, value in ((3, 0x20), (3, 0xD0), (0, 0xFF)):
        rig.board.flash.write(offset, value, 1)
    state = rig.board.save()
    fresh = build(rigs, pool)
    without = fresh.board.save()
    fresh.board.load(state)
    assert fresh.board.save() == state
    assert fresh.memory.read(0xFFC0_0000, 4) == b"\xff" * 4
    with pytest.raises(SnapshotError) as error:
        fresh.board.load(without)
    assert str(error.value) == "pc board: this guest has a flash chip, the saved state has none"
    for flash, message in (
        ({}, "pc board: saved field 'chip' is None; expected a saved state"),
        (7, "pc board: saved field 'flash' is 7; expected a saved state"),
        ({"chip": {}}, "pc board: the saved flash chip has no address or no content"),
        (
            {"gpa": 0xFFC0_0001, "chip": {"data": bytes(4096)}},
            "pc board: the saved flash chip has no address or no content",
        ),
        (
            {"gpa": 0xFFC0_0000, "chip": {"data": b"x"}},
            "pc board: the saved flash chip at 0xffc00000: flash: 1 bytes; the chip has a multiple of 4096 bytes up "
            "to 16777216",
        ),
    ):
        other = build(rigs, pool)
        with pytest.raises(SnapshotError) as error:
            other.board.load({**state, "flash": flash})
        assert str(error.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "isa board"}, "the saved state is of device 'isa board', not 'pc board'"),
        ({"version": 9}, "pc board: saved state has version 9; this emuvisor reads 1 to 1"),
        ({"parts": []}, "pc board: saved field 'parts' is []; expected a saved state"),
        ({"parts": {}}, "pc board: the saved state has no part 'A20 gate'"),
    ],
)
def test_another_boards_state_is_refused(
    rigs: list[BoardRig], pool: FramePool, change: SavedState, message: str
) -> None:
    board = build(rigs, pool).board
    state = board.save()
    with pytest.raises(SnapshotError) as error:
        board.load({**state, **change})
    assert str(error.value) == message
    assert board.save() == state


def test_a_guest_with_other_devices_is_refused(rigs: list[BoardRig], pool: FramePool) -> None:
    more, fewer = build(rigs, pool, "Card").board, build(rigs, pool).board
    with pytest.raises(SnapshotError) as error:
        fewer.load(more.save())
    assert str(error.value) == "pc board: the saved state has a part 'PCI 9.0' that this guest does not have"
    with pytest.raises(SnapshotError) as error:
        more.load(fewer.save())
    assert str(error.value) == "pc board: the saved state has no part 'PCI 9.0'"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Stone", "it has no method save(), so its guest cannot be saved"),
        ("Odd", "save() gave 7; expected a dict"),
        ("Broken", "save() failed: ValueError: no lamp oil"),
    ],
)
def test_a_user_device_that_cannot_be_saved_is_named(
    rigs: list[BoardRig], pool: FramePool, name: str, message: str
) -> None:
    with pytest.raises(SnapshotError) as error:
        build(rigs, pool, name).board.save()
    assert str(error.value) == f"device state_devices:{name}: {message}"


def test_what_a_user_device_says_about_its_state(rigs: list[BoardRig], pool: FramePool) -> None:
    board = build(rigs, pool, "Lamp").board
    state = board.save()
    for lamp, message in (
        ({"level": 300}, "lamp: too bright"),
        ({}, "device state_devices:Lamp: load() failed: KeyError: 'level'"),
    ):
        with pytest.raises(SnapshotError) as error:
            board.load({**state, "parts": {**state["parts"], "user device 0": lamp}})
        assert str(error.value) == message
