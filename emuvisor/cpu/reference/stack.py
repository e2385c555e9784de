"""The frame that an event leaves on its handler's stack."""

from dataclasses import dataclass

from emuvisor.cpu.reference.attempt import Attempt
from emuvisor.cpu.reference.paging import Access
from emuvisor.cpu.registers import SEG_BIG, SEG_EXPAND_DOWN
from emuvisor.cpu.state import Segment

__all__ = ["Frame"]


@dataclass
class Frame:
    """Words about to be pushed, the first one at the highest address.

    `segment` is None for a 64-bit stack; `word` is the size of one push in bytes; `cpl` the privilege level
    that the handler runs at.
    """

    segment: Segment | None
    pointer: int
    word: int
    cpl: int
    words: list[int]

    @property
    def _offset_mask(self) -> int:
        """The stack address size: the B bit chooses ESP or SP."""
        if self.segment is None:
            return (1 << 64) - 1
        return 0xFFFFFFFF if self.segment.flags & SEG_BIG else 0xFFFF

    def _offsets(self) -> list[int]:
        return [self.pointer - self.word * (i + 1) & self._offset_mask for i in range(len(self.words))]

    def fits(self) -> bool:
        """Whether every word lies within the limit; expand-down segments have their room above it."""
        assert self.segment is not None
        if self.segment.flags & SEG_EXPAND_DOWN:
            valid = range(self.segment.limit + 1, self._offset_mask + 1)
        else:
            valid = range(self.segment.limit + 1)
        return all(offset in valid and offset + self.word - 1 in valid for offset in self._offsets())

    def push(self, attempt: Attempt) -> int:
        """Write the words and return the new stack pointer. A fault leaves none of them written.

        At CPL 3 these are user accesses; otherwise they count as implicit supervisor accesses.
        """
        access = Access.WRITE | (Access.USER if self.cpl == 3 else Access.IMPLICIT)
        base = self.segment.base if self.segment else 0
        places = [
            attempt.translate(base + offset & (1 << 64) - 1, self.word, access) for offset in self._offsets()
        ]
        for pieces, value in zip(places, self.words, strict=True):
            attempt.write_pieces(pieces, (value & (1 << 8 * self.word) - 1).to_bytes(self.word, "little"))
        end = (self._offsets() or [self.pointer & self._offset_mask])[-1]
        return self.pointer & ~self._offset_mask | end
