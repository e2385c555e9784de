"""Stolen time as a guest's kernel is told of it: how long each vCPU wanted to run and did not.

The protocol is KVM's, which kernels know best. A vCPU names the address of its record in MSR_KVM_STEAL_TIME, which the
core keeps (`Vcpu.steal_time`); the machine writes the record before the vCPU goes on, when there is something new.

Source: Linux, Documentation/virt/kvm/x86/msr.rst.
"""

import struct
import time
from collections.abc import Callable
from typing import Final

from emuvisor.cpu.vcpu import Vcpu
from emuvisor.errors import GuestAddressError
from emuvisor.memory import PhysicalMemory

__all__ = ["BusyClock", "StealTime"]

ENABLED: Final = 1
ADDRESS_MASK: Final = ~63
"""A record has 64 bytes at a multiple of 64, so it lies in one page."""
RECORD: Final = struct.Struct("<QI")
"""What is written of it: the stolen time in ns and the version. Behind them are flags and a mark for preempted vCPUs,
which we leave as they are."""
STEAL_MASK: Final = 2**64 - 1
VERSION_MASK: Final = 2**32 - 1


class StealTime:
    """What `vcpu` is told, in `memory`, of the time that was stolen from it."""

    def __init__(self, vcpu: Vcpu, memory: PhysicalMemory) -> None:
        self.pending_ns = 0
        """What it is to be told yet."""
        self._vcpu = vcpu
        self._memory = memory

    def tell(self) -> None:
        """Add what is pending to the guest's record, if it has one. Only while none of its vCPUs runs.

        Raises OutOfFrames and PageLost, as any access to the page may; then it is pending still.
        """
        register = self._vcpu.steal_time
        if register & ENABLED:
            address = register & ADDRESS_MASK
            try:
                steal, version = RECORD.unpack(self._memory.read(address, RECORD.size))
                # Odd versions say that the record is being written. Nobody can look at it now: a reader that was
                # interrupted sees that the version is another one, and reads again.
                version = (version | 1) + 1
                record = RECORD.pack(steal + self.pending_ns & STEAL_MASK, version & VERSION_MASK)
                self._memory.write(address, record)
            except GuestAddressError:
                pass  # it is not RAM, which harms the guest alone
        self.pending_ns = 0


class BusyClock:
    """Host time in which a guest has a pCPU, between `start` and `stop`, or waits for one, by `wait`: what passes for
    those of its vCPUs that want to run. Else it stands still."""

    def __init__(self, source: Callable[[], int] = time.perf_counter_ns) -> None:
        self._source = source
        self._stopped = True
        self._stopped_ns = 0
        self._behind_ns = 0
        """What `source` is ahead of it."""

    def now_ns(self) -> int:
        """The time."""
        return self._stopped_ns if self._stopped else self._source() - self._behind_ns

    def start(self) -> None:
        """The guest has a pCPU."""
        self._behind_ns = self._source() - self._stopped_ns
        self._stopped = False

    def stop(self) -> None:
        """It has left it."""
        self._stopped_ns = self.now_ns()
        self._stopped = True

    def wait(self, ns: int) -> None:
        """Before the last `start`, it wanted a pCPU for `ns` and had none."""
        self._behind_ns -= ns
