"""Ready-made guests: fetched from a distribution, kept in the user's cache.

cache       where images live: Image, find, list_images; installed atomically, with a manifest
debian      pull: Debian's cloud kernel with a small initramfs; memtest86+
initramfs   what is in the initramfs
cpio, deb, modules, poweroff    its parts: archive writer, package reader, kernel modules, a helper program
"""
