"""An interrupt message as one integer.

The low half of the interrupt command register (SDM volume 3, section 10.6.1), of an I/O APIC redirection entry
(82093AA data sheet, section 3.2.4), the data of a message-signalled interrupt (SDM 10.11.2) and the entries of the
local vector table (SDM 10.5.1) all lay out their fields alike. So a message is that word.
"""

__all__ = [
    "ACTIVE_LOW",
    "BROADCAST",
    "DELIVERY_MODE",
    "EXTINT",
    "FIRST_LEGAL_VECTOR",
    "FIXED",
    "INIT",
    "LEVEL_ASSERT",
    "LEVEL_TRIGGERED",
    "LOGICAL",
    "LOWEST_PRIORITY",
    "MASKED",
    "NMI",
    "REMOTE_IRR",
    "SMI",
    "STARTUP",
    "VECTOR",
]

VECTOR = 0x000000FF

DELIVERY_MODE = 0x00000700
FIXED = 0x00000000
LOWEST_PRIORITY = 0x00000100
SMI = 0x00000200
NMI = 0x00000400
INIT = 0x00000500
STARTUP = 0x00000600
EXTINT = 0x00000700

LOGICAL = 0x00000800
"""Destination mode; physical otherwise."""
ACTIVE_LOW = 0x00002000
"""Pin polarity, in vector table and redirection entries."""
REMOTE_IRR = 0x00004000
"""In vector table and redirection entries: a level-triggered interrupt is accepted and not ended yet."""
LEVEL_ASSERT = 0x00004000
"""In the ICR and in MSI data; without it a level-triggered message is a de-assertion."""
LEVEL_TRIGGERED = 0x00008000
MASKED = 0x00010000
"""In vector table and redirection entries."""

BROADCAST = 0xFF
"""The destination that means every processor."""

FIRST_LEGAL_VECTOR = 16
"""Vectors below belong to exceptions; an APIC refuses them (SDM 10.5.2)."""
