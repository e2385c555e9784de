"""The advanced programmable interrupt controllers of a PC, and what connects them.

    message     an interrupt message: the layout that the ICR, redirection entries and MSI data share
    apic_bus    carries messages to local APICs and ends of interrupt to I/O APICs; decodes MSI
    local_apic  a processor's own controller (registers: its register file; apic_timer: its timer)
    local_apics all processors' at one address
    io_apic     82093AA: interrupt lines become messages

Restore local APICs first, then the I/O APIC, then the 8259s, then the devices that drive their lines.
"""
