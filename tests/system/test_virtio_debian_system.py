"""A whole Debian on virtio: it boots from a disk, installs a package from a shared folder, and talks to the host."""

import re
from pathlib import Path

import pytest
from compatibility import Compatibility
from filesystems import on_the_host
from guests import command, expect, wait_for_power_off

from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.images.debian_system import PARTITION_OFFSET, PASSWORD
from emuvisor.machine.config import DiskConfig, GuestConfig, ShareConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

BOOT_S = 480
APT_S = 300
SHUTDOWN_S = 300
TALK_S = 240
CID = 3
VSOCK_PORT = 5000
SAID = bytes(range(256)) * 64
CLIENT = f"""\
import socket
s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
s.connect((socket.VMADDR_CID_HOST, {VSOCK_PORT}))
while data := s.recv(65536): s.sendall(data)
print('said to', s.getpeername())
"""
PORT = "org.example.port"
PACKAGE = re.compile(r"hello_\S+\.deb")


def package_of(image: Path, folder: Path) -> Path:
    """The package that lies in root's home on the image's disk, copied into `folder`."""
    partition = f"{image}?offset={PARTITION_OFFSET}"
    name = PACKAGE.search(on_the_host("debugfs", "-R", "ls /root", partition))
    assert name is not None
    on_the_host("debugfs", "-R", f"dump /root/{name[0]} {folder / name[0]}", partition)
    return folder / name[0]


def test_from_grub_to_power_button(
    host: Host, debian_system: Image, tmp_path: Path, compatibility: Compatibility
) -> None:
    image, share = tmp_path / "disk.img", tmp_path / "share"
    on_the_host("cp", "--sparse=always", debian_system.path / "disk.img", image)
    share.mkdir()
    package = package_of(image, share)
    guest = host.create(
        GuestConfig(
            memory=512 * MIB,
            firmware="seabios",
            disks=(DiskConfig(image, bus="virtio"),),
            shares=(ShareConfig(share, "packages"),),
            rng=True,
            vsock=CID,
            console_ports=("hvc", PORT),
        )
    )
    guest.start()
    expect(guest, "emuvisor login: ", BOOT_S)
    expect(guest, "Password: ", send="root\n")
    expect(guest, ":~# ", send=f"{PASSWORD}\n")
    # One plain line for each answer, whatever the terminal can do.
    command(guest, "bind 'set enable-bracketed-paste off'; export TERM=dumb")
    assert command(guest, "systemctl is-system-running --wait") == "running"
    assert command(guest, "findmnt -no SOURCE,FSTYPE /").split() == ["/dev/vda1", "ext4"]

    (share / "echo.py").write_text(CLIENT)
    listed = command(guest, "rm /root/*.deb; mount -t virtiofs packages /mnt; ls /mnt")
    assert listed.split() == ["echo.py", package.name]
    installed = command(guest, "apt-get install -qq -y /mnt/hello_*.deb >/dev/null 2>&1; echo $?", APT_S)
    assert installed == "0"
    assert command(guest, "hello") == "Hello, world!"

    # A program of the guest's sends back what the host says to it.
    listener = guest.vsock.listen(VSOCK_PORT)
    guest.type("python3 /mnt/echo.py\n")
    stream = listener.accept(TALK_S)
    stream.settimeout(TALK_S)
    stream.send(SAID)
    heard = b""
    while len(heard) < len(SAID):
        heard += stream.recv(len(SAID))
    assert heard == SAID
    stream.close()
    expect(guest, f"said to (2, {VSOCK_PORT})", TALK_S)

    # Ports of the virtio console, found by name.
    place = f"/dev/virtio-ports/{PORT}"
    guest.type(f'read line < {place}; echo "you said: $line" > {place}\n')
    assert guest.expect("you said: good day\n", TALK_S, send="good day\n", port=PORT)
    command(guest, "echo on the console > /dev/hvc0")
    assert "on the console" in guest.port("hvc").text

    guest.press_power_button()
    wait_for_power_off(guest, SHUTDOWN_S)
    partition = f"{image}?offset={PARTITION_OFFSET}"
    assert ": clean" in on_the_host("e2fsck", "-n", partition)
    on_the_host("e2fsck", "-fn", partition)
    assert "Type: regular" in on_the_host("debugfs", "-R", "stat /usr/bin/hello", partition)
    compatibility.row(
        guest="Debian, whole (systemd, amd64)",
        boots="GRUB from a virtio disk on PCI (ext4), SeaBIOS",
        checked="login; package from a shared folder; vsock echo by python3; console ports; power button; clean ext4",
    )
