"""The MultiProcessor table, by which kernels without ACPI find APICs (Intel MultiProcessor Specification 1.4)."""

import struct
from collections.abc import Iterator

from emuvisor.machine.tables.platform import Pci, Platform
from emuvisor.machine.tables.table_loader import checksum

__all__ = ["FLOATING_POINTER_SIZE", "configuration_table", "floating_pointer"]

SPECIFICATION_1_4 = 4
OEM_ID = b"EMUVISOR"
PRODUCT_ID = b"PC          "

# Floating pointer: signature, table's address, length in paragraphs, revision, checksum, feature bytes.
FLOATING_POINTER = struct.Struct("<4sIBBBBB3x")
FLOATING_POINTER_SIZE = FLOATING_POINTER.size
FLOATING_POINTER_CHECKSUM = 10
HAS_CONFIGURATION_TABLE = 0
IMCRP = 1 << 7
"""There is an IMCR, and the machine starts in PIC mode."""

HEADER = struct.Struct("<4sHBB8s12sIHHIHBx")
HEADER_CHECKSUM = 7

PROCESSOR = struct.Struct("<BBBBII8x")
BUS = struct.Struct("<BB6s")
IO_APIC = struct.Struct("<BBBBI")
INTERRUPT = struct.Struct("<BBHBBBB")
"""Type, interrupt type, flags, source bus, source IRQ, destination APIC, destination pin."""

TYPE_PROCESSOR = 0
TYPE_BUS = 1
TYPE_IO_APIC = 2
TYPE_IO_INTERRUPT = 3
TYPE_LOCAL_INTERRUPT = 4

INTERRUPT_INT = 0
INTERRUPT_NMI = 1
INTERRUPT_EXTINT = 3
CONFORMS = 0
ACTIVE_HIGH_LEVEL = 0b01 | 0b11 << 2

PROCESSOR_ENABLED = 1 << 0
BOOT_PROCESSOR = 1 << 1
LOCAL_APIC_VERSION = 0x14
IO_APIC_VERSION = 0x11
IO_APIC_ENABLED = 1 << 0
PROCESSOR_SIGNATURE = 0x600
"""Family 6; what it exactly is, CPUID says."""
PROCESSOR_FEATURES = 0x201
"""FPU and APIC."""

PCI_BUS = 0
"""Linux takes the number of the PCI bus for its number in configuration cycles."""
ALL_LOCAL_APICS = 0xFF
LINT0, LINT1 = 0, 1
ISA_IRQS = 16
IRQ_TIMER, TIMER_PIN = 0, 2
IRQ_CASCADE = 2
SLOTS = 32
PINS = 4


def floating_pointer(platform: Platform, table: int) -> bytes:
    """What the operating system looks for; `table` is the configuration table's address."""
    data = bytearray(
        FLOATING_POINTER.pack(
            b"_MP_", table, FLOATING_POINTER_SIZE // 16, SPECIFICATION_1_4, 0, HAS_CONFIGURATION_TABLE,
            IMCRP if platform.imcr else 0,
        )
    )  # fmt: skip
    data[FLOATING_POINTER_CHECKSUM] = checksum(data)
    return bytes(data)


def configuration_table(platform: Platform) -> bytes:
    """Processors, buses, the I/O APIC and where interrupts go."""
    entries = list(_entries(platform))
    body = b"".join(entries)
    no_table = no_length = no_extension = 0
    table = bytearray(
        HEADER.pack(
            b"PCMP", HEADER.size + len(body), SPECIFICATION_1_4, 0, OEM_ID, PRODUCT_ID, no_table, no_length,
            len(entries), platform.local_apic, no_extension, 0,
        )
        + body
    )  # fmt: skip
    table[HEADER_CHECKSUM] = checksum(table)
    return bytes(table)


def _entries(platform: Platform) -> Iterator[bytes]:
    isa_bus = PCI_BUS + 1 if platform.pci is not None else 0
    for cpu in range(platform.cpus):
        flags = PROCESSOR_ENABLED | (BOOT_PROCESSOR if cpu == 0 else 0)
        yield PROCESSOR.pack(
            TYPE_PROCESSOR, cpu, LOCAL_APIC_VERSION, flags, PROCESSOR_SIGNATURE, PROCESSOR_FEATURES
        )
    if platform.pci is not None:
        yield BUS.pack(TYPE_BUS, PCI_BUS, b"PCI   ")
    yield BUS.pack(TYPE_BUS, isa_bus, b"ISA   ")
    yield IO_APIC.pack(TYPE_IO_APIC, platform.io_apic_id, IO_APIC_VERSION, IO_APIC_ENABLED, platform.io_apic)
    if platform.pci is not None:
        yield from _pci_interrupts(platform.pci, platform.io_apic_id)
    for irq in range(ISA_IRQS):
        if irq != IRQ_CASCADE:
            flags = ACTIVE_HIGH_LEVEL if irq in platform.level_irqs else CONFORMS
            pin = TIMER_PIN if irq == IRQ_TIMER else irq
            yield INTERRUPT.pack(
                TYPE_IO_INTERRUPT, INTERRUPT_INT, flags, isa_bus, irq, platform.io_apic_id, pin
            )
    for kind, lint in ((INTERRUPT_EXTINT, LINT0), (INTERRUPT_NMI, LINT1)):
        yield INTERRUPT.pack(TYPE_LOCAL_INTERRUPT, kind, CONFORMS, isa_bus, 0, ALL_LOCAL_APICS, lint)


def _pci_interrupts(pci: Pci, io_apic_id: int) -> Iterator[bytes]:
    """Every slot's four pins."""
    for slot in range(1, SLOTS):
        for pin in range(1, PINS + 1):
            irq = pci.pirq[pci.pirq_of(slot, pin)]
            source = slot << 2 | pin - 1
            yield INTERRUPT.pack(
                TYPE_IO_INTERRUPT, INTERRUPT_INT, ACTIVE_HIGH_LEVEL, PCI_BUS, source, io_apic_id, irq
            )
