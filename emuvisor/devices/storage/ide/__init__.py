"""ATA and ATAPI behind a PC's IDE controller.

    registers    names of registers, bits and phases
    drive        what every drive is: task file, data register, interrupt
    disk         a hard disk; identify: what it and a CD-ROM drive say of themselves; geometry: its CHS translation
    addresses    which sectors the registers address
    cdrom        a CD-ROM drive as ATA sees it; mmc: the SCSI commands inside; sense: why they fail
    channel      a cable with two drives, as the host's ports see it
    bus_master   DMA between a channel and guest memory
    piix_ide     the PCI function of the PIIX3 with two channels

Requests are done when the access that started them ends: Linux, SeaBIOS and GRUB need no time in between, and
a guest on the virtual clock stays deterministic.
"""
