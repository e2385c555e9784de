"""iPXE from its ISO boots a kernel over HTTP from a server in the test."""

from pathlib import Path

import pytest
from compatibility import Compatibility
from guests import command, power_off, reach_shell, see
from network_guests import GATEWAY, lease, web_server

from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import DiskConfig, GuestConfig, NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

SCRIPT = """\
#!ipxe
kernel vmlinuz console=ttyS0 from=${filename}
initrd initrd.cpio
boot
"""


def test_kernel_over_http(
    host: Host, ipxe: Image, debian: Image, tmp_path: Path, compatibility: Compatibility
) -> None:
    (tmp_path / "boot.ipxe").write_text(SCRIPT)
    assert debian.kernel is not None
    assert debian.initrd is not None
    (tmp_path / "vmlinuz").symlink_to(debian.kernel)
    (tmp_path / "initrd.cpio").symlink_to(debian.initrd)
    with web_server(tmp_path) as port:
        url = f"http://{GATEWAY}:{port}/boot.ipxe"
        host.add_network(NetworkConfig("lan", uplink="user", host_loopback=True, bootfile=url))
        guest = host.create(
            GuestConfig(
                clock="host",
                firmware="seabios",
                memory=256 * MIB,
                disks=(DiskConfig(ipxe.path / "ipxe.iso", kind="cdrom"),),
                nics=(NicConfig("lan"),),
            )
        )
        guest.start()
        see(guest, r"using virtio-net on 0000:00:03\.0 \(open\)")
        reach_shell(guest)
    assert f"console=ttyS0 from={url}" in command(guest, "cat /proc/cmdline")
    assert lease(guest) == "10.0.2.15"
    power_off(guest)
    compatibility.row(
        guest="iPXE",
        boots="ISOLINUX from an ISO (ATAPI CD-ROM), SeaBIOS",
        checked="its driver of virtio-net over PCI; DHCP; script, kernel and initrd of Debian by HTTP; shell",
    )
