"""Memory as a resource: who may have how much of the host's frames, who gives when they run short, and how.

contract.py      MemoryContract, a guest's claim; admit: whether a host can promise it
host_state.py    HostState: how short frames are
use.py           GuestUse, HostUse: what the policy is told
activity.py      working sets, estimated
trust.py         which balloons can be relied on
history.py       observe: from one look to the next
entitlement.py   who gives: shares per page with the idle-memory tax
rungs/           how it is given: the ladder
instructions.py  what a plan consists of
plan.py          plan: from statistics to instructions
policy.py        MemoryPolicy: what people choose
manager.py       MemoryManager: looks, plans, has it carried out; managed.py what it sees of hosts and guests
carrying.py, scanning.py   carrying out a plan
stores.py        the stores of a host
given.py         what guests give on their own time: balloons, reports
decisions.py     the log; statistics.py, survey.py the statistics
sampler.py       looking at a host again and again
recording.py     the format of recordings, and reading them
recorder.py      writing one

docs/memory.md explains it all.
"""

from emuvisor.host.memory.contract import MemoryContract, admit
from emuvisor.host.memory.history import History, observe
from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.instructions import (
    Allow,
    Balloon,
    Instruction,
    Pause,
    Resume,
    ScanSharing,
    SendAway,
)
from emuvisor.host.memory.plan import plan
from emuvisor.host.memory.rungs import (
    BalloonRung,
    CompressionRung,
    PauseRung,
    Rung,
    SharingRung,
    StoreRung,
    SwapRung,
    default_rungs,
)
from emuvisor.host.memory.use import GuestUse, HostUse

__all__ = [
    "Allow",
    "Balloon",
    "BalloonRung",
    "CompressionRung",
    "GuestUse",
    "History",
    "HostState",
    "HostUse",
    "Instruction",
    "MemoryContract",
    "Pause",
    "PauseRung",
    "Resume",
    "Rung",
    "ScanSharing",
    "SendAway",
    "SharingRung",
    "StoreRung",
    "SwapRung",
    "admit",
    "default_rungs",
    "observe",
    "plan",
]
