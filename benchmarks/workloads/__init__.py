"""One benchmark a file; `ALL` lists them in the order in which they run.

boot.py      process start to the first line of user space
system.py    a whole Debian from its disk to the login prompt
commands.py  system calls, fork and exec, a shell loop, sha256 in the booted guest
ide.py       reading and writing an IDE disk in the booted guest
disk.py      virtio disks in the booted guest: throughput, requests a second, CPU time
layers.py    freezing disks, and what layers cost
net.py       TCP between two guests, and between a guest and the host
vbe.py       frames a second of a guest that draws full screens
bare.py      a compute loop in emuvisor against Unicorn alone
exits.py     what each kind of VM exit costs
switch.py    what a switch between two guests costs
switch_parts.py  what it is made of
scale.py     many guests: throughput and memory
clone.py     clones of a booted guest: time and memory
reset.py     going back to a checkpoint, by pages written since
memory.py    scanning and sharing pages, stores and the way back from them, balloons
reserved.py  a guest within its reservation while others overcommit; the memory manager's CPU time
overcommit.py  four guests with 1 to 3 times the host's memory, for each rung of the ladder
scheduler.py  what a decision of the scheduler costs, by policy, and a thousand halted guests
fairness.py  how far guests are from what they are due, by policy
wakeup.py    how late a guest runs that its timer wakes
pcpus.py     two pCPUs against one
smp.py       Debian with 1, 2 and 4 vCPUs
limits.py    whether disks and cards get the bytes and operations that their limits say
autopilot.py what the autopilot gains over static splits of a host, in simulation
migration.py a Debian guest that moves between two processes: total, downtime, pages resent
snapshot.py  a Debian guest's snapshot: stop, writing, size, and how soon a restored one runs
"""

from benchmarks.curve import Curve
from benchmarks.harness import Benchmark
from benchmarks.workloads import fairness, overcommit, scheduler
from benchmarks.workloads.autopilot import Autopilot
from benchmarks.workloads.bare import Bare
from benchmarks.workloads.boot import Boot
from benchmarks.workloads.clone import Clone
from benchmarks.workloads.commands import Commands
from benchmarks.workloads.disk import Disk
from benchmarks.workloads.exits import Exits
from benchmarks.workloads.fairness import Fairness
from benchmarks.workloads.ide import Ide
from benchmarks.workloads.layers import Layers
from benchmarks.workloads.limits import Limits
from benchmarks.workloads.memory import Memory
from benchmarks.workloads.migration import Migration
from benchmarks.workloads.net import Net
from benchmarks.workloads.overcommit import Overcommit
from benchmarks.workloads.pcpus import TwoPcpus
from benchmarks.workloads.reserved import Reserved
from benchmarks.workloads.reset import Reset
from benchmarks.workloads.scale import Scale
from benchmarks.workloads.scheduler import Decisions
from benchmarks.workloads.smp import Smp
from benchmarks.workloads.snapshot import Snapshots
from benchmarks.workloads.switch import Switch
from benchmarks.workloads.switch_parts import SwitchParts
from benchmarks.workloads.system import System
from benchmarks.workloads.vbe import Vbe
from benchmarks.workloads.wakeup import Wakeup

__all__ = ["ALL", "CURVES"]

ALL: tuple[Benchmark, ...] = (
    Boot(),
    System(),
    Commands(),
    Ide(),
    Disk(),
    Layers(),
    Net(),
    Vbe(),
    Bare(),
    Exits(),
    Switch(),
    SwitchParts(),
    Scale(),
    Clone(),
    Reset(),
    Memory(),
    Reserved(),
    Overcommit(),
    Decisions(),
    Fairness(),
    Wakeup(),
    TwoPcpus(),
    Smp(),
    Limits(),
    Autopilot(),
    Snapshots(),
    Migration(),
)

CURVES: dict[str, Curve] = {
    Overcommit.name: overcommit.CURVE,
    Decisions.name: scheduler.CURVE,
    Fairness.name: fairness.CURVE,
}
"""The pictures, by the benchmark's name."""
