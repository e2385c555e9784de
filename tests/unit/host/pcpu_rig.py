"""What a host is to its pCPUs of either kind, with guests that only do what a test tells them."""

import re
import threading
from abc import ABC, abstractmethod

import pytest

from emuvisor.errors import HostError
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.policy import Policy
from emuvisor.machine.machine import Activity, Readiness

PATIENCE_S = 120
MS = 1_000_000
RUNNABLE = Activity(Readiness.RUNNABLE)
IDLE = Activity(Readiness.IDLE)


class Latest(Policy):
    """Who came last is first, and takes the pCPU away from who was there."""

    name = "latest"

    def key(self, entity):
        return -entity.queued_ns


class Broken(Policy):
    """Raises an exception when its time has come."""

    name = "broken"

    def __init__(self):
        super().__init__()
        self.fails = False

    def key(self, entity):
        if self.fails:
            raise KeyError(entity.name)
        return entity.queued_ns


class FakeGuest:
    def __init__(self, name, machine):
        self.name = name
        self.machine = machine
        self.on_pcpu = False
        self.leaving = 0
        self.cpu_ns = self.slices = 0
        self.failure = ""

    def __repr__(self):
        return self.name


class PcpuRig(ABC):
    """`kind` of pCPUs, and what the host is to them; `told` is what they told the scheduler, and when."""

    Guest = FakeGuest

    def __init__(self, kind, count, policy, **options):
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.failures = []
        self.pcpus = kind(
            count,
            policy or Policy(),
            pool="the pool",
            lock=self.lock,
            changed=self.changed,
            put_back=self.put_back,
            failed=self.failures.append,
            **{"slice_work": None} | options,
        )
        self.told = []
        self.pcpus.listeners.append(self.listen)

    def listen(self, now_ns, event, _answer):
        self.told.append((now_ns, event))

    def put_back(self, guest, activity, failure):
        guest.failure = failure
        self.changed.notify_all()  # for `until`
        return self.goes_on(guest, activity)

    @abstractmethod
    def goes_on(self, guest, activity):
        """What becomes of it; whether it wants to go on."""

    def add(self, name, machine, **claim):
        guest = self.Guest(name, machine)
        with self.lock:
            guest.entity = self.pcpus.admit(name, CpuClaim(**claim))
            self.pcpus.add(guest)
        return guest

    def queue(self, *guests):
        """In this order, before any of them runs."""
        with self.lock:
            for guest in guests:
                self.pcpus.queue(guest)

    def until(self, condition):
        with self.lock:
            assert self.changed.wait_for(condition, PATIENCE_S), self.told

    def close(self):
        with self.lock:
            self.pcpus.end()
            for guest in self.pcpus._guests.values():
                guest.machine.stop()
        self.pcpus.join()
        assert not any(thread.is_alive() for thread in self.pcpus._threads)


def refused(text):
    return pytest.raises(HostError, match=f"^{re.escape(text)}$")
