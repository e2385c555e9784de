"""Whatever a guest writes, the display has a picture, and keeps it over save and restore."""

from typing import Any

from display_rig import CRTC, GRAPHICS, SEQUENCER, Bench, Vram
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.display.vga_pci import VgaRegisters
from emuvisor.units import MIB

bytes_ = st.integers(0, 0xFF)
ports = st.tuples(st.just("port"), st.integers(0x3B0, 0x3DF), bytes_)
indexed = st.tuples(
    st.sampled_from(["crtc", "sequencer", "graphics", "attribute"]), st.integers(0, 0x1A), bytes_
)
words = st.integers(0, 0xFFFF)
vbe = st.tuples(
    st.just("vbe"), st.integers(0, 11), words | st.sampled_from([0x41, 0xC1, 0x61, 4, 8, 15, 16, 24, 32, 640])
)
memory = st.tuples(
    st.just("memory"),
    st.integers(0xA0000, 0xBFFFF),
    st.integers(0, 2**64 - 1),
    st.sampled_from([1, 2, 4, 8]),
)
mapped = st.tuples(
    st.just("mapped"), st.integers(0x3F0, 0x520), st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4])
)
modes = st.tuples(
    st.just("mode"), st.sampled_from(["mode_12h", "mode_13h", "mode_4", "mode_6", "picture_on"])
)
times = st.tuples(st.just("time"), st.integers(0, 10**12))
actions = st.lists(ports | indexed | vbe | memory | mapped | modes | times, max_size=25)


def act(bench: Bench, action: tuple[Any, ...]) -> Any:
    kind, *rest = action
    if kind == "port":
        bench.ports.write(rest[0], rest[1], 1)
        return bench.ports.read(rest[0], 1)
    if kind in ("crtc", "sequencer", "graphics", "attribute"):
        port = {"crtc": CRTC, "sequencer": SEQUENCER, "graphics": GRAPHICS, "attribute": 0x3C0}[kind]
        bench.set(port, *rest)
        return bench.get(port, rest[0])
    if kind == "vbe":
        bench.set_vbe(*rest)
        return bench.vbe(rest[0])
    if kind == "memory":
        address, value, size = rest
        address = min(address, 0xC0000 - size)
        bench.memory.write(address, value & (1 << 8 * size) - 1, size)
        found = bench.memory.read(address, size)
        assert 0 <= found < 1 << 8 * size
        return found
    if kind == "mapped":
        offset, value, size = rest
        registers = VgaRegisters(bench.vga)
        registers.write(offset, value & (1 << 8 * size) - 1, size)
        return registers.read(offset, size)
    if kind == "mode":
        return getattr(bench, rest[0])()
    return bench.clock.skip(rest[0])


def small_bench() -> Bench:
    return Bench(vram=Vram(1 * MIB))


def check(bench: Bench) -> bytes:
    screen = bench.vga.screen()
    assert screen.pixels.shape == (screen.height, screen.width, 3)
    assert 1 <= screen.width <= 2560
    assert 1 <= screen.height <= 1600
    if screen.text is not None:
        assert 1 <= len(screen.text) <= 1024
        assert all(len(line) <= 256 for line in screen.text)
    return screen.pixels.tobytes()


@settings(max_examples=60, deadline=None)
@given(before=actions, after=actions)
def test_any_registers_have_a_picture_that_survives_saving(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    straight, broken = small_bench(), small_bench()
    for action in before:
        assert act(straight, action) == act(broken, action)
    broken = broken.restored()
    assert check(broken) == check(straight)
    for action in after:
        assert act(straight, action) == act(broken, action)
    assert check(broken) == check(straight)
    assert broken.vga.save() == straight.vga.save()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), after=actions)
def test_a_forged_state_has_a_picture(data: st.DataObject, after: list[tuple[Any, ...]]) -> None:
    fresh = small_bench()
    state = fresh.vga.save()
    for part in ("sequencer", "crtc", "graphics", "attribute"):
        size = len(state[part]["registers"])
        state[part]["registers"] = data.draw(st.binary(min_size=size, max_size=size))
        state[part]["index"] = data.draw(bytes_)
    state["attribute"]["palette_enabled"] = data.draw(st.booleans())
    state["vbe"]["registers"] = data.draw(st.lists(words, max_size=11))
    state["window"]["latches"] = data.draw(st.integers(0, 2**32 - 1))
    bench = fresh
    bench.vga.load(state)
    check(bench)
    for action in after:
        act(bench, action)
    check(bench)
