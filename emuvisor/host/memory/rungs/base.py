"""The interface of a rung of the ladder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.instructions import Instruction
from emuvisor.host.memory.use import GuestUse, HostUse

__all__ = ["Rung"]


class Rung(ABC):
    """One way of gaining frames. The plan says who owes how many; a rung says how they come.

    Rungs keep nothing between calls: what they answer follows from their arguments. The plan trims what would take
    a guest below its reservation.
    """

    name: str
    """What the log calls it."""
    state: HostState
    """It acts when the host is in this state or a worse one; and on guests above their limit at any time."""
    prompt: bool = False
    """Its frames are there when its instructions have been carried out; others come when guests get round to it."""

    def reach(self, _use: HostUse, _guest: GuestUse, /) -> int:
        """Frames that it could get out of this guest, at most."""
        return 0

    @abstractmethod
    def ask(self, use: HostUse, debts: Mapping[str, int], /) -> Sequence[Instruction]:
        """Instructions that gain the frames that guests owe, by name, or a part of them; the next rung sees the rest.
        Called also when nobody owes anything. Under `COMMON`, which is no guest's name, is what has to come from frames
        that several guests share."""

    def relax(self, _use: HostUse, _spare: int, /) -> Sequence[Instruction]:
        """Undo something: the host is in a better state than `state`, and has so many spare frames to give away."""
        return ()
