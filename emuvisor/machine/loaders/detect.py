"""Chooses a kernel's loader by what the file contains."""

from emuvisor.errors import ImageError
from emuvisor.machine.loaders import linux, multiboot
from emuvisor.machine.loaders.boot import Boot
from emuvisor.machine.loaders.elf import ELF_MAGIC
from emuvisor.machine.loaders.zero_page import Extras
from emuvisor.machine.memory_map import MemoryMap

__all__ = ["load"]

NOTHING = Extras()


def load(
    name: str,
    data: bytes,
    memory: MemoryMap,
    extras: Extras = NOTHING,
    decompressor: linux.Decompressor = "host",
) -> Boot:
    """The kernel in `data`: a bzImage, a multiboot kernel or another ELF executable.

    `name` is what messages call the file. Raises ImageError for what is none of them, is damaged, or does
    not fit the guest's memory.
    """
    if linux.is_bzimage(data):
        return linux.load_bzimage(name, data, memory, extras, decompressor)
    if multiboot.is_multiboot(data):
        return multiboot.load(name, data, memory, extras)
    if data.startswith(ELF_MAGIC):
        return linux.load_vmlinux(name, data, memory, extras)
    raise ImageError(
        f"{name}: not a kernel that emuvisor knows ({len(data)} bytes, beginning with "
        f'{data[:4].hex(" ") or "nothing"}): no bzImage ("HdrS" at 0x202), no multiboot header in the first '
        f"8 KiB, no ELF"
    )
