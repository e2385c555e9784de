"""The host's frame pool."""

import re

import numpy as np
import pytest

from emuvisor.errors import HostError, OutOfFrames, UsageError
from emuvisor.memory import FramePool
from emuvisor.memory.stage2 import MAX_FRAMES
from emuvisor.units import GIB, MIB, PAGE_SIZE


class Users:
    """Writes down what the CPUs are told."""

    def __init__(self):
        self.told = []

    def changed(self, frame, offset, length):
        self.told.append((frame, offset, length))


def array(*frames):
    return np.array(frames, np.uint32)


def exactly(text):
    return f"^{re.escape(text)}$"


def test_frames_are_zero_and_different():
    pool = FramePool(8 * PAGE_SIZE)
    frames = [pool.take() for _ in range(8)]
    assert len(set(frames)) == 8
    assert 0 not in frames, "frame 0 is nobody's"
    assert not pool.frames[frames].any()
    assert (pool.used, pool.free) == (8, 0)


def test_frame_0_is_ones():
    assert (FramePool(PAGE_SIZE).frames[0] == 0xFF).all()


def test_the_limit_is_hard():
    pool = FramePool(3 * PAGE_SIZE)
    for _ in range(3):
        pool.take()
    with pytest.raises(OutOfFrames, match=exactly("all 3 frames of the pool (12 KiB) are taken")):
        pool.take()
    with pytest.raises(OutOfFrames, match=exactly("all 3 frames of the pool (12 KiB) are taken")):
        pool.copy(1)
    assert (pool.used, pool.free) == (3, 0)


def test_a_frame_given_back_is_zero_again():
    pool = FramePool(PAGE_SIZE)
    frame = pool.take()
    pool.frames[frame] = 0x5A
    assert pool.release(array(frame)) == 1
    assert pool.take() == frame
    assert not pool.frames[frame].any()


def test_many_frames_given_back_are_zero_again():
    pool = FramePool(64 * PAGE_SIZE)
    frames = [pool.take() for _ in range(64)]
    pool.frames[frames] = 0x5A
    kept = frames[20]
    assert pool.release(array(*[f for f in frames if f != kept])) == 63
    assert (pool.frames[kept] == 0x5A).all()
    again = [pool.take() for _ in range(63)]
    assert not pool.frames[again].any()
    assert kept not in again


class Advised:
    """In place of the pool's memory: writes down what the operating system can have back."""

    def __init__(self):
        self.ranges = []

    def madvise(self, advice, start, length):
        self.ranges.append((start // PAGE_SIZE, length // PAGE_SIZE))


def test_long_runs_of_free_frames_go_back_to_the_operating_system():
    pool = FramePool(64 * PAGE_SIZE)
    frames = [pool.take() for _ in range(64)]
    first = frames[0]
    pool.memory = Advised()
    apart = [*frames[:16], *frames[17:32], *frames[33:60]]
    assert pool.release(array(*reversed(apart))) == 58
    assert pool.memory.ranges == [(first, 16), (first + 33, 27)], "15 frames are too few"
    assert pool.release(array(*frames[60:])) == 4
    assert len(pool.memory.ranges) == 2


def test_all_that_is_free_goes_back_when_asked():
    pool = FramePool(64 * PAGE_SIZE)
    pool.trim()
    frames = [pool.take() for _ in range(40)]
    pool.memory = Advised()
    pool.release(array(*reversed(frames[::2])), keep=True)
    assert pool.release_one(frames[1])
    assert pool.memory.ranges == []
    pool.trim()
    assert pool.memory.ranges == [(frames[0], 3), *((frame, 1) for frame in frames[4::2])]


def test_releasing_one_frame():
    pool = FramePool(2 * PAGE_SIZE)
    pool.users = Users()
    one, other = pool.take(), pool.take()
    pool.share(array(one))
    pool.fetched[one] = 1
    assert not pool.release_one(one), "it has another owner"
    assert not pool.release_one(pool.zero_frame), "it is nobody's"
    assert (pool.used, pool.users.told) == (2, [])
    assert pool.release_one(one)
    assert pool.release_one(other)
    assert pool.users.told == [(one, 0, PAGE_SIZE)], "only of this one a CPU may hold code"
    assert pool.used == 0
    assert {pool.take(), pool.take()} == {one, other}


def test_frames_that_hold_the_same():
    pool = FramePool(100 * PAGE_SIZE)
    frames, others = pool.take_many(40), pool.take_many(40)
    pool.frames[frames] = pool.frames[others] = np.arange(40, dtype=np.uint8)[:, None]
    assert pool.equal(frames, others).all()
    pool.frames[others[17], -1] ^= 1
    pool.frames[frames[39], 0] ^= 1
    assert np.flatnonzero(~pool.equal(frames, others)).tolist() == [17, 39]
    assert pool.equal(frames[:0], others[:0]).tolist() == []


def test_references():
    pool = FramePool(4 * PAGE_SIZE)
    a, b = pool.take(), pool.take()
    pool.share(array(a, b))
    pool.share(array(a))
    assert pool.references[[a, b]].tolist() == [3, 2]
    assert pool.release(array(a, b)) == 0
    assert pool.release(array(a, b)) == 1
    assert (pool.used, pool.references[a]) == (1, 1)
    assert pool.release(array(a)) == 1
    assert pool.used == 0


def test_copy():
    pool = FramePool(2 * PAGE_SIZE)
    frame = pool.take()
    pool.frames[frame] = 7
    copy = pool.copy(frame)
    pool.frames[frame] = 8
    assert (pool.frames[copy] == 7).all()
    assert pool.references[[frame, copy]].tolist() == [1, 1]


def test_cpus_hear_of_frames_that_they_have_code_of():
    pool = FramePool(4 * PAGE_SIZE)
    pool.users = users = Users()
    a, b, c = pool.take(), pool.take(), pool.take()
    pool.fetched[b] = 1
    pool.share(array(b))
    pool.release(array(a, b))
    assert users.told == [], "b is still somebody's"
    pool.release(array(b, c))
    assert users.told == [(b, 0, PAGE_SIZE)]


@pytest.mark.parametrize("limit", [0, 4095, -1, MAX_FRAMES * PAGE_SIZE])
def test_impossible_limits(limit):
    with pytest.raises(UsageError) as error:
        FramePool(limit)
    assert str(error.value) == (
        f"a frame pool of {limit} bytes is impossible; it has at least 4 KiB and less than 64 GiB"
    )


def test_an_odd_limit_is_rounded_down():
    assert FramePool(3 * PAGE_SIZE + 1).limit == 3


def test_a_large_pool_costs_nothing_until_touched():
    pool = FramePool(16 * GIB)
    assert pool.limit == 16 * GIB // PAGE_SIZE
    frame = pool.take()
    pool.frames[frame] = 1
    assert pool.used == 1
    assert pool.frames.nbytes > MIB


def test_a_host_that_gives_no_address_space(monkeypatch):
    def refuse(*args):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("emuvisor.memory.pool.mmap.mmap", refuse)
    with pytest.raises(HostError) as error:
        FramePool(MIB - PAGE_SIZE)
    assert (
        str(error.value) == "the host does not give 1 MiB of address space: [Errno 12] Cannot allocate memory"
    )
