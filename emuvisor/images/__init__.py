"""Ready-made guests and firmware: made from a distribution's packages, kept in the user's cache.

cache           where images live: Image, find, list_images; installed atomically, with a manifest
recipes         all images by name: pull
debian          Debian's kernels with a small initramfs (initramfs, cpio, modules, poweroff)
memtest, ipxe   memtest86+, which tests memory, and iPXE, which boots over the network
grub, syslinux, efi     boot loaders' disks, floppies and ISOs, which boot what payload has
debian_system   a whole Debian on a disk (overlay)
firmware        SeaBIOS and OVMF: firmware_file, video_bios_file
apt, deb        packages from the machine's own sources, and what is in them
tools           runs other programs: ext4, fat, iso and mbr make what is on a disk
progress        how a recipe tells what it is doing
"""
