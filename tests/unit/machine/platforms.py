"""Platforms for the tests of their tables."""

from emuvisor.machine.memory_map import MemoryMap
from emuvisor.machine.tables import aml
from emuvisor.machine.tables.platform import IsaDevice, Pci, Platform, PowerBlock, SleepRegisters
from emuvisor.units import GIB, MIB

COM1 = IsaDevice("COM1", "PNP0501", ((0x3F8, 8),), 4, uid=1)


def pc(cpus: int = 1) -> Platform:
    return Platform(
        memory_map=MemoryMap.for_ram(5 * GIB),
        power=PowerBlock(),
        cpus=cpus,
        hpet=0xFED00000,
        pci=Pci(),
        imcr=True,
        i8042=True,
        vga=True,
        isa=(
            COM1,
            IsaDevice("FDC0", "PNP0700", ((0x3F2, 4), (0x3F7, 1)), 6, 2),
            IsaDevice("FWCF", "QEMU0002", ((0x510, 12),)),
        ),
        devices=aml.device("MINE", aml.name("_HID", aml.eisa_id("EMU0001"))),
    )


def microvm() -> Platform:
    return Platform(memory_map=MemoryMap.for_ram(64 * MIB), power=SleepRegisters(), isa=(COM1,))


def bare() -> Platform:
    """Neither 8259s nor a clock."""
    return Platform(memory_map=MemoryMap.for_ram(64 * MIB), power=SleepRegisters(), pic=False, rtc=False)
