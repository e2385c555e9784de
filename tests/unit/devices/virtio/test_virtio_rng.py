"""The entropy device: whole buffers of random bytes, bounded, and the same again from the same seed."""

import pytest
from driver import RAM, RING_IDS, RINGS, Driver
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.virtio.rng import BYTES_PER_REQUEST, Rng
from emuvisor.errors import SnapshotError

QUEUE = 0


def counting(length):
    return bytes(i & 0xFF for i in range(length))


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_whole_chains_are_filled(ring):
    driver = Driver(Rng(name="rng", source=counting), **ring)
    assert driver.request(QUEUE, b"", [3, 5, 4096]) == counting(4104)
    assert driver.request(QUEUE, b"ignored", [2]) == b"\0\1"
    assert driver.device.answered == 2


def test_a_request_has_a_limit():
    driver = Driver(Rng(name="rng", source=counting))
    assert driver.request(QUEUE, b"", [BYTES_PER_REQUEST, 10]) == counting(BYTES_PER_REQUEST)


def test_a_request_without_room_gets_nothing():
    driver = Driver(Rng(name="rng", source=counting))
    assert driver.request(QUEUE, b"nowhere to put it") == b""


def test_a_seed_makes_the_same_bytes_in_every_run():
    first, second = (Driver(Rng(name="rng", seed="guest-1")) for _ in range(2))
    other = Driver(Rng(name="rng", seed="guest-2"))
    run = [first.request(QUEUE, b"", [32]) for _ in range(3)]
    assert [second.request(QUEUE, b"", [32]) for _ in range(3)] == run
    assert len(set(run)) == 3
    assert other.request(QUEUE, b"", [32]) not in run


def test_a_restored_guest_goes_on_in_the_sequence():
    straight, saved, restored = (Driver(Rng(name="rng", seed="x")) for _ in range(3))
    run = [straight.request(QUEUE, b"", [16]) for _ in range(2)]
    assert saved.request(QUEUE, b"", [16]) == run[0]
    restored.device.load_device(saved.device.save_device())
    assert restored.request(QUEUE, b"", [16]) == run[1]


def test_a_state_that_is_not_its_own():
    rng = Rng(name="rng")
    with pytest.raises(SnapshotError, match=r"^the saved state is of device 'other', not 'virtio-rng'$"):
        rng.load_device({"device": "other", "version": 1})


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.integers(0, (1 << 64) - 1) | st.integers(0, RAM), st.integers(0, (1 << 32) - 1)),
        min_size=1,
        max_size=8,
    )
)
def test_wild_buffers(parts):
    driver = Driver(Rng(name="rng", source=counting))
    driver.add_parts(QUEUE, [], parts)
    driver.kick(QUEUE)
    driver.setup()
    assert driver.request(QUEUE, b"", [4]) == counting(4)
