"""Debian's kernels, each with busybox and its own modules in an initramfs that ends in a shell.

debian       the newest cloud kernel for amd64
debian-i386  the newest 686 kernel; the 686-pae kernel (vmlinuz-pae, initrd-pae.cpio) beside it
"""

from emuvisor.errors import ImageError
from emuvisor.images import initramfs
from emuvisor.images.apt import Apt, Package
from emuvisor.images.cache import Image, Recipe, install, work_folder
from emuvisor.images.progress import Progress

__all__ = ["pull_amd64", "pull_i386"]

AMD64_METAPACKAGE = "linux-image-cloud-amd64"
I386_METAPACKAGES = {"": "linux-image-686", "-pae": "linux-image-686-pae"}
"""By what they add to the names of the files."""
BUSYBOX = "busybox-static"
BUSYBOX_PATHS = ("bin/busybox", "usr/bin/busybox")

APPEND = "console=ttyS0"


def pull_amd64(name: str, progress: Progress) -> Image:
    """Fetch, build and install the image. Raises HostError and ImageError."""
    steps = 4
    progress("finding the newest kernel", 0, steps)
    apt = Apt()
    kernel = apt.newest_kernel(AMD64_METAPACKAGE)
    with work_folder() as work:
        progress(f"downloading {kernel} and {BUSYBOX}", 1, steps)
        debs = apt.download(work, kernel, BUSYBOX)
        progress("building the initramfs", 2, steps)
        files = _kernel_files(kernel, debs, apt.architecture)
    progress("installing", 3, steps)
    image = install(
        name,
        Recipe(
            files=files,
            kernel="vmlinuz",
            initrd="initrd.cpio",
            append=APPEND,
            packages={package: deb.version for package, deb in debs.items()},
        ),
    )
    progress("done", steps, steps)
    return image


def pull_i386(name: str, progress: Progress) -> Image:
    """Fetch, build and install the image. Raises HostError and ImageError."""
    steps = 4
    with work_folder() as work:
        progress("fetching the package lists for i386", 0, steps)
        apt = Apt.foreign("i386", work / "apt")
        kernels = {suffix: apt.newest_kernel(package) for suffix, package in I386_METAPACKAGES.items()}
        progress(f"downloading {', '.join(kernels.values())} and {BUSYBOX}", 1, steps)
        debs = apt.download(work, *kernels.values(), BUSYBOX)
        progress("building the initramfs for each", 2, steps)
        files: dict[str, bytes] = {}
        for suffix, kernel in kernels.items():
            files |= _kernel_files(kernel, debs, apt.architecture, suffix)
    progress("installing", 3, steps)
    image = install(
        name,
        Recipe(
            files=files,
            kernel="vmlinuz",
            initrd="initrd.cpio",
            append=APPEND,
            packages={package: deb.version for package, deb in debs.items()},
        ),
    )
    progress("done", steps, steps)
    return image


def _kernel_files(
    kernel: str, debs: dict[str, Package], architecture: str, suffix: str = ""
) -> dict[str, bytes]:
    """Kernel, configuration and initramfs of package `kernel`, by file name."""
    release = kernel.removeprefix("linux-image-")
    modules_folder = f"lib/modules/{release}/"
    package = debs[kernel]
    files = package.files("boot/", modules_folder, f"usr/{modules_folder}")
    busybox = debs[BUSYBOX].file(*BUSYBOX_PATHS)
    modules = {
        path.partition(modules_folder)[2]: data for path, data in files.items() if modules_folder in path
    }
    for path in (f"boot/vmlinuz-{release}", f"boot/config-{release}"):
        if path not in files:
            raise ImageError(f"{package.path.name}: no {path} in it")
    return {
        f"vmlinuz{suffix}": files[f"boot/vmlinuz-{release}"],
        f"config{suffix}": files[f"boot/config-{release}"],
        f"initrd{suffix}.cpio": initramfs.build(busybox, release, modules, architecture),
    }
