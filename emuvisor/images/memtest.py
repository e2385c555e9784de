"""memtest86+: a kernel for the Linux boot protocol, which is also a bootable floppy, and its ISO."""

from emuvisor.images.apt import Apt
from emuvisor.images.cache import Image, Recipe, install, work_folder
from emuvisor.images.progress import Progress

__all__ = ["pull_memtest"]

PACKAGE = "memtest86+"
FLOPPY_SIZE = 1440 * 1024
FILES = {
    "memtest86+ia32.bin": "boot/memtest86+ia32.bin",
    "memtest86+x64.bin": "boot/memtest86+x64.bin",
    "cd.iso": "usr/lib/memtest86+/memtest86+ia32.iso",
}
KERNEL = "memtest86+ia32.bin"


def pull_memtest(name: str, progress: Progress) -> Image:
    """Fetch and install the image. Raises HostError and ImageError."""
    steps = 3
    with work_folder() as work:
        progress(f"downloading {PACKAGE}", 0, steps)
        package = Apt().download(work, PACKAGE)[PACKAGE]
        progress("unpacking", 1, steps)
        files = {file: package.file(path) for file, path in FILES.items()}
    # Its first sector is a boot sector that loads the rest from a floppy.
    files["floppy.img"] = files[KERNEL].ljust(FLOPPY_SIZE, b"\0")
    progress("installing", 2, steps)
    image = install(name, Recipe(files=files, kernel=KERNEL, packages={PACKAGE: package.version}))
    progress("done", steps, steps)
    return image
