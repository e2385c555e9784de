import pytest

from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.vm_generation import ID_LENGTH, VmGenerationId
from emuvisor.errors import SnapshotError, UsageError

FIRST, SECOND = bytes(range(ID_LENGTH)), bytes(range(0x80, 0x80 + ID_LENGTH))


class Bench:
    def __init__(self, identifier: bytes = FIRST) -> None:
        self.levels: list[bool] = []
        self.chip = VmGenerationId(identifier=identifier, irq=InterruptLine(self.levels.append))

    def read(self) -> bytes:
        return b"".join(self.chip.read(offset, 4).to_bytes(4, "little") for offset in range(0, ID_LENGTH, 4))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_guest_reads_it_and_cannot_write_it(bench: Bench) -> None:
    for size in (1, 2, 4, 8):
        assert bench.chip.read(8, size) == int.from_bytes(FIRST[8 : 8 + size], "little")
    bench.chip.write(0, 0xFFFF_FFFF, 4)
    assert (bench.read(), bench.levels) == (FIRST, [])


def test_a_change_is_an_edge_until_the_guest_looks(bench: Bench) -> None:
    bench.chip.change(SECOND)
    assert bench.levels == [True]
    assert (bench.read(), bench.levels) == (SECOND, [True, False])


def test_a_change_before_the_guest_has_looked_is_one_more_edge(bench: Bench) -> None:
    bench.chip.change(SECOND)
    bench.chip.change(FIRST)
    assert (bench.levels, bench.chip.identifier) == ([True, False, True], FIRST)


def test_it_outlives_a_reset(bench: Bench) -> None:
    bench.chip.change(SECOND)
    bench.chip.reset()
    assert (bench.read(), bench.levels) == (SECOND, [True, False])


def test_a_restored_one_has_yet_to_be_looked_at(bench: Bench) -> None:
    bench.chip.change(SECOND)
    copy = Bench()
    copy.chip.load(bench.chip.save())
    assert copy.levels == [True]
    assert (copy.read(), copy.levels) == (SECOND, [True, False])


def test_other_lengths_are_refused(bench: Bench) -> None:
    with pytest.raises(UsageError) as error:
        bench.chip.change(b"123")
    assert str(error.value) == "vm-generation-id: 3 bytes; a generation ID has 16"
    assert bench.chip.identifier == FIRST
    with pytest.raises(UsageError):
        Bench(b"")
    state = bench.chip.save()
    state["identifier"] = b"123"
    with pytest.raises(SnapshotError) as refused:
        bench.chip.load(state)
    assert str(refused.value) == (
        "vm-generation-id: saved field 'identifier' is b'123'; expected 16 to 16 bytes"
    )
