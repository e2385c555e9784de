"""apt and other programs as scripts in a folder that is all of PATH."""

import sys
from pathlib import Path

from packages import BUSYBOX, deb, module

KERNEL = "linux-image-6.1.0-9-cloud-amd64"
RELEASE = "6.1.0-9-cloud-amd64"
MODULE = f"lib/modules/{RELEASE}/kernel/drivers/virtio/virtio.ko"
MEMTEST = {
    "boot/memtest86+ia32.bin": b"32",
    "boot/memtest86+x64.bin": b"64",
    "usr/lib/memtest86+/memtest86+ia32.iso": b"iso",
}
APT_CACHE = f"#!/bin/sh\nprintf 'linux-image-cloud-amd64\\n  Depends: {KERNEL}\\n'\n"


class FakeApt:
    """`apt-cache` and `apt-get`, which leaves all packages that were added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = folder / "packages"
        self.packages.mkdir(parents=True)
        self.script("apt-cache", APT_CACHE)
        # No other program is on PATH, so that the copying is Python's.
        self.script(
            "apt-get",
            f"#!{sys.executable}\nimport pathlib\n"
            f"for p in pathlib.Path({str(self.packages)!r}).iterdir():\n"
            "    pathlib.Path(p.name).write_bytes(p.read_bytes())\n",
        )
        self.add(
            f"{KERNEL}_6.1.9-1_amd64.deb",
            {
                f"boot/vmlinuz-{RELEASE}": b"kernel",
                f"boot/config-{RELEASE}": b"config",
                MODULE: module("virtio"),
            },
        )
        self.add("busybox-static_1%3a1.35-4_amd64.deb", {"bin/busybox": BUSYBOX})

    def script(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def add(self, name: str, files: dict[str, bytes]) -> None:
        (self.packages / name).write_bytes(deb(files))

    def log_of(self, *programs: str) -> Path:
        """Make `programs` write their arguments to a file, one line for each run; returns the file.

        What follows -o (as grub-mkimage's and xorriso's output) is written as a file.
        """
        log = self.folder / "log"
        for program in programs:
            self.script(
                program,
                f'#!/bin/sh\necho "{program} $*" >> {log}\n'
                'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done\n',
            )
        return log
