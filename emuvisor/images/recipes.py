"""All images that can be pulled, by name."""

from collections.abc import Callable

from emuvisor.errors import UsageError
from emuvisor.images.cache import Image
from emuvisor.images.debian import pull_amd64, pull_i386
from emuvisor.images.debian_system import pull_system
from emuvisor.images.efi import pull_efi
from emuvisor.images.firmware import pull_firmware
from emuvisor.images.grub import pull_grub
from emuvisor.images.ipxe import pull_ipxe
from emuvisor.images.memtest import pull_memtest
from emuvisor.images.progress import Progress, silent
from emuvisor.images.syslinux import pull_syslinux

__all__ = ["RECIPES", "pull"]

RECIPES: dict[str, Callable[[str, Progress], Image]] = {
    "debian": pull_amd64,
    "debian-efi": pull_efi,
    "debian-grub": pull_grub,
    "debian-i386": pull_i386,
    "debian-memtest": pull_memtest,
    "debian-syslinux": pull_syslinux,
    "debian-system": pull_system,
    "ipxe": pull_ipxe,
    "ovmf": pull_firmware,
    "seabios": pull_firmware,
}


def pull(name: str, progress: Progress = silent) -> Image:
    """Fetch, build and install image `name`.

    Raises UsageError for an unknown name, HostError when a program is missing or fails or the cache cannot be
    written, ImageError for a package that does not hold what is expected.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown image {name!r}; known images: {', '.join(RECIPES)}")
    return RECIPES[name](name, progress)
