"""The Debian recipes with a fake apt on PATH."""

import sys

import pytest
from packages import BUSYBOX, deb, module

from emuvisor.errors import HostError, ImageError, UsageError
from emuvisor.images.cache import find
from emuvisor.images.debian import pull

KERNEL = "linux-image-6.1.0-9-cloud-amd64"
RELEASE = "6.1.0-9-cloud-amd64"
MODULE = f"lib/modules/{RELEASE}/kernel/drivers/virtio/virtio.ko"

APT_CACHE = f"#!/bin/sh\nprintf 'linux-image-cloud-amd64\\n  Depends: {KERNEL}\\n'\n"


class FakeApt:
    """`apt-cache` and `apt-get` as scripts in a folder that is all of PATH."""

    def __init__(self, folder):
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

    def script(self, name, text):
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def add(self, name, files):
        (self.packages / name).write_bytes(deb(files))


@pytest.fixture
def apt(tmp_path, monkeypatch):
    monkeypatch.setenv("EMUVISOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "apt"))
    return FakeApt(tmp_path / "apt")


def test_debian(apt, tmp_path):
    steps = []
    image = pull("debian", lambda *step: steps.append(step))
    assert image == find("debian")
    assert image.kernel.read_bytes() == b"kernel"
    assert (image.path / "config").read_bytes() == b"config"
    assert image.initrd is not None
    assert MODULE.encode() in image.initrd.read_bytes()
    assert image.append == "console=ttyS0 noapic nolapic acpi=off"
    assert image.packages == {KERNEL: "6.1.9-1", "busybox-static": "1:1.35-4"}
    assert steps == [
        ("finding the newest kernel", 0, 5),
        (f"downloading {KERNEL} and busybox-static", 1, 5),
        ("unpacking", 2, 5),
        ("building the initramfs", 3, 5),
        ("installing", 4, 5),
        ("done", 5, 5),
    ]
    assert not list((tmp_path / "cache" / "images").glob(".work-*"))


def test_modules_below_usr(apt):
    apt.add(
        f"{KERNEL}_6.1.9-1_amd64.deb",
        {
            f"boot/vmlinuz-{RELEASE}": b"kernel",
            f"boot/config-{RELEASE}": b"config",
            f"usr/{MODULE}": module("virtio"),
        },
    )
    assert MODULE.encode() in pull("debian").initrd.read_bytes()


def test_memtest(apt):
    files = {"boot/memtest86+ia32.bin": b"32", "boot/memtest86+x64.bin": b"64"}
    apt.add("memtest86+_6.10-4_amd64.deb", files)
    image = pull("debian-memtest")
    assert (image.kernel.read_bytes(), image.initrd, image.append) == (b"32", None, "")


def refused(kind: type[Exception], name: str = "debian") -> str:
    with pytest.raises(kind) as error:
        pull(name)
    return str(error.value)


def test_unknown_image():
    assert refused(UsageError, "plan9") == "unknown image 'plan9'; known images: debian, debian-memtest"


def test_no_apt(apt):
    (apt.folder / "apt-cache").unlink()
    assert refused(HostError) == "apt-cache is not installed; images come from Debian's packages"


def test_no_package_lists(apt):
    apt.script("apt-cache", "#!/bin/sh\n")
    assert refused(HostError) == (
        "apt-cache knows no kernel for linux-image-cloud-amd64; it needs Debian's package lists for amd64 "
        "(apt-get update)"
    )


def test_failed_download_names_the_last_line(apt):
    apt.script("apt-get", "#!/bin/sh\necho 'W: one' >&2\necho 'E: no network' >&2\necho >&2\nexit 100\n")
    assert refused(HostError) == f"apt-get download --quiet {KERNEL} busybox-static: E: no network"
    apt.script("apt-get", "#!/bin/sh\nexit 7\n")
    assert refused(HostError) == f"apt-get download --quiet {KERNEL} busybox-static: exit code 7"


def test_incomplete_packages(apt):
    apt.add("busybox-static_1%3a1.35-4_amd64.deb", {"bin/other": b""})
    assert refused(ImageError) == "busybox-static_1%3a1.35-4_amd64.deb: no bin/busybox in it"
    (apt.packages / "busybox-static_1%3a1.35-4_amd64.deb").unlink()
    assert refused(HostError) == "apt-get download left no file of busybox-static"
    apt.add("memtest86+_6.10-4_amd64.deb", {})
    assert refused(ImageError, "debian-memtest") == (
        "memtest86+_6.10-4_amd64.deb: no boot/memtest86+ia32.bin in it"
    )
