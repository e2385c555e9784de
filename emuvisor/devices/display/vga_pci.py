"""The display adapter as a PCI function, with the identity and the layout by which drivers know Bochs's and QEMU's.

BAR 0 is the linear framebuffer. BAR 2 has the registers in memory, for machines without the ports: the VGA's from
3C0h on at 400h, those of Bochs VBE at 500h, 16 bits each. (QEMU documentation, "VGA compatible device".)
"""

from emuvisor.devices.display.vga import PORTS_LENGTH, Vga
from emuvisor.devices.pci.bar import Bar, Region
from emuvisor.devices.pci.function import PciFunction
from emuvisor.units import PAGE_SIZE

__all__ = ["VgaFunction", "VgaRegisters"]

VENDOR = 0x1234
DEVICE = 0x1111
CLASS_VGA = 0x030000

FRAMEBUFFER_BAR = 0
REGISTERS_BAR = 2
REGISTERS_SIZE = PAGE_SIZE
REGISTERS_WIDTH = 4

VGA_REGISTERS = 0x400
FIRST_PORT = 0x10
"""Port 3C0h, counted from 3B0h."""
VGA_COUNT = PORTS_LENGTH - FIRST_PORT
VBE_REGISTERS = 0x500
VBE_SIZE = 0x16


class VgaRegisters:
    """BAR 2: registers of `vga` in memory. The rest of the page reads 0: there is no EDID."""

    name = "vga registers"

    def __init__(self, vga: Vga) -> None:
        self._vga = vga

    def read(self, offset: int, size: int) -> int:
        """VGA registers byte by byte, VBE registers as words."""
        return sum(self._read_byte(offset + i) << 8 * i for i in range(size))

    def _read_byte(self, offset: int) -> int:
        if 0 <= offset - VGA_REGISTERS < VGA_COUNT:
            return self._vga.read(offset - VGA_REGISTERS + FIRST_PORT, 1)
        if 0 <= offset - VBE_REGISTERS < VBE_SIZE:
            index, byte = divmod(offset - VBE_REGISTERS, 2)
            return self._vga.vbe.read_register(index) >> 8 * byte & 0xFF
        return 0

    def write(self, offset: int, value: int, size: int) -> None:
        """VGA registers byte by byte, VBE registers as words; single bytes of the latter are ignored."""
        if 0 <= offset - VGA_REGISTERS < VGA_COUNT:
            for i in range(min(size, VGA_REGISTERS + VGA_COUNT - offset)):
                self._vga.write(offset + i - VGA_REGISTERS + FIRST_PORT, value >> 8 * i & 0xFF, 1)
        elif 0 <= offset - VBE_REGISTERS < VBE_SIZE and not offset & 1:
            for i in range(0, size - 1, 2):
                self._vga.vbe.write_register((offset + i - VBE_REGISTERS) // 2, value >> 8 * i & 0xFFFF)

    def reset(self) -> None:
        """The adapter has its own."""


class VgaFunction(PciFunction):
    """`vga` on a PCI bus. `vram` is what `vga` was given, `rom` the video BIOS; without one there is no ROM."""

    def __init__(self, *, vga: Vga, vram: Region, rom: bytes | None = None) -> None:
        super().__init__(name="vga-pci", vendor=VENDOR, device=DEVICE, class_code=CLASS_VGA)
        self.add_bar(FRAMEBUFFER_BAR, Bar(vram.length, "memory", region=vram, prefetchable=True))
        registers = Bar(REGISTERS_SIZE, "memory", device=VgaRegisters(vga), width=REGISTERS_WIDTH)
        self.add_bar(REGISTERS_BAR, registers)
        if rom is not None:
            self.add_rom(rom, "VGA BIOS")
