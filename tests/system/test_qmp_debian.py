"""QEMU's own client with a Debian guest on a PC: what scripts do with a virtual machine."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from guests import command, reach_shell
from qemu.qmp import EventListener, QMPClient
from virtio_guests import kernel, until

from emuvisor.host import Guest, GuestState, Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import DiskConfig, GuestConfig
from emuvisor.qmp import PlainGuest, QmpServer
from emuvisor.units import MIB

pytestmark = pytest.mark.system

MEMORY = 256 * MIB
LESS = 192 * MIB
DISK = 8 * MIB
PATIENCE_S = 60


async def data_of(listener: EventListener) -> Any:
    event = await asyncio.wait_for(listener.get(), PATIENCE_S)
    return event.get("data")


async def human(client: QMPClient, line: str) -> str:
    text = await client.execute("human-monitor-command", {"command-line": line})
    assert isinstance(text, str)
    return text


async def script(client: QMPClient, guest: Guest) -> None:
    # Its disk is read, and the numbers say so.
    before = (await client.execute("query-blockstats"))[0]["stats"]  # type: ignore[index,call-overload]
    checksum = hashlib.md5(bytes(DISK)).hexdigest()
    assert await asyncio.to_thread(command, guest, "md5sum < /dev/vda") == f"{checksum}  -"
    after = (await client.execute("query-blockstats"))[0]["stats"]  # type: ignore[index,call-overload]
    assert after["rd_bytes"] - before["rd_bytes"] >= DISK
    assert after["rd_operations"] > before["rd_operations"]

    # Its driver gives memory up.
    with client.listener("BALLOON_CHANGE") as listener:
        await client.execute("balloon", {"value": LESS})
        while (await data_of(listener))["actual"] != LESS:
            pass
    assert await client.execute("query-balloon") == {"actual": LESS}

    # It is in long mode, and its stack is where its page tables say.
    await client.execute("stop")
    registers = await human(client, "info registers")
    assert "EFER=0000000000000d01" in registers
    address_of_stack = registers.partition("RSP=")[2][:16]
    assert (await human(client, f"x/2xg 0x{address_of_stack}")).startswith(address_of_stack)

    # Back to where it was, in memory.
    await human(client, "savevm here")
    await client.execute("cont")
    await asyncio.to_thread(command, guest, "echo later > /tmp/when")
    await human(client, "loadvm here")
    await client.execute("cont")
    assert await asyncio.to_thread(command, guest, "ls /tmp") == ""

    with client.listener("SHUTDOWN") as listener:
        await client.execute("quit")
        assert await data_of(listener) == {"guest": False, "reason": "host-qmp-quit"}


async def connect(address: str, guest: Guest) -> None:
    client = QMPClient("a script")
    await client.connect(address)
    try:
        await script(client, guest)
    finally:
        await client.disconnect()


def test_a_script(host: Host, debian: Image, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(DISK))
    guest = host.create(
        GuestConfig(
            board="pc",
            memory=MEMORY,
            kernel=kernel(debian),
            balloon=True,
            disks=(DiskConfig(image, bus="virtio"),),
        )
    )
    guest.start()
    reach_shell(guest)
    until(guest, lambda: guest.balloon.live, "a driver for the balloon")
    with QmpServer(PlainGuest(guest), f"unix:{tmp_path / 'qmp'}"):
        asyncio.run(connect(str(tmp_path / "qmp"), guest))
    assert guest.state is GuestState.DEFINED
