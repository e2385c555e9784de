"""Builds images from Debian's packages, fetched and verified by apt.

debian          the newest cloud kernel, busybox and the kernel's virtio modules in an initramfs
debian-memtest  memtest86+
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from emuvisor.errors import HostError, ImageError, UsageError
from emuvisor.images import initramfs
from emuvisor.images.cache import Image, Recipe, install, work_folder
from emuvisor.images.deb import read_package

__all__ = ["RECIPES", "Progress", "pull"]

Progress = Callable[[str, int, int], None]
"""Called with what begins now, how many steps are done, and how many there are."""

KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
DEPENDS_ON_KERNEL = re.compile(r"Depends: (linux-image-\S+)")
DEB_NAME = re.compile(r"(?P<name>[^_]+)_(?P<version>[^_]+)_[^_]+\.deb")
DOWNLOAD_TIMEOUT_S = 900

APPEND = "console=ttyS0 noapic nolapic acpi=off"
"""For a PC without APICs and ACPI tables."""


def _silent(_step: str, _done: int, _total: int) -> None:
    pass


def pull(name: str, progress: Progress = _silent) -> Image:
    """Fetch, build and install image `name`.

    Raises UsageError for an unknown name, HostError when apt is missing or fails or the cache cannot be
    written, ImageError for a package that does not hold what is expected.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown image {name!r}; known images: {', '.join(RECIPES)}")
    return RECIPES[name](name, progress)


def _pull_debian(name: str, progress: Progress) -> Image:
    steps = 5
    progress("finding the newest kernel", 0, steps)
    kernel_package = newest_kernel()
    release = kernel_package.removeprefix("linux-image-")
    modules_folder = f"lib/modules/{release}/"
    with work_folder() as work:
        progress(f"downloading {kernel_package} and busybox-static", 1, steps)
        debs = download(work, kernel_package, "busybox-static")
        progress("unpacking", 2, steps)
        kernel_path, kernel_version = debs[kernel_package]
        busybox_path, busybox_version = debs["busybox-static"]
        files = read_package(
            kernel_path, lambda path: path.startswith(("boot/", modules_folder, f"usr/{modules_folder}"))
        )
        busybox_files = read_package(busybox_path, lambda path: path in ("bin/busybox", "usr/bin/busybox"))
    progress("building the initramfs", 3, steps)
    modules = {
        path.partition(modules_folder)[2]: data for path, data in files.items() if modules_folder in path
    }
    if not busybox_files:
        raise ImageError(f"{busybox_path.name}: no bin/busybox in it")
    initrd = initramfs.build(next(iter(busybox_files.values())), release, modules)
    progress("installing", 4, steps)
    image = install(
        name,
        Recipe(
            files={
                "vmlinuz": _member(files, f"boot/vmlinuz-{release}", kernel_path),
                "config": _member(files, f"boot/config-{release}", kernel_path),
                "initrd.cpio": initrd,
            },
            kernel="vmlinuz",
            initrd="initrd.cpio",
            append=APPEND,
            packages={kernel_package: kernel_version, "busybox-static": busybox_version},
        ),
    )
    progress("done", steps, steps)
    return image


def _pull_memtest(name: str, progress: Progress) -> Image:
    steps = 3
    with work_folder() as work:
        progress("downloading memtest86+", 0, steps)
        path, version = download(work, "memtest86+")["memtest86+"]
        progress("unpacking", 1, steps)
        files = read_package(path, lambda member: member.startswith("boot/") and member.endswith(".bin"))
    progress("installing", 2, steps)
    image = install(
        name,
        Recipe(
            files={
                "memtest86+ia32.bin": _member(files, "boot/memtest86+ia32.bin", path),
                "memtest86+x64.bin": _member(files, "boot/memtest86+x64.bin", path),
            },
            kernel="memtest86+ia32.bin",
            packages={"memtest86+": version},
        ),
    )
    progress("done", steps, steps)
    return image


RECIPES: dict[str, Callable[[str, Progress], Image]] = {
    "debian": _pull_debian,
    "debian-memtest": _pull_memtest,
}


def newest_kernel() -> str:
    """The package that the metapackage stands for, such as "linux-image-6.1.0-9-cloud-amd64".

    Raises HostError.
    """
    output = _run(["apt-cache", "depends", KERNEL_METAPACKAGE])
    match = DEPENDS_ON_KERNEL.search(output)
    if match is None:
        raise HostError(
            f"apt-cache knows no kernel for {KERNEL_METAPACKAGE}; it needs Debian's package lists for amd64 "
            f"(apt-get update)"
        )
    return match[1]


def download(folder: Path, *packages: str) -> dict[str, tuple[Path, str]]:
    """Fetch `packages` into `folder`: each name with its file and its version.

    Raises HostError.
    """
    _run(["apt-get", "download", "--quiet", *packages], folder)
    found = {}
    for file in folder.glob("*.deb"):
        match = DEB_NAME.fullmatch(file.name)
        if match is not None:
            # apt writes an epoch's colon as %3a.
            found[match["name"]] = (file, match["version"].replace("%3a", ":"))
    for package in packages:
        if package not in found:
            raise HostError(f"apt-get download left no file of {package}")
    return found


def _run(command: list[str], folder: Path | None = None) -> str:
    """The output of an apt command; HostError with its last line of complaint if it fails."""
    text = " ".join(command)
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise HostError(f"{command[0]} is not installed; images come from Debian's packages") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"{text}: no end after {DOWNLOAD_TIMEOUT_S} s") from None
    if result.returncode:
        lines = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        raise HostError(f"{text}: {lines[-1].strip() if lines else f'exit code {result.returncode}'}")
    return result.stdout


def _member(files: dict[str, bytes], path: str, package: Path) -> bytes:
    if path not in files:
        raise ImageError(f"{package.name}: no {path} in it")
    return files[path]
