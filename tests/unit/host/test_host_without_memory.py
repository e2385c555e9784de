"""The operating system gives the process no more memory, or no more threads: one message, and all can be tried again.
With real limits: tests/system/test_host_memory_exhausted.py."""

import mmap
import re
import threading

import host_guests as guests
import pytest

from emuvisor.errors import HostError, OutOfFrames, PageLost
from emuvisor.host import GuestState, Host
from emuvisor.host.memory.carrying import Carrier
from emuvisor.host.memory.managed import Account
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import CompressionRung, PauseRung
from emuvisor.machine import machine
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import KIB, MIB

PATIENCE_S = 120


@pytest.fixture
def make(tmp_path):
    return guests.Maker(tmp_path)


@pytest.fixture
def scarce(monkeypatch):
    """scarce(name): threads called so are not given any more; scarce() ends that."""
    start = threading.Thread.start
    refused = set()

    def tight(thread):
        if thread.name in refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", tight)

    def scarce(*names):
        refused.clear()
        refused.update(names)

    return scarce


def refused(message):
    return pytest.raises(HostError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize(
    ("name", "clock"), [("pcpu0", "host"), ("pcpu1", "host"), ("timers", "host"), ("pcpu1", "virtual")]
)
def test_no_threads_for_the_processors(make, scarce, name, clock):
    with Host(MIB, pcpus=2, clock=clock) as host:
        guest = make(host, "g", guests.POWER_OFF)
        scarce(name)
        with refused(f"the host gives no thread for {name}"):
            guest.start()
        assert (guest.state, host.pool.used) == (GuestState.DEFINED, 0)
        scarce()
        guest.start()
        assert guest.wait(PATIENCE_S)
        assert guest.reason == "power-off"
        scarce(name)
        guest.start()
        assert guest.wait(PATIENCE_S), "they are there already"


def test_a_host_that_closes_without_its_threads(make, scarce):
    scarce("pcpu1")
    with Host(MIB, pcpus=2) as host, pytest.raises(HostError):
        make(host, "g", guests.POWER_OFF).start()
    assert host.pool.used == 0


def test_no_thread_for_the_memory_manager(make, scarce):
    """A guest that waits for a frame is paused; when there is a thread again, it gets one."""
    policy = MemoryPolicy(rungs=(CompressionRung(), PauseRung()), period_s=0.02)
    with Host(32 * KIB, memory_policy=policy) as host:
        guest = make(host, "g", guests.TOUCH + ";" + guests.POWER_OFF)
        scarce("memory")
        guest.start()
        assert guest.wait(PATIENCE_S)
        reason = "no memory: the host gives no thread for the memory manager"
        assert (guest.state, guest.reason) == (GuestState.PAUSED, reason)
        scarce()
        guest.resume()
        with host.lock:
            assert host.changed.wait_for(
                lambda: guest.reason.startswith("no memory: 0 of the host's"), PATIENCE_S
            )


def test_no_memory_for_a_guest(make, monkeypatch):
    def refuse(self, *arguments):
        raise MemoryError

    with Host(MIB) as host:
        with monkeypatch.context() as patch:
            patch.setattr(GuestMemory, "__init__", refuse)
            with refused("guest 'g': the host has no memory for it"):
                make(host, "g", guests.POWER_OFF)
        assert host.guests == {}
        guest = make(host, "g", guests.POWER_OFF)
        with monkeypatch.context() as patch:
            patch.setattr(machine, "boot_image", refuse)
            with refused("guest 'g': the host has no memory to read its boot image"):
                guest.start()
        assert (guest.state, host.pool.used) == (GuestState.DEFINED, 0)
        guest.start()
        assert guest.wait(PATIENCE_S)
        assert guest.reason == "power-off"


def test_no_address_space_for_an_engine(make, monkeypatch):
    """Unicorn would end the process."""
    with Host(MIB) as host:
        guest = make(host, "g", guests.POWER_OFF)
        with monkeypatch.context() as patch:
            patch.setattr(mmap, "mmap", _no_space)
            guest.start()
            assert guest.wait(PATIENCE_S)
            assert (guest.state, guest.reason) == (
                GuestState.CRASHED,
                "engine-error: the host does not give 96 MiB of address space for an engine: "
                "Cannot allocate memory",
            )
        guest.start()
        assert guest.wait(PATIENCE_S)
        assert guest.reason == "power-off"


def _no_space(*_):
    raise OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize("error", [OutOfFrames("none"), PageLost("gone")])
def test_a_balloon_whose_ring_cannot_be_used(error):
    """Asking it for statistics is no reason for the memory manager to fail: the guest will find out itself."""

    class Balloon:
        def request_statistics(self):
            raise error

    class Guest:
        memory = GuestMemory(FramePool(MIB), [(0, MIB)])
        balloon_device = Balloon()
        deterministic = False

    account = Account(Guest.memory)
    Carrier.sample(Guest, account, True)
    Carrier.sample(Guest, account, True)
    assert account.accessed == 0
