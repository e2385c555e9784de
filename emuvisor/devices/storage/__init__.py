"""Disks, and the controllers that guests reach them through.

blockdevice   what a controller needs from a disk
rawdisk       a disk whose sectors are the bytes of a file
overlay       a read-only base and the changes to it (overlay_format: their file)
cdimage       an ISO 9660 image
imagefile     the file below all of these; holes: how it gives space back
biosdisk      the disk controller of emuvisor's own BIOS
ide           ATA disks and CD-ROM drives behind the PIIX3's IDE controller
"""
