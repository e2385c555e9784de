"""A whole Debian boots from its IDE disk, works, and shuts down when its power button is pressed."""

import subprocess
from pathlib import Path

import pytest
from compatibility import Compatibility
from guests import boot_disks, command, expect, wait_for_power_off

from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.images.debian_system import PARTITION_OFFSET, PASSWORD
from emuvisor.machine.config import DiskConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

BOOT_S = 480
APT_S = 300
SHUTDOWN_S = 300


def on_the_host(program: str, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_login_to_power_button(
    host: Host, debian_system: Image, tmp_path: Path, compatibility: Compatibility
) -> None:
    image = tmp_path / "disk.img"
    on_the_host("cp", "--sparse=always", str(debian_system.path / "disk.img"), str(image))
    guest = boot_disks(host, DiskConfig(image), memory=512 * MIB)
    expect(guest, "emuvisor login: ", BOOT_S)
    expect(guest, "Password: ", send="root\n")
    expect(guest, ":~# ", send=f"{PASSWORD}\n")
    # One plain line for each answer, whatever the terminal can do.
    command(guest, "bind 'set enable-bracketed-paste off'; export TERM=dumb")
    assert command(guest, "systemctl is-system-running --wait") == "running"
    assert command(guest, "python3 -c 'print(sum(range(10**5)), 2**100 % 97)'") == f"4999950000 {2**100 % 97}"
    assert command(guest, "findmnt -no SOURCE,FSTYPE /").split() == ["/dev/sda1", "ext4"]
    installed = command(guest, "apt-get install -qq -y /root/hello_*.deb >/dev/null 2>&1; echo $?", APT_S)
    assert installed == "0"
    assert command(guest, "hello") == "Hello, world!"
    assert command(guest, "apt-cache policy hello | grep Installed").startswith("Installed: 2.")

    guest.press_power_button()
    wait_for_power_off(guest, SHUTDOWN_S)
    partition = f"{image}?offset={PARTITION_OFFSET}"
    assert ": clean" in on_the_host("e2fsck", "-n", partition)
    on_the_host("e2fsck", "-fn", partition)
    assert "Type: regular" in on_the_host("debugfs", "-R", "stat /usr/bin/hello", partition)
    compatibility.row(
        guest="Debian, whole (systemd, amd64)",
        boots="GRUB from an IDE disk (ext4), SeaBIOS",
        checked="login; python3; apt installs a package; ACPI power button; clean file system",
    )
