"""A device of one's own on the ISA bus: an adding machine at ports 300h to 307h.

A guest writes numbers to port 300h and reads their sum at 304h; more than 16 bits raise interrupt 5.

    PYTHONPATH=examples emuvisor run --device user_device:AddingMachine ...
"""

from emuvisor.bus.irq import InterruptLine
from emuvisor.machine.boards.plugins import Slots

PORTS = (0x300, 8)
IRQ = 5
NUMBER, SUM = 0, 4


class AddingMachine:
    name = "adding machine"

    def __init__(self, irq: InterruptLine) -> None:
        self.irq = irq
        self.sum = 0

    @classmethod
    def plug(cls, board: Slots) -> "AddingMachine":
        device = cls(board.isa.input(IRQ, cls.name))
        board.ports.attach(*PORTS, device, width=4)
        return device

    def read(self, offset: int, size: int) -> int:
        return self.sum if offset == SUM else 0

    def write(self, offset: int, value: int, size: int) -> None:
        if offset == NUMBER:
            self.sum = (self.sum + value) & 0xFFFF_FFFF
            self.irq.set(self.sum > 0xFFFF)

    def reset(self) -> None:
        self.sum = 0
        self.irq.set(False)
