"""The autopilot: watches what guests want against what they get, and changes their claims to raise an objective.

objective.py    what is to be raised: throughput, fairness, or the latency of one guest
constraints.py  what it must leave alone, and how far it may go
observe.py      a host's counters, and the guests' knobs, as it sees them
view.py         one period of a host, as plain data
score.py        how well a guest fares, 0 to 100
entitlement.py  who is due how much of something that is divided
moves.py        one change of one knob, and its inverse
cpu_rules.py    what could be changed about pCPUs
pool_rules.py   what could be changed about memory, disks and network cards
trial.py        whether changes were worth it
plan.py         the decision, a pure function
log.py          every change, and why
autopilot.py    Autopilot: looks, plans, carries it out, and takes it back
"""

from emuvisor.host.autopilot.autopilot import Autopilot
from emuvisor.host.autopilot.constraints import Bounds, Constraints
from emuvisor.host.autopilot.log import Entry
from emuvisor.host.autopilot.moves import Knob
from emuvisor.host.autopilot.objective import Goal, Objective

__all__ = ["Autopilot", "Bounds", "Constraints", "Entry", "Goal", "Knob", "Objective"]
