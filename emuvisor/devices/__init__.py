"""The chips of a PC, one a file. None knows its address: `machine` puts it on a bus and wires its pins.

    pic           8259A interrupt controllers, cascaded, with the edge/level registers
    apic          local APICs, I/O APIC, message-signalled interrupts; imcr: which way the 8259s take
    hpet          high precision event timer (hpet_comparator: one timer of it)
    acpi_pm       ACPI's power management block and SMI command port
    pit           8254 timer (pit_counter: one counter of it); speaker: its gate at port 61h
    rtc           MC146818 clock and CMOS (calendar: its days and years; bcd: how it counts)
    uart          16550A serial port
    i8042         keyboard and mouse controller; keyboard, keymap, mouse: what hangs on it
    dma           8237A controllers and page registers
    floppy        82077AA floppy disk controller and its drives
    a20, port92   the A20 gate, and the other port that drives it
    post, debugcon, debug_exit, shutdown, reset_control, pvpanic
                  ports by which a guest shows progress, prints, exits, switches off, resets and panics
    display       VGA with Bochs VBE
    storage       disks and their controllers
    limits        token buckets of disks and network cards; fair_share: a backend that guests have in common
    histogram     how long requests take

Collaborators (clock, interrupt lines, sinks, callbacks) are given at construction and again to `restore`. The
chips are 8 bits wide: attach them with `width=1`, but `shutdown.PowerManagementControl` (2) and
`debug_exit.DebugExit` (4); APICs, HPET and `acpi_pm.PowerManagement` take any width. Restore an interrupt
controller before the devices that drive its lines.
"""
