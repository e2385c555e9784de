"""Resizing a guest: what is refused, and what it does to the guest's claim to the host's memory.

The guest has no driver; the tests plug for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from emuvisor.errors import AdmissionError, StateError, UsageError
from emuvisor.host import Guest, Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB

SPIN = bytes.fromhex("ebfe")
BLOCK = 2 * MIB


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(16 * MIB, memory_policy=MemoryPolicy(overcommit=2)) as host:
        yield host


def make(host: Host, folder: Path, name: str = "g", most: int | None = 16 * MIB) -> Guest:
    path = folder / "spin.bin"
    path.write_bytes(SPIN)
    return host.create(
        GuestConfig(
            name=name,
            board="microvm",
            memory=8 * MIB,
            memory_max=most,
            balloon=True,
            flat=FlatConfig(path, 0x8000),
        )
    )


@pytest.fixture
def guest(host: Host, tmp_path: Path) -> Guest:
    return make(host, tmp_path)


def plug(guest: Guest, blocks: int) -> None:
    """What a driver does next."""
    ram = guest.memory.pluggable[0]
    ram.unplug_all()
    ram.plug(0, blocks)


def test_the_claim_follows_what_is_asked_for(guest: Guest) -> None:
    assert guest.memory_statistics().configured == 8 * MIB
    guest.resize(12 * MIB)
    assert (guest.memory_device.requested_size, guest.memory_device.plugged_size) == (4 * MIB, 0)
    assert guest.memory_statistics().configured == 12 * MIB
    plug(guest, 2)
    guest.resize(8 * MIB)
    assert guest.memory_device.requested_size == 0
    assert guest.memory_statistics().configured == 12 * MIB, "it still has it"
    plug(guest, 1)
    assert guest.contract.size == 10 * MIB
    plug(guest, 0)
    assert guest.contract.size == 8 * MIB


@pytest.mark.parametrize("size", [0, 8 * MIB - BLOCK, 9 * MIB, 16 * MIB + BLOCK])
def test_sizes_that_it_cannot_have(guest: Guest, size: int) -> None:
    with pytest.raises(UsageError) as error:
        guest.resize(size)
    assert (
        str(error.value)
        == f"guest 'g': a size of {size} bytes is impossible; it has 8 MiB to 16 MiB in steps of 2 MiB"
    )
    assert guest.memory_device.requested_size == 0


def test_a_guest_that_cannot_grow(host: Host, tmp_path: Path) -> None:
    guest = make(host, tmp_path, most=None)
    with pytest.raises(UsageError, match=r"^guest 'g' cannot be resized: it was made without a memory_max$"):
        guest.resize(16 * MIB)


def test_a_guest_that_is_gone(guest: Guest) -> None:
    guest.delete()
    with pytest.raises(StateError, match=r"^guest 'g' is gone; "):
        guest.resize(16 * MIB)


def test_sizes_that_the_host_cannot_promise(host: Host, guest: Guest, tmp_path: Path) -> None:
    make(host, tmp_path, "other").resize(16 * MIB)
    make(host, tmp_path, "third", None)
    guest.resize(8 * MIB)
    with pytest.raises(AdmissionError) as error:
        guest.resize(10 * MIB)
    assert str(error.value) == (
        "guest 'g': a size of 10 MiB is too much: 2 guests have 24 MiB, and the host's 16 MiB may be overcommitted 2 "
        "times, to 32 MiB; 8 MiB are left"
    )
    assert (guest.contract.size, guest.memory_device.requested_size) == (8 * MIB, 0)


def test_reservations_and_sizes(guest: Guest) -> None:
    with pytest.raises(UsageError, match=r"^a reservation of 10 MiB is impossible; the guest has 8 MiB$"):
        guest.set_memory(reservation=10 * MIB)
    guest.resize(12 * MIB)
    plug(guest, 2)
    guest.set_memory(reservation=10 * MIB)
    with pytest.raises(UsageError, match=r"^a reservation of 10 MiB is impossible; the guest has 8 MiB$"):
        guest.resize(8 * MIB)
    guest.resize(10 * MIB)
    with pytest.raises(UsageError, match=r"^a reservation of 12 MiB is impossible; the guest has 10 MiB$"):
        guest.set_memory(reservation=12 * MIB)
    assert (guest.contract.size, guest.contract.reservation) == (12 * MIB, 10 * MIB)


def test_a_balloon_of_what_was_plugged(guest: Guest) -> None:
    with pytest.raises(UsageError, match=r"^guest 'g': 9 MiB do not fit into its 8 MiB$"):
        guest.set_balloon(9 * MIB)
    guest.resize(12 * MIB)
    guest.set_balloon(9 * MIB)
    assert guest.memory_statistics().balloon_target == 9 * MIB


def test_a_reset_unplugs_and_the_wish_stays(guest: Guest) -> None:
    guest.start()
    guest.resize(12 * MIB)
    guest.pause()
    plug(guest, 2)
    guest.reset()
    assert (guest.memory_device.plugged_size, guest.memory_device.requested_size) == (0, 4 * MIB)
    plug(guest, 1)
    guest.stop()
    assert guest.memory_device.plugged_size == 0
