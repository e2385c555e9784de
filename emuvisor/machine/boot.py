"""From a configuration to what goes into memory: reads the images and calls the loader for each."""

from pathlib import Path

from emuvisor.errors import ImageError
from emuvisor.firmware import image
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.loaders.boot import Boot
from emuvisor.machine.loaders.detect import load
from emuvisor.machine.loaders.flat import load_firmware, load_flat
from emuvisor.machine.loaders.zero_page import Extras
from emuvisor.units import GIB, format_size

__all__ = ["boot_image"]

MAX_IMAGE = 2 * GIB


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_IMAGE:
            raise ImageError(f"{path}: {format_size(size)}; an image has at most {format_size(MAX_IMAGE)}")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from None


def boot_image(config: GuestConfig) -> Boot:
    """What `config` boots, ready to be put into memory. Raises ImageError naming the file."""
    memory = config.memory_map
    if config.kernel is not None:
        kernel = config.kernel
        initrd = _read(kernel.initrd) if kernel.initrd is not None else None
        extras = Extras(initrd=initrd, cmdline=kernel.append)
        return load(str(kernel.path), _read(kernel.path), memory, extras, kernel.decompressor)
    if config.flat is not None:
        flat = config.flat
        return load_flat(str(flat.path), _read(flat.path), flat.address, flat.mode, memory)
    if config.firmware is not None:
        return load_firmware(str(config.firmware), _read(config.firmware))
    return load_firmware("the built-in BIOS", image("bios"))
