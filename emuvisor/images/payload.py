"""What the boot loaders' images boot: the `debian` image's kernel and initramfs, and memtest86+."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emuvisor.images.cache import usable
from emuvisor.images.debian import pull_amd64
from emuvisor.images.memtest import pull_memtest
from emuvisor.images.progress import silent

__all__ = ["APPEND", "MEMTEST_APPEND", "Payload", "payload"]

APPEND = "console=tty0 console=ttyS0"
MEMTEST_APPEND = "nosmp nobench nosm nopause"
"""One CPU, no benchmark, no SMBus, no wait for a key."""


@dataclass(frozen=True, slots=True)
class Payload:
    """Files by the names that the loaders' configurations give them, and their packages' versions."""

    files: Mapping[str, Path]
    packages: Mapping[str, str]


def payload(*, memtest: bool = True) -> Payload:
    """From the cache; the images are pulled first if they are not there. Raises HostError and ImageError."""
    debian = usable("debian") or pull_amd64("debian", silent)
    files = {name: debian.path / name for name in ("vmlinuz", "initrd.cpio")}
    packages = dict(debian.packages)
    if memtest:
        image = usable("debian-memtest") or pull_memtest("debian-memtest", silent)
        files["memtest"] = image.path / "memtest86+ia32.bin"
        packages |= image.packages
    return Payload(files, packages)
