"""A guest that writes faster than its pages can be sent: it is slowed down until they can.

Time is the line's: it passes only while pages wait for the limit of the bandwidth, and as long as that lasts the guest
runs as much code as its cap lets it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.errors import MigrationError
from emuvisor.host import Guest, GuestState, Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.migration import Options, Phase, Source, Target
from emuvisor.migration.channel import Channel
from emuvisor.migration.throttle import CpuThrottle
from emuvisor.units import MIB, NS_PER_S

FIRST, PAGES = 0x10, 112
WRITER = bytes.fromhex(
    "b8 0010"  # again: mov ax, 1000h
    "8ec0 26a3 0000"  # next: mov es, ax; mov es:[0], ax
    "26ff06 0200"  # inc word es:[2]
    "05 0001 3d 0080 72ed"  # add ax, 100h; cmp ax, 8000h; jb next
    "ebe8"  # jmp again
)
"""Writes into each of `PAGES` pages from page `FIRST` on, for ever."""
CODE_PER_S = 8 * 19 * PAGES
"""Eight times all pages in a second."""
BANDWIDTH = MIB


class Time:
    """Passes while somebody sleeps; `guest` runs meanwhile, on a pCPU of the test's."""

    def __init__(self, guest: Guest) -> None:
        self.ns = 0
        self.asleep: Callable[[], object] = lambda: None
        self._guest = guest
        self._pcpu = Pcpu(guest.host.pool, guest.machine.model)

    def sleep(self, seconds: float) -> None:
        self.ns += int(seconds * NS_PER_S)
        self._guest.machine.run_slice(
            self._pcpu, int(CODE_PER_S * seconds * (self._guest.cpu_claim.cap or 100) / 100)
        )
        self.asleep()


@pytest.fixture
def here() -> Iterator[Host]:
    with Host(16 * MIB) as host:
        yield host


@pytest.fixture
def listening() -> Iterator[Target]:
    with Host(16 * MIB) as host, Target(host) as target:
        yield target


@pytest.fixture
def writer(here: Host, tmp_path: Path) -> Guest:
    """Paused; all its pages have been written."""
    image = tmp_path / "writer.bin"
    image.write_bytes(WRITER)
    flat = FlatConfig(image, firmware.FLAT_ADDRESS)
    guest = here.create(GuestConfig(name="writer", memory=4 * MIB, flat=flat, cpu_reservation=5.0))
    with here.lock:
        guest.start()
        guest.pause()
    guest.machine.run_slice(Pcpu(here.pool, guest.machine.model), 2_000_000)
    return guest


@pytest.fixture
def time(writer: Guest, monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time(writer)
    channel = partial(Channel, now_ns=lambda: made.ns, sleep=made.sleep)
    monkeypatch.setattr("emuvisor.migration.calling.Channel", channel)
    monkeypatch.setattr("emuvisor.migration.copier.time", SimpleNamespace(monotonic_ns=lambda: made.ns))
    return made


@pytest.mark.usefixtures("time")
def test_a_fast_writer_converges_by_throttling(writer: Guest, listening: Target) -> None:
    options = Options(bandwidth=BANDWIDTH, downtime_ms=100)
    seen = []
    done = Source(writer, listening.address, options).run(lambda now: seen.append(now.throttle))
    assert done.phase is Phase.MOVED
    assert [item.left >= PAGES for item in done.rounds[:3]] == [True] * 3
    assert len(done.rounds) < options.max_rounds
    assert 4096 * done.rounds[-1].left < BANDWIDTH * 0.08  # fits, beside what changing over takes by itself
    steps = sorted(set(seen))
    assert steps == [0, 20, *range(30, steps[-1] + 1, 10)]
    assert steps[-1] > 50
    moved = listening.receive(10)
    assert moved.cpu_claim.cap is None
    for page in range(PAGES):
        tag = int.from_bytes(moved.memory.read(FIRST + page << 12, 2), "little")
        assert tag == 0x1000 + 0x100 * page


@pytest.mark.usefixtures("time")
def test_without_throttling_it_does_not(writer: Guest, listening: Target) -> None:
    options = Options(bandwidth=BANDWIDTH, downtime_ms=100, throttle=False, max_rounds=6)
    done = Source(writer, listening.address, options).run()
    assert [item.left >= PAGES for item in done.rounds] == [True] * 6
    assert (done.phase, done.throttle) == (Phase.MOVED, 0)


def test_cancelled_in_the_middle_of_a_round(time: Time, writer: Guest, listening: Target) -> None:
    moving = Source(writer, listening.address, Options(bandwidth=BANDWIDTH))
    time.asleep = moving.cancel
    with pytest.raises(MigrationError, match=r"^guest 'writer' stays: cancelled$"):
        moving.run()
    assert moving.progress.rounds == ()
    assert writer.state is GuestState.PAUSED
    assert writer.memory.collect_pages().tolist() == []  # nobody notes any more what it writes


def test_a_throttle_leaves_what_is_reserved(writer: Guest) -> None:
    writer.set_cpu(cap=50.0, reservation=30.0)
    throttle = CpuThrottle(writer)
    caps = []
    for percent in (20, 50, 99):
        throttle.set(percent)
        caps.append(writer.cpu_claim.cap)
    assert caps == [40.0, 30.0, 30.0]
    throttle.end()
    assert (writer.cpu_claim.cap, writer.cpu_claim.reservation) == (50.0, 30.0)
