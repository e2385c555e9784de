"""Disks, and the controllers that guests reach them through.

blockdevice   what a controller needs from a disk
rawdisk       a disk whose sectors are the bytes of a file
overlay       a read-only base and the changes to it (overlay_format, overlay_file: their
              file; overlay_commit: into the base)
layered       a guest's disk, which can be frozen (layer: what is saved before it is overwritten; moment: a disk as it
              was; layerfiles: the files below a disk; saving: a moment written to files; temporary: nameless files)
diskcopy      a disk copied while it is written (clustermap: sets of clusters)
qcow2         qcow2 images
formats       which format an image has: open_image
imagefiles    images made, resized, checked; imageinfo: what an image file is
convert       one disk copied into another (extents: where a disk has data)
cdimage       an ISO 9660 image
imagefile     the file below all of these (locks: whose it is; scatter: buffers in pieces)
thin          what disks were promised, and what the host has
meter         what a disk may do, and what it did
biosdisk      the disk controller of emuvisor's own BIOS
ide           ATA disks and CD-ROM drives behind the PIIX3's IDE controller
"""
