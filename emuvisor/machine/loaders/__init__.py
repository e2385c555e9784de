"""Loaders: pure functions from the bytes of an image to a `Boot`.

boot        Boot and Piece, what every loader returns; bounds-checked reading
entry       processor states to start with, GDT and identity page tables
detect      picks one of the following by the file's content
linux       bzImage and vmlinux        zero_page, payload: its parts
multiboot   multiboot 1 kernels
elf         the ELF parser
flat        flat binaries and firmware ROMs
"""
