"""Processors that wait for another one in a loop: how little of the guest's time they burn meanwhile.

The first processor holds a lock for as long as it takes to run a loop; the others spin until it is free.
"""

import pytest
from smp_rig import FLAG, POWER_OFF, START, STOP, Build, run

from emuvisor.machine import vcpus
from emuvisor.machine.outcome import Ending
from emuvisor.machine.vcpus import PAUSE_SLACK, PAUSE_WINDOW
from emuvisor.memory import FramePool

TURN = 100_000
HELD = 1_500_000
"""Bytes of code for which the lock is held: a round of the loop is three."""
LOCK, FREED, ARRIVED = FLAG, FLAG + 8, FLAG + 16
HOLDER = (
    f"mov byte ptr [{LOCK}], 1;"
    + START
    # Until all others spin, so that what is counted behind it is theirs.
    + f"a: pause; mov al, [{ARRIVED}]; cmp al, {{others}}; jne a;"
    + "out 0xe9, al;"
    + f"mov ecx, {HELD // 3}; h: dec ecx; jnz h;"
    + "out 0xe9, al;"
    + f"mov byte ptr [{LOCK}], 0;"
    + f"b: pause; cmp byte ptr [{FREED}], {{others}}; jne b;"
    + POWER_OFF
)
SPINNER = (
    f"lock inc byte ptr [{ARRIVED}]; s: {{pause}} cmp byte ptr [{LOCK}], 0; jne s;"
    f"lock inc byte ptr [{FREED}];" + STOP
)
POLL = 12
"""The spinner's loop, about."""


class Burnt:
    """What each processor retires while the first holds the lock, by its debug output at either end."""

    def __init__(self, build: Build, count: int, *, pause: bool, turn: int = TURN) -> None:
        self.machine = build(
            HOLDER.format(others=count - 1),
            SPINNER.format(pause="pause;" if pause else ""),
            vcpus=count,
            turn=turn,
        )
        self.stamps: list[list[int]] = []
        self.machine.debug.listeners.append(lambda _data: self._stamp())

    def _stamp(self) -> None:
        self.stamps.append([vcpu.work for vcpu in self.machine.vcpus])

    def run(self, pool: FramePool) -> tuple[int, int]:
        """What the holder retired while it held the lock, and what the others did."""
        assert run(self.machine, pool) == (Ending.POWER_OFF, "")
        before, after = self.stamps
        own, *others = (end - start for start, end in zip(before, after, strict=True))
        return own, sum(others)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_loop_around_pause_burns_a_window_for_each_turn_of_the_holder(
    build: Build, pool: FramePool, count: int
) -> None:
    own, others = Burnt(build, count, pause=True).run(pool)
    assert HELD <= own < 1.1 * HELD
    rounds = own // TURN + 2
    assert 0 < others <= rounds * (count - 1) * (PAUSE_WINDOW + PAUSE_SLACK)
    assert others / own < 0.03 * (count - 1)


@pytest.mark.parametrize("count", [2, 4])
def test_without_pause_it_burns_a_turn(build: Build, pool: FramePool, count: int) -> None:
    """So does a processor of whose wait nothing can be seen; but it is no more than everybody's share."""
    own, others = Burnt(build, count, pause=False).run(pool)
    rounds = own // TURN + 2
    assert (rounds - 3) * (count - 1) * TURN < others <= rounds * (count - 1) * (TURN + POLL)


def test_what_the_detection_of_pause_saves(
    build: Build, pool: FramePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, seen = Burnt(build, 4, pause=True).run(pool)
    monkeypatch.setattr(vcpus, "PAUSE_WINDOW", 0)
    own, unseen = Burnt(build, 4, pause=True).run(pool)
    assert unseen > 2 * own
    assert unseen > 30 * seen


def test_turns_shorter_than_the_window_are_divided_evenly(build: Build, pool: FramePool) -> None:
    own, others = Burnt(build, 3, pause=True, turn=PAUSE_WINDOW // 2).run(pool)
    assert others == pytest.approx(2 * own, rel=0.05)
