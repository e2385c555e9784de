"""Putting a boot image into a guest's memory, in steps that can be tried again when frames have run out."""

from emuvisor.errors import OutOfFrames
from emuvisor.machine.boards.wiring import Board
from emuvisor.machine.loaders.boot import Boot, Piece
from emuvisor.memory import GuestMemory
from emuvisor.units import MIB, PAGE_SIZE

__all__ = ["Loading"]

STEP = MIB


class Loading:
    """`boot` on its way into `memory`: empty memory, the chips of `board` reset, ROMs, then piece by piece."""

    def __init__(self, boot: Boot, memory: GuestMemory, board: Board) -> None:
        self.boot = boot
        self._memory = memory
        self._board = board
        self._pieces: list[Piece] | None = None
        """What is left, the next one last; None before memory is empty."""
        self._done = 0
        """Bytes of the last of them that are in memory."""

    @property
    def needed(self) -> int:
        """Frames without which it does not go on: for all ROMs at once, then for a page at a time."""
        if self._pieces is not None:
            return 1
        return 1 + sum(-(-len(rom.data) // PAGE_SIZE) for rom in self.boot.roms)

    def run(self) -> None:
        """Do what is left. Raises OutOfFrames where there is no frame for it; called again, it goes on there."""
        boot = self.boot
        if self._pieces is None:
            self._memory.reset()
            self._board.reset()
            self._board.load_roms(boot.roms, boot.programs_chipset)
            tables = () if boot.programs_chipset else self._board.tables()
            self._pieces = [*boot.pieces, *tables][::-1]
        while self._pieces:
            piece = self._pieces[-1]
            while self._done < len(piece.data):
                self._write(piece)
            self._pieces.pop()
            self._done = 0

    def _write(self, piece: Piece) -> None:
        """The next step of `piece`. Where it finds no frame, page by page: a page that has been written is not written
        again, for the host may put it elsewhere before it has found a frame for the next one."""
        data = memoryview(piece.data)
        gpa = piece.gpa + self._done
        step = data[self._done : self._done + STEP]
        try:
            self._memory.write(gpa, step)
        except OutOfFrames:
            step = step[: PAGE_SIZE - gpa % PAGE_SIZE]
            self._memory.write(gpa, step)
        self._done += len(step)
