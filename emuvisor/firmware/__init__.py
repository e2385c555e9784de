"""The built images of our own guest programs; their sources and READMEs are in the repository's `firmware/`.

image(name)       the built image
boot_disk(name)   a flat guest on a disk that a BIOS can boot
NAMES             every image
FLAT              the guests that are loaded at `FLAT_ADDRESS` and started in real mode
"""

from importlib.resources import files

from emuvisor.errors import ImageError

__all__ = [
    "BIOS_SIZE",
    "FLAT",
    "FLAT_ADDRESS",
    "NAMES",
    "PARAMETERS",
    "PARAMETERS_SIZE",
    "boot_disk",
    "image",
]

FLAT = ("hello", "ring", "memtouch", "spin", "halt", "vmexit", "bioscheck", "vbe", "balloon", "smp", "dice")
NAMES = ("bios", "boot", *FLAT)

BIOS_SIZE = 0x10000
"""Bytes of the BIOS, which ends at 1 MiB, and again at 4 GiB."""
FLAT_ADDRESS = 0x8000
"""Where flat guests are loaded; they start in real mode at CS:IP 0800:0000."""
PARAMETERS = 0x7E00
"""Where flat guests look for their parameter block: zeros mean defaults."""
PARAMETERS_SIZE = 0x200

_SECTOR_SIZE = 512
_LAST_SECTOR_FIELD = slice(508, 510)
_DISK_SIZE = 1 << 20


def image(name: str) -> bytes:
    """The built image `name`, one of `NAMES`.

    Raises ImageError for another name.
    """
    if name not in NAMES:
        raise ImageError(f"{name!r} is not a firmware image; there are {', '.join(NAMES)}")
    return (files(__name__) / f"{name}.bin").read_bytes()


def boot_disk(name: str, parameters: bytes = b"") -> bytes:
    """A 1 MiB disk image whose boot sector starts the flat guest `name` with the given parameter block.

    Raises ImageError for a guest that is not flat, or parameters of more than `PARAMETERS_SIZE` bytes.
    """
    if name not in FLAT:
        raise ImageError(f"{name!r} is not a flat guest; there are {', '.join(FLAT)}")
    if len(parameters) > PARAMETERS_SIZE:
        raise ImageError(
            f"{name}: a parameter block has at most {PARAMETERS_SIZE} bytes, this one has {len(parameters)}"
        )
    payload = parameters.ljust(PARAMETERS_SIZE, b"\0") + image(name)
    boot = bytearray(image("boot"))
    boot[_LAST_SECTOR_FIELD] = (-(-len(payload) // _SECTOR_SIZE)).to_bytes(2, "little")
    return (bytes(boot) + payload).ljust(_DISK_SIZE, b"\0")
