"""A second machine with the memory of the first, as a snapshot in the same pool would give it."""

from emuvisor.machine.machine import Machine
from emuvisor.memory.stage2 import FrameState


def share_memory(source: Machine, target: Machine) -> None:
    """Let `target`, which was built alike and has booted, see what `source` has in its memory."""
    old, new = source.memory, target.memory
    assert [len(slot.entries) for slot in new.slots] == [len(slot.entries) for slot in old.slots]
    for mine, theirs in zip(new.slots, old.slots, strict=True):
        new.release(mine.entries, FrameState.HOLE)
        mine.entries[:] = old.share(theirs.entries)
    for own, other in zip(new.shadows, old.shadows, strict=True):
        new.release(own.hidden, FrameState.HOLE)
        own.hidden[:] = old.share(other.hidden)
        own._read_ram[:] = other._read_ram
        own._write_ram[:] = other._write_ram
    for ours, region in zip(new.regions, old.regions, strict=True):
        ours.place(region.gpa)
    old.revoke()
    new.revoke()
