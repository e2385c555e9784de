"""One benchmark a file; `ALL` lists them in the order in which they run.

boot.py      process start to the first line of user space
commands.py  system calls, fork and exec, a shell loop, sha256 in the booted guest
bare.py      a compute loop in emuvisor against Unicorn alone
exits.py     what each kind of VM exit costs
switch.py    what a switch between two guests costs
scale.py     many guests: throughput and memory
"""

from benchmarks.harness import Benchmark
from benchmarks.workloads.bare import Bare
from benchmarks.workloads.boot import Boot
from benchmarks.workloads.commands import Commands
from benchmarks.workloads.exits import Exits
from benchmarks.workloads.scale import Scale
from benchmarks.workloads.switch import Switch

__all__ = ["ALL"]

ALL: tuple[Benchmark, ...] = (Boot(), Commands(), Bare(), Exits(), Switch(), Scale())
