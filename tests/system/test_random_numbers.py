"""virtio-rng on the virtual clock: random to the guest, and the same in every run."""

from pathlib import Path

import pytest
from compatibility import Compatibility
from guests import wait_for_power_off
from virtio_guests import NAMES

from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.images.cpio import CpioWriter
from emuvisor.machine.config import GuestConfig, KernelConfig

pytestmark = pytest.mark.system

INIT = """\
#!/bin/busybox sh
export PATH=/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
load-drivers
echo "hwrng: $(head -c 10000 /dev/hwrng | sha256sum)"
echo "kernel: $(head -c 10000 /dev/urandom | sha256sum)"
/sbin/poweroff
"""
"""Nobody types: what people do comes at another time in each run."""


def test_same_in_every_run(host: Host, debian: Image, tmp_path: Path, compatibility: Compatibility) -> None:
    assert debian.initrd is not None
    cpio = CpioWriter()
    cpio.file("init", INIT.encode(), 0o755)
    initrd = tmp_path / "initrd.cpio"
    # Linux unpacks archives that follow one another.
    initrd.write_bytes(debian.initrd.read_bytes() + cpio.finish())
    texts = []
    for name in ("one", "one", "another"):
        kernel = KernelConfig(debian.path / "vmlinuz", initrd, debian.append)
        guest = host.create(GuestConfig(name=name, kernel=kernel, rng=True))
        guest.start()
        wait_for_power_off(guest)
        texts.append(
            [line for line in guest.console.text.splitlines() if "hwrng: " in line or "kernel: " in line]
        )
        guest.delete()
    first, again, another = texts
    assert len(first) == 2
    assert first == again
    assert not set(first) & set(another)
    compatibility.row(
        guest=NAMES["debian"],
        boots="directly on pc, virtio-rng on the virtual clock",
        checked="the same random numbers in each run, others in another guest",
    )
