"""Local APIC and I/O APIC together against a plain model made of sets, with saving and restoring in between."""

from dataclasses import dataclass, field
from typing import Any

from device_rigs import Rig
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.apic import registers as reg
from emuvisor.devices.apic.io_apic import IOREDTBL, IOREGSEL, IOWIN
from emuvisor.devices.apic.message import LEVEL_TRIGGERED, MASKED

PIN_COUNT = 4
SPURIOUS = 0xFF
VECTORS = [0x10, 0x20, 0x2F, 0x31, 0x32, 0x80, 0xEF]


@dataclass
class Pin:
    vector: int = 0
    level_triggered: bool = False
    masked: bool = True
    high: bool = False
    under_way: bool = False


@dataclass
class Model:
    """An APIC as the manual's text tells it."""

    task_priority: int = 0
    requested: set[int] = field(default_factory=set)
    in_service: set[int] = field(default_factory=set)
    level: set[int] = field(default_factory=set)
    pins: list[Pin] = field(default_factory=lambda: [Pin() for _ in range(PIN_COUNT)])

    def accept(self, vector: int, level_triggered: bool) -> None:
        self.requested.add(vector)
        self.level.discard(vector)
        if level_triggered:
            self.level.add(vector)

    def sample(self, pin: Pin) -> None:
        if pin.high and pin.level_triggered and not pin.masked and not pin.under_way:
            pin.under_way = True
            self.accept(pin.vector, True)

    def drive(self, number: int, high: bool) -> None:
        pin = self.pins[number]
        rises = high and not pin.high
        pin.high = high
        if rises and not pin.level_triggered and not pin.masked:
            self.accept(pin.vector, False)
        self.sample(pin)

    def redirect(self, number: int, vector: int, level_triggered: bool, masked: bool) -> None:
        pin = self.pins[number]
        pin.vector, pin.level_triggered, pin.masked = vector, level_triggered, masked
        pin.under_way &= level_triggered
        self.sample(pin)

    def candidate(self) -> int | None:
        threshold = max([self.task_priority >> 4, *(vector >> 4 for vector in self.in_service)])
        return max((vector for vector in self.requested if vector >> 4 > threshold), default=None)

    def acknowledge(self) -> int:
        vector = self.candidate()
        if vector is None:
            return SPURIOUS
        self.requested.remove(vector)
        self.in_service.add(vector)
        return vector

    def end(self) -> None:
        if not self.in_service:
            return
        vector = max(self.in_service)
        self.in_service.remove(vector)
        if vector in self.level:
            for pin in self.pins:
                if pin.under_way and pin.vector == vector:
                    pin.under_way = False
                    self.sample(pin)


def bits(vectors: set[int]) -> int:
    return sum(1 << vector for vector in vectors)


def carry_out(rig: Rig, model: Model, action: tuple[Any, ...]) -> None:
    lapic, ioapic = rig.chips["lapic"], rig.chips["ioapic"]
    name, *values = action
    if name == "drive":
        ioapic.lines[values[0]].set(values[1])
        model.drive(*values)
    elif name == "redirect":
        number, vector, level_triggered, masked = values
        ioapic.write(IOREGSEL, IOREDTBL + 2 * number, 4)
        ioapic.write(IOWIN, vector | LEVEL_TRIGGERED * level_triggered | MASKED * masked, 4)
        model.redirect(number, vector, level_triggered, masked)
    elif name == "ipi":
        lapic.write(reg.INTERRUPT_COMMAND_LOW, reg.ICR_TO_SELF | values[0], 4)
        model.accept(values[0], False)
    elif name == "priority":
        lapic.write(reg.TASK_PRIORITY, values[0], 4)
        model.task_priority = values[0]
    elif name == "acknowledge":
        assert lapic.acknowledge() == model.acknowledge()
    else:
        lapic.write(reg.END_OF_INTERRUPT, 0, 4)
        model.end()


vectors = st.sampled_from(VECTORS)
pins = st.integers(0, PIN_COUNT - 1)
actions = st.lists(
    st.tuples(st.just("drive"), pins, st.booleans())
    | st.tuples(st.just("redirect"), pins, vectors, st.booleans(), st.booleans())
    | st.tuples(st.just("ipi"), vectors)
    | st.tuples(st.just("priority"), st.sampled_from([0, 0, 0x15, 0x20, 0x30, 0xF0]))
    | st.just(("acknowledge",))
    | st.just(("end",)),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=actions, save_at=st.integers(0, 60))
def test_the_chips_do_what_the_manual_says(steps: list[tuple[Any, ...]], save_at: int) -> None:
    rig, model = Rig("apic"), Model()
    rig.chips["lapic"].write(reg.SPURIOUS_VECTOR, reg.SVR_ENABLE | SPURIOUS, 4)
    for number, step in enumerate(steps):
        if number == save_at:
            rig = rig.restored()
        carry_out(rig, model, step)
        lapic = rig.chips["lapic"]
        assert lapic.irr == bits(model.requested)
        assert lapic.isr == bits(model.in_service)
        assert lapic.tmr & (lapic.irr | lapic.isr) == bits(model.level & (model.requested | model.in_service))
        assert rig.level("intr") == (model.candidate() is not None)


registers = st.sampled_from(range(0, 0x400, 16)) | st.integers(0, 0x3FF)
writes = st.lists(
    st.tuples(st.sampled_from(["lapic", "ioapic"]), registers, st.integers(0, 2**32 - 1))
    | st.tuples(st.just("entry"), st.integers(0, 255), st.integers(0, 2**32 - 1))
    | st.tuples(st.just("line"), st.integers(0, 23), st.booleans())
    | st.tuples(st.just("msi"), st.integers(0xFEE00000, 0xFEEFFFFF), st.integers(0, 2**32 - 1))
    | st.tuples(st.just("time"), st.just(0), st.integers(0, 10**9)),
    max_size=50,
)


@settings(max_examples=100, deadline=None)
@given(steps=writes, save_at=st.integers(0, 50))
def test_hostile_registers_and_messages(steps: list[tuple[str, int, Any]], save_at: int) -> None:
    straight, broken = Rig("apic"), Rig("apic")
    for number, step in enumerate(steps):
        if number == save_at:
            broken = broken.restored()
        assert hit(straight, *step) == hit(broken, *step)
    assert straight.save() == broken.save()
    assert straight.wires.log == broken.wires.log


def hit(rig: Rig, target: str, place: int, value: Any) -> Any:
    """Write, let happen or look; what is seen of it."""
    lapic, ioapic = rig.chips["lapic"], rig.chips["ioapic"]
    if target == "entry":
        ioapic.write(IOREGSEL, place, 4)
        ioapic.write(IOWIN, value, 4)
    elif target == "line":
        ioapic.lines[place].set(value)
    elif target == "msi":
        lapic._bus.send_msi(place, value)
    elif target == "time":
        return rig.pass_ns(value)
    else:
        rig.chips[target].write(place, value, 4)
        return rig.chips[target].read(place, 4), lapic.acknowledge()
    return None
