"""Memory: one pool of host frames, and each guest's second stage of address translation over it.

pool.py    FramePool: the host's frames, with a hard limit; who refers to each
stage2.py  the states that a guest frame can be in, and the form of a stage-2 entry
slot.py    Slot, a run of guest frames, and what is noted about each page
store.py   PageStore, what keeps the content of pages that have no frame
compressed.py, slabs.py   CompressedStore, in the host's memory; the arena that it packs pages into
swapfile.py, swapslots.py, pagingfile.py   SwapFile, on its disk; which slots are taken; the file itself
backing.py Backing, how pages get host frames: thin provisioning, copy on write, the limit, pages from stores
reclaim.py Reclaimable, how they lose them: access sampling, stores, sharing, discarded and ballooned pages
shared_frames.py   taking frames away that several pages show, from all guests at once
sharing.py, pagehash.py, hints.py   PageSharing, which finds pages of equal content; by what hash; where it saw them
pluggable.py   PluggableRam, blocks of RAM that come and go while the guest runs
region.py  Region: memory of a device that moves about in the guest's address space (a BAR)
layout.py  whether two guests' memories are laid out alike
saved_layout.py   Layout and MemoryLoader, a guest's memory without its content, and made again from that
shadow.py  Shadow: RAM and ROM at the same addresses (PAM)
guest.py   GuestMemory: all of a guest's slots; layout, dirty log, clones; and reading and writing by guest
           physical address, as loaders and devices do it
"""

from emuvisor.memory.guest import DmaMemory, GuestMemory, PhysicalMemory
from emuvisor.memory.pluggable import PluggableRam
from emuvisor.memory.pool import FramePool, FrameUsers
from emuvisor.memory.region import Region
from emuvisor.memory.shadow import Shadow
from emuvisor.memory.stage2 import FrameState

__all__ = [
    "DmaMemory",
    "FramePool",
    "FrameState",
    "FrameUsers",
    "GuestMemory",
    "PhysicalMemory",
    "PluggableRam",
    "Region",
    "Shadow",
]
