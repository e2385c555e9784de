"""Boards: which chip sits where. A board is the only place that knows addresses and interrupt numbers.

pc.py       PCI (i440FX, PIIX3), APICs, HPET, IDE, floppy, VGA, ACPI: what people mean by a PC; the default
microvm.py  APICs and serial ports, announced by ACPI: what booting a kernel needs, and nothing else
isa.py      the PC of 1990: no PCI, no APIC, no ACPI
legacy.py   the chips that the pc and isa boards share
wiring.py   what every board is connected to and offers
"""
