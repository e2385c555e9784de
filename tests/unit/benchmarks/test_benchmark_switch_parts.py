"""What a switch is made of, on small guests."""

from contextlib import ExitStack
from pathlib import Path

from benchmarks.bare_guests import COMPUTE, config
from benchmarks.guests import machine
from benchmarks.harness import Context, Settings
from benchmarks.workloads.switch_parts import SwitchParts, parts
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.memory import FramePool
from emuvisor.units import MIB


def test_a_slice_after_each_part_of_a_switch(tmp_path: Path) -> None:
    pool = FramePool(16 * MIB)
    pcpu = Pcpu(pool)
    with ExitStack() as stack:
        guest, other = (
            stack.enter_context(machine(config(tmp_path, name, COMPUTE), pool)) for name in ("guest", "other")
        )
        found = parts(guest, other, pcpu, 10_000, 2)
    assert list(found) == [
        "slice after one of the same guest",
        "more after the TLB was emptied",
        "more after the L2 cache was emptied",
        "more after both",
        "more after a slice of another guest",
        "more TLB fills after a slice of another guest",
    ]
    assert found["slice after one of the same guest"] > 0
    assert found["more TLB fills after a slice of another guest"] > 0


def test_it_needs_an_image() -> None:
    context = Context(Settings(quick=True))
    with SwitchParts().tasks(context) as tasks:
        assert tasks == []
    assert context.notices == ["switch-parts is skipped: no Debian image; run `emuvisor images pull debian`"]
