"""From a configuration to what goes into memory: reads the images and calls the loader for each."""

from pathlib import Path

from emuvisor.errors import ImageError
from emuvisor.firmware import image
from emuvisor.images.firmware import firmware_file, video_bios_file
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.loaders.boot import Boot
from emuvisor.machine.loaders.detect import load
from emuvisor.machine.loaders.flat import load_firmware, load_flat
from emuvisor.machine.loaders.zero_page import Extras
from emuvisor.units import GIB, format_size

__all__ = ["boot_image", "option_roms", "vga_bios"]

MAX_IMAGE = 2 * GIB


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_IMAGE:
            raise ImageError(f"{path}: {format_size(size)}; an image has at most {format_size(MAX_IMAGE)}")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from None


def firmware_path(firmware: Path | str) -> Path:
    """The file of `firmware`: a path, or a name in the image cache. Raises UsageError when it is not there."""
    return firmware_file(firmware) if isinstance(firmware, str) else firmware


def vga_bios(config: GuestConfig) -> bytes | None:
    """The display's ROM: SeaBIOS runs its sister from there; others bring their own driver or need none."""
    return _read(video_bios_file()) if config.firmware == "seabios" else None


def option_roms(config: GuestConfig) -> list[tuple[str, bytes]]:
    """The option ROMs by file name. Raises ImageError naming the file."""
    return [(path.name, _read(path)) for path in config.option_roms]


def boot_image(config: GuestConfig) -> Boot:
    """What `config` boots, ready to be put into memory. Raises ImageError naming the file."""
    memory = config.memory_map
    if config.kernel is not None:
        kernel = config.kernel
        initrd = _read(kernel.initrd) if kernel.initrd is not None else None
        extras = Extras(
            initrd=initrd,
            cmdline=kernel.append,
            text_mode=config.board == "pc",  # the one with a display
            acpi=config.board != "isa",
        )
        return load(str(kernel.path), _read(kernel.path), memory, extras, kernel.decompressor)
    if config.flat is not None:
        flat = config.flat
        return load_flat(str(flat.path), _read(flat.path), flat.address, flat.mode, memory)
    if config.firmware is not None:
        path = firmware_path(config.firmware)
        return load_firmware(str(path), _read(path), programs_chipset=True)
    return load_firmware("the built-in BIOS", image("bios"))
