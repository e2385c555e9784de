"""The chips of a PC, one a file. None knows its address: `machine` puts it on a bus and wires its pins.

    pic           8259A interrupt controllers, cascaded, with the edge/level registers
    pit           8254 timer (pit_counter: one counter of it); speaker: its gate at port 61h
    rtc           MC146818 clock and CMOS (calendar: its days and years; bcd: how it counts)
    uart          16550A serial port
    i8042         keyboard controller; keyboard, keymap: what hangs on it
    a20, port92   the A20 gate, and the other port that drives it
    post, debugcon, debug_exit, shutdown
                  ports by which a guest shows progress, prints, exits and switches off
    blockdevice, rawdisk, biosdisk
                  disks: what one is, one in a file, one as the BIOS asks for it

Collaborators (clock, interrupt lines, sinks, callbacks) are given at construction and again to `restore`. The
chips are 8 bits wide: attach them with `width=1`, but `shutdown.PowerManagementControl` (2) and
`debug_exit.DebugExit` (4). Restore an interrupt controller before the devices that drive its lines.
"""
