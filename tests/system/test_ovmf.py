"""UEFI: OVMF's shell starts the kernel from an EFI system partition."""

import pytest
from compatibility import Compatibility
from guests import boot_disks, command, disk, expect, power_off, reach_shell

from emuvisor.host import Host
from emuvisor.images.cache import Image

pytestmark = pytest.mark.system

SHELL_S = 180


def test_shell_and_kernel_from_the_system_partition(
    host: Host, ovmf: Image, debian_efi: Image, compatibility: Compatibility
) -> None:
    guest = boot_disks(host, disk(debian_efi), firmware="ovmf")
    expect(guest, "UEFI Interactive Shell", SHELL_S)
    reach_shell(guest)
    assert "EDK II" in command(guest, "dmesg | grep 'efi: EFI v2'")
    assert command(guest, "cat /sys/firmware/efi/fw_platform_size") == "64"
    power_off(guest)
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots="EFI system partition of an IDE disk, OVMF",
        checked="UEFI shell runs startup.nsh; the kernel finds 64-bit EFI; shell; power-off",
    )
