"""How a guest reaches its devices, and how they reach it.

    device   the protocol that every chip follows
    saved    a chip's registers as plain data, checked when they come back
    bus      one space of port or memory-mapped I/O: who owns which addresses
    irq      interrupt lines: wires from a chip to an interrupt controller
    clock    the one clock of a guest, and timers on it
    bucket   token buckets
    ethernet the wire between a network card and a network

Nothing here knows a chip, an address map or a processor. None of it takes locks: whoever runs the guest calls
it, and anybody else calls between two runs.
"""
