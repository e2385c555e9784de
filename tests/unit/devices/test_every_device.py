"""What holds for every chip: it never raises, its values fit, and saving it changes nothing."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from device_rigs import KINDS, Rig, Wires
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emuvisor.bus import saved
from emuvisor.bus.device import SavedState
from emuvisor.errors import SnapshotError

SMALL_NS = st.integers(0, 3_000_000)
LONG_NS = st.integers(0, 3 * 86_400 * 10**9)

Action = tuple[Any, ...]

offsets = st.integers(0, 7) | st.sampled_from(range(0, 0x400, 4))
reads = st.tuples(st.just("read"), st.integers(0, 7), offsets, st.sampled_from([1, 1, 1, 2, 4]))
writes = st.tuples(
    st.just("write"),
    st.integers(0, 7),
    offsets,
    st.sampled_from([1, 1, 1, 2, 4]),
    st.integers(0, 0xFF) | st.integers(0, 2**32 - 1),
)
times = st.tuples(st.just("time"), SMALL_NS | LONG_NS)
hosts = st.tuples(st.just("host"), st.integers(0, 31))
actions = st.lists(reads | writes | times | hosts, max_size=60)


def act(rig: Rig, action: Action) -> Any:
    """Carry out one action; what the guest or the host sees of it."""
    if action[0] == "time":
        return rig.pass_ns(action[1])
    if action[0] == "host":
        return act_as_host(rig, action[1])
    device, length = rig.ports[action[1] % len(rig.ports)]
    offset = action[2] % length
    size = min(action[3], length - offset)
    size = 1 << size.bit_length() - 1
    if action[0] == "read":
        value = device.read(offset, size)
        assert 0 <= value < 1 << 8 * size
        return value
    device.write(offset, action[4] & (1 << 8 * size) - 1, size)
    return None


def act_as_host(rig: Rig, number: int) -> Any:
    """What comes from outside: input, keys, interrupt requests and acknowledges."""
    if rig.kind == "uart":
        return rig.chips["uart"].receive(bytes(range(number)))
    if rig.kind == "i8042":
        keyboard = rig.chips["keyboard"]
        if number < 16:
            return keyboard.type_text("Hello, World! 42"[:number])
        keyboard.press(("KeyA", "Pause", "PrintScreen", "ArrowUp")[number % 4], bool(number & 4))
    elif rig.kind == "pic":
        pic = rig.chips["pic"]
        if number == 2:
            return pic.acknowledge()
        irq = number % 16
        if irq != 2:  # the cascade is not an input
            pic.lines[irq].set(number < 16)
    elif rig.kind in HOST_ACTIONS:
        return HOST_ACTIONS[rig.kind](rig, number)
    return None


def act_on_apic(rig: Rig, number: int) -> Any:
    lapic, ioapic = rig.chips["lapic"], rig.chips["ioapic"]
    if number == 0:
        return lapic.acknowledge()
    if number == 1:
        lapic.set_virtual_wire()
    elif number < 8:
        (lapic.lint0, lapic.lint1, lapic.bypass)[number % 3].set(number < 5)
    else:
        ioapic.lines[number % 12].set(number < 20)
    return None


def act_on_hpet(rig: Rig, number: int) -> None:
    (rig.chips["hpet"].pit, rig.chips["hpet"].rtc)[number % 2].set(number < 16)


def act_on_pm(rig: Rig, number: int) -> Any:
    pm = rig.chips["pm"]
    if number == 0:
        return pm.press_power_button()
    if number == 1:
        return pm.rtc_alarm()
    return pm.raise_general_event(number % 16)


def act_on_ps2(rig: Rig, number: int) -> None:
    keyboard, mouse = rig.chips["keyboard"], rig.chips["mouse"]
    if number < 8:
        keyboard.press(("a", "pause", "ret", "ctrl_r")[number % 4], number < 4)
    elif number < 16:
        mouse.button(number % 5 + 1, number < 12)
    elif number < 20:
        mouse.wheel(number - 18)
    else:
        mouse.move((number - 24) * 100, (number - 28) * 1000)


def act_on_dma(rig: Rig, number: int) -> Any:
    channel = rig.chips["dma"].channels[number % 8]
    return channel.to_memory(bytes(range(number * 8))) if number < 16 else channel.from_memory(number * 500)


def act_on_floppy(rig: Rig, number: int) -> None:
    if number < 4:
        rig.chips["floppy"].drives[0].insert(rig.wires.disk)


HOST_ACTIONS: dict[str, Callable[[Rig, int], Any]] = {
    "apic": act_on_apic,
    "hpet": act_on_hpet,
    "acpi_pm": act_on_pm,
    "ps2": act_on_ps2,
    "dma": act_on_dma,
    "floppy": act_on_floppy,
    "imcr": lambda rig, number: rig.chips["imcr"].pic_intr.set(number < 16),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=actions, after=actions)
def test_saving_and_restoring_in_the_middle_changes_nothing(
    kind: str, before: list[Action], after: list[Action]
) -> None:
    straight, broken = Rig(kind), Rig(kind)
    for action in before:
        assert act(straight, action) == act(broken, action)
    broken = broken.restored()
    assert broken.save() == straight.save()
    assert broken.wires.log == straight.wires.log
    for action in after:
        assert act(straight, action) == act(broken, action)
    assert broken.save() == straight.save()
    assert broken.wires.log == straight.wires.log


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=actions, instead=actions, after=actions)
def test_a_state_can_be_loaded_into_a_chip_in_any_other_state(
    kind: str, before: list[Action], instead: list[Action], after: list[Action]
) -> None:
    source, target = Rig(kind), Rig(kind)
    for action in before:
        act(source, action)
    for action in instead:
        act(target, action)
    target.become(source)
    for action in [("time", 0), *after]:
        assert target.levels() == source.levels()
        assert target.save() == source.save()
        assert target.wires.clock.save() == source.wires.clock.save()
        assert act(target, action) == act(source, action)
    assert target.save() == source.save()
    assert target.wires.log == source.wires.log


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=actions, instead=actions)
def test_a_chip_that_is_loaded_arms_and_cancels_its_own_timers(
    kind: str, before: list[Action], instead: list[Action]
) -> None:
    source, target = Rig(kind), Rig(kind)
    for action in before:
        act(source, action)
    for action in instead:
        act(target, action)
    target.wires.clock.set_ns(source.wires.clock.now_ns())
    target.load(source.save())
    assert sorted(target.wires.clock.save()["timers"]) == sorted(source.wires.clock.save()["timers"])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(before=actions)
def test_reset_twice_is_reset_once(kind: str, before: list[Action]) -> None:
    rig = Rig(kind)
    for action in before:
        act(rig, action)
    for chip in rig.chips.values():
        chip.reset()
    first = rig.save()
    for chip in rig.chips.values():
        chip.reset()
    assert rig.save() == first


def allowed_values(kind: saved.Kind) -> st.SearchStrategy[Any]:
    if isinstance(kind, saved.Flag):
        return st.booleans()
    if isinstance(kind, saved.Data):
        return st.binary(min_size=kind.minimum, max_size=min(kind.maximum, kind.minimum + 40))
    if isinstance(kind, saved.Numbers):
        return st.lists(st.integers(0, kind.maximum), max_size=kind.length)
    assert isinstance(kind, saved.Number)
    numbers = st.integers(kind.minimum, kind.maximum)
    return numbers | st.none() if kind.optional else numbers


@st.composite
def forged(draw: st.DrawFn, state: SavedState, kinds: dict[str, saved.Kind]) -> SavedState:
    """`state` with other values that pass for saved ones."""
    changed = dict(state)
    for field, value in state.items():
        if isinstance(value, dict):
            changed[field] = draw(forged(value, kinds))
        elif field in kinds and field != "waiting" and draw(st.booleans()):
            changed[field] = draw(allowed_values(kinds[field]))
    return changed


PARTS = {
    "I8254": "emuvisor.devices.pit_counter",
    "LocalApic": "emuvisor.devices.apic.apic_timer",
    "Hpet": "emuvisor.devices.hpet_comparator",
    "PiixIde": "emuvisor.devices.storage.ide.disk",
}
"""Where chips keep the fields of their parts."""


def fields_of(chip: Any) -> dict[str, saved.Kind]:
    """The field kinds of a chip's module, and of the module that it takes parts from."""
    found: dict[str, saved.Kind] = {}
    for name in filter(None, (PARTS.get(type(chip).__name__), type(chip).__module__)):
        for attribute, fields in vars(import_module(name)).items():
            if attribute.startswith("_") and attribute.endswith("_FIELDS"):
                found.update(fields)
    return found


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), after=actions)
def test_a_forged_state_that_is_accepted_never_makes_the_chip_raise(
    kind: str, data: st.DataObject, after: list[Action]
) -> None:
    fresh = Rig(kind)
    states = {
        name: data.draw(forged(state, fields_of(fresh.chips[name]))) for name, state in fresh.save().items()
    }
    rig = Rig(kind, states, Wires())
    for action in after:
        act(rig, action)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_field_is_named(kind: str) -> None:
    rig = Rig(kind)
    for name, state in rig.save().items():
        for field in state:
            states = rig.save()
            del states[name][field]
            with pytest.raises(SnapshotError) as caught:
                Rig(kind, states)
            expected = "version" if field == "version" else "of device" if field == "device" else repr(field)
            assert expected in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_the_wrong_type_is_named(kind: str) -> None:
    rig = Rig(kind)
    for name, state in rig.save().items():
        for field in set(state) - {"device", "version"}:
            states = rig.save()
            states[name][field] = "nonsense"
            with pytest.raises(SnapshotError, match=f"{field!r} is 'nonsense'; expected "):
                Rig(kind, states)


@pytest.mark.parametrize("kind", KINDS)
def test_another_devices_state_and_a_newer_version_are_refused(kind: str) -> None:
    rig = Rig(kind)
    for name, state in rig.save().items():
        for change in ({"device": "toaster"}, {"version": 2}, {"version": 0}, {"version": "1"}):
            states = rig.save()
            states[name] = {**state, **change}
            with pytest.raises(SnapshotError):
                Rig(kind, states)
