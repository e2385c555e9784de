"""A PCI device of one's own: it squares numbers in the guest's memory, and interrupts when it has.

    offset  register of BAR 0 (memory, 16 bytes)
    0       address of a 64-bit number; writing it starts the work (needs bus mastering)
    8       interrupt status; writing 1 clears it

It interrupts by MSI where the guest has enabled that, else by INTA#.

    PYTHONPATH=examples emuvisor run --device user_pci_device:Squarer ...
"""

from emuvisor.devices.pci.bar import Bar
from emuvisor.devices.pci.function import PciFunction
from emuvisor.errors import UsageError
from emuvisor.machine.boards.plugins import FIRST_USER_SLOT, Slots

VENDOR, DEVICE = 0x1234, 0x5EED
PROCESSOR = 0x0B4000
ADDRESS, STATUS = 0, 8


class Squarer(PciFunction):
    def __init__(self) -> None:
        super().__init__(name="squarer", vendor=VENDOR, device=DEVICE, class_code=PROCESSOR, interrupt_pin=1)
        self.add_bar(0, Bar(size=16, space="memory", device=self, width=8))
        self.msi = self.add_msi()
        self.done = False

    @classmethod
    def plug(cls, board: Slots) -> "Squarer":
        if board.pci is None:
            raise UsageError("this board has no PCI bus")
        function = cls()
        board.pci.plug(function, board.pci.free_slot(FIRST_USER_SLOT))
        return function

    def read(self, offset: int, size: int) -> int:
        return int(self.done) if offset == STATUS else 0

    def write(self, offset: int, value: int, size: int) -> None:
        if offset == ADDRESS:
            number = int.from_bytes(self.dma_read(value, 8), "little")
            self.dma_write(value, (number * number % 2**64).to_bytes(8, "little"))
            self.done = True
            if not self.msi.notify():
                self.set_intx(True)
        elif offset == STATUS and value & 1:
            self.done = False
            self.set_intx(False)

    def reset(self) -> None:
        super().reset()
        self.done = False
