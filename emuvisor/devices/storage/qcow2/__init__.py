"""qcow2 images, versions 2 and 3 (QEMU, docs/interop/qcow2.txt), read and written.

disk        Qcow2Disk: an image as a block device (reader: its half that reads; backing: the disk below)
create      new images
check       what is wrong with an image, and repairing what can be
resize      another size for the disk
commit      moving what an image has into its backing file
info        what an image says of itself

image       the open file: header, tables, refcounts, and the order in which they are stored
header      fields, features, extensions         entries     L1 and L2 entries
tables      L1 and L2 tables                     refcounts   which clusters are free (widths: 1 to 64 bits)
compressed  packing clusters                     snapshots   the table of internal snapshots
metadata    clusters that no data may overwrite
scan        everything that the tables use (references: counts; bitmaps: theirs); rebuild: refcounts from that
"""
