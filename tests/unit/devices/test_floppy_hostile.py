"""Whatever a guest writes to the floppy controller: it never raises, its work is bounded, and saving it changes
nothing. And what a driver writes is what it reads."""

from typing import Any

from device_rigs import Rig
from floppy_fakes import FakeFloppy
from floppy_rig import (
    BUFFER,
    DMA_FROM_MEMORY,
    DMA_TO_MEMORY,
    READ,
    READ_DELETED,
    SECTOR,
    VERIFY,
    WRITE,
    WRITE_DELETED,
    FloppyDriver,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

OPCODES = (
    READ,
    WRITE,
    VERIFY,
    READ_DELETED,
    WRITE_DELETED,
    0x46,
    0x45,
    0x4D,
    0x4A,
    0x0F,
    0x07,
    0x8F,
    0x08,
    0x13,
    0x03,
)
small = st.sampled_from((0, 1, 2, 2, 3, 4, 17, 18, 19, 0x80, 0xFF)) | st.integers(0, 0xFF)

Action = tuple[Any, ...]
commands = st.tuples(st.just("command"), st.sampled_from(OPCODES), st.lists(small, min_size=8, max_size=8))
ports = st.tuples(
    st.just("write"), st.sampled_from((2, 2, 3, 4, 5, 7)), st.sampled_from((0x00, 0x0C, 0x1C)) | small
)
reads = st.tuples(st.just("read"), st.integers(0, 7), st.integers(1, 600))
times = st.tuples(st.just("time"), st.sampled_from((1, 25_000, 300_000, 10**9)))
dma = st.tuples(st.just("dma"), st.sampled_from((DMA_TO_MEMORY, DMA_FROM_MEMORY)), st.integers(1, 0x1_0000))
fills = st.tuples(st.just("fill"), st.integers(0, 0xFF), st.integers(1, 600))
scripts = st.lists(commands | ports | reads | times | dma | fills, max_size=30)

LONGEST = 100
"""More than the timers that what is under way can arm: two tracks' sectors, four seeks, a reset."""


def act(driver: FloppyDriver, action: Action) -> Any:
    kind, *values = action
    if kind == "command":
        opcode, operands = values
        for value in (opcode, *operands):
            driver.chip.write(5, value, 1)
    elif kind == "write":
        driver.chip.write(*values, 1)
    elif kind == "read":
        offset, count = values
        return [driver.chip.read(offset, 1) for _ in range(count)]
    elif kind == "fill":
        value, count = values
        for _ in range(count):
            driver.chip.write(5, value, 1)
    elif kind == "dma":
        driver.program_dma(*values)
    else:
        return driver.rig.pass_ns(values[0])
    return None


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=scripts, after=scripts)
def test_saving_in_the_middle_of_a_command_changes_nothing(before: list[Action], after: list[Action]) -> None:
    straight, broken = FloppyDriver(Rig("floppy")).start(), FloppyDriver(Rig("floppy")).start()
    for action in before:
        assert act(straight, action) == act(broken, action)
    broken = broken.restored()
    assert broken.rig.save() == straight.rig.save()
    for action in after:
        assert act(straight, action) == act(broken, action)
    assert broken.rig.save() == straight.rig.save()
    assert broken.rig.wires.log == straight.rig.wires.log
    assert (broken.disk.written, broken.ram) == (straight.disk.written, straight.ram)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=scripts)
def test_every_command_ends(script: list[Action]) -> None:
    driver = FloppyDriver(Rig("floppy")).start()
    for action in script:
        act(driver, action)
    for _ in range(LONGEST):
        if driver.rig.pass_ns(10**9) == 0:
            break
    assert driver.rig.wires.clock.next_deadline_ns() is None


writes = st.tuples(
    st.integers(0, 79),
    st.integers(0, 1),
    st.integers(1, 18),
    st.integers(1, 20),
    st.binary(min_size=1, max_size=8),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(writes, min_size=1, max_size=6), through_fifo=st.booleans())
def test_what_is_written_is_read(steps: list[tuple[int, int, int, int, bytes]], through_fifo: bool) -> None:
    driver = FloppyDriver(Rig("floppy")).start()
    image = bytearray(FakeFloppy().read(0, 2880))
    if through_fifo:
        driver.send(0x03, 0xAF, 0x03)
    for cylinder, head, sector, wanted, pattern in steps:
        first = (cylinder * 2 + head) * 18 + sector - 1
        in_cylinder = (1 - head) * 18 + 19 - sector
        count = in_cylinder if through_fifo else min(wanted, in_cylinder)
        data = (pattern * SECTOR)[: count * SECTOR].ljust(count * SECTOR, pattern[:1])
        driver.seek(cylinder)
        if through_fifo:
            driver.command(WRITE, cylinder, head, sector)
            for start in range(0, len(data), SECTOR):
                driver.wait()
                driver.send(*data[start : start + SECTOR])
            driver.wait()
            driver.results()
        else:
            driver.ram[BUFFER : BUFFER + len(data)] = data
            driver.program_dma(DMA_FROM_MEMORY, len(data))
            assert driver.transfer(WRITE, cylinder, head, sector)[0] & 0xC0 == 0
        image[first * SECTOR : first * SECTOR + len(data)] = data
    driver.send(0x03, 0xAF, 0x02)
    for cylinder, *_ in steps:
        driver.seek(cylinder)
        driver.program_dma(DMA_TO_MEMORY, 36 * SECTOR)
        assert driver.transfer(READ, cylinder, 0, 1)[0] & 0xC0 == 0
        assert driver.memory(36 * SECTOR) == image[cylinder * 36 * SECTOR : (cylinder + 1) * 36 * SECTOR]
    assert driver.disk.read(0, 2880) == image
