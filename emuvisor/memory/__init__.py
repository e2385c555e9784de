"""Memory: one pool of host frames, and each guest's second stage of address translation over it.

pool.py    FramePool: the host's frames, with a hard limit; who refers to each
stage2.py  the states that a guest frame can be in, and the form of a stage-2 entry
guest.py   GuestMemory: what a guest's frames are backed by; thin provisioning, copy on write, dirty log;
           and reading and writing by guest physical address, as loaders and devices do it
"""

from emuvisor.memory.guest import GuestMemory, PhysicalMemory
from emuvisor.memory.pool import FramePool, FrameUsers
from emuvisor.memory.stage2 import FrameState

__all__ = ["FramePool", "FrameState", "FrameUsers", "GuestMemory", "PhysicalMemory"]
