"""UEFI: OVMF's shell starts the kernel from an EFI system partition."""

from dataclasses import replace

import pytest
from compatibility import Compatibility
from guests import boot_disks, command, disk, expect, power_off, reach_shell

from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import DiskBus

pytestmark = pytest.mark.system

SHELL_S = 540


@pytest.mark.parametrize(("bus", "kind"), [("ide", "an IDE"), ("virtio", "a virtio")])
def test_shell_and_kernel_from_the_system_partition(
    host: Host, ovmf: Image, debian_efi: Image, compatibility: Compatibility, *, bus: DiskBus, kind: str
) -> None:
    guest = boot_disks(host, replace(disk(debian_efi), bus=bus), firmware="ovmf")
    expect(guest, "UEFI Interactive Shell", SHELL_S)
    reach_shell(guest)
    assert "EDK II" in command(guest, "dmesg | grep 'efi: EFI v2'")
    assert command(guest, "cat /sys/firmware/efi/fw_platform_size") == "64"
    power_off(guest)
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots=f"EFI system partition of {kind} disk, OVMF",
        checked="UEFI shell runs startup.nsh; the kernel finds 64-bit EFI; shell; power-off",
    )
