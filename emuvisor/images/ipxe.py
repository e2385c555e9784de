"""iPXE, which boots over the network: an ISO that starts from a CD or a hard disk, and a kernel for boot loaders.

It asks DHCP what to boot. The kernel (ipxe.lkrn) needs a BIOS and a loader that runs its real-mode part, such as GRUB's
linux16; its command line is an iPXE command, its initrd an iPXE script.
"""

from emuvisor.images.apt import Apt
from emuvisor.images.cache import Image, Recipe, install, work_folder
from emuvisor.images.progress import Progress

__all__ = ["pull_ipxe"]

PACKAGE = "ipxe"
FILES = {
    "ipxe.iso": "usr/lib/ipxe/ipxe.iso",
    "ipxe.lkrn": "boot/ipxe.lkrn",
}


def pull_ipxe(name: str, progress: Progress) -> Image:
    """Fetch and install the image. Raises HostError and ImageError."""
    steps = 3
    with work_folder() as work:
        progress(f"downloading {PACKAGE}", 0, steps)
        package = Apt().download(work, PACKAGE)[PACKAGE]
        progress("unpacking", 1, steps)
        files = {file: package.file(path) for file, path in FILES.items()}
    progress("installing", 2, steps)
    recipe = Recipe(files, {PACKAGE: package.version}, disk="ipxe.iso", firmware="seabios")
    image = install(name, recipe)
    progress("done", steps, steps)
    return image
