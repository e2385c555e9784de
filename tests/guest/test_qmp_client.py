"""QEMU's own client, `qemu.qmp`, with a firmware guest: what scripts for QEMU do with it works here."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ConnectError, EventListener, ExecuteError, Message, QMPClient
from qemu.qmp.legacy import QEMUMonitorProtocol

from emuvisor import firmware
from emuvisor.host import Guest, GuestState, Host
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig
from emuvisor.qmp import PlainGuest, QmpServer
from emuvisor.units import MIB

PATIENCE_S = 30
MEMORY = 16 * MIB


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """It fills the screen of a PC, and goes on for ever."""
    image = tmp_path / "spin.bin"
    image.write_bytes(firmware.image("spin"))
    (tmp_path / "disk.img").write_bytes(bytes(MIB))
    with Host(64 * MIB) as host:
        config = GuestConfig(
            name="fw",
            board="pc",
            memory=MEMORY,
            balloon=True,
            flat=FlatConfig(image, firmware.FLAT_ADDRESS),
            disks=(DiskConfig(tmp_path / "disk.img"),),
        )
        guest = host.create(config)
        guest.start()
        yield guest


@pytest.fixture
def address(guest: Guest, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "qmp"
    with QmpServer(PlainGuest(guest), str(path)):
        yield str(path)


async def next_event(listener: EventListener) -> tuple[str, Any]:
    event: Message = await asyncio.wait_for(listener.get(), PATIENCE_S)
    return str(event["event"]), event.get("data")


def test_a_script_that_waits_for_events(address: str, guest: Guest, tmp_path: Path) -> None:
    async def script() -> None:
        client = QMPClient("a script")
        with client.listener(("STOP", "RESUME", "RESET", "SHUTDOWN")) as listener:
            await client.connect(address)
            assert await client.execute("query-status") == {"status": "running", "running": True}
            await client.execute("stop")
            assert await next_event(listener) == ("STOP", None)
            await client.execute("cont")
            assert await next_event(listener) == ("RESUME", None)
            await client.execute("system_reset")
            assert await next_event(listener) == (
                "RESET",
                {"guest": False, "reason": "host-qmp-system-reset"},
            )
            await client.execute("stop")  # the cursor blinks
            assert await next_event(listener) == ("STOP", None)
            picture = tmp_path / "screen.png"
            await client.execute("screendump", {"filename": str(picture), "format": "png"})
            assert picture.read_bytes() == guest.screen().png()
            assert await client.execute("query-balloon") == {"actual": MEMORY}
            with pytest.raises(ExecuteError) as error:
                await client.execute("device_del", {"id": "x"})
            assert error.value.error_class == "CommandNotFound"
            assert str(error.value) == "The command device_del has not been found"
            await client.execute("quit")
            assert await next_event(listener) == ("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        await client.disconnect()

    asyncio.run(script())
    assert guest.state is GuestState.DEFINED


def test_two_scripts_at_a_time(address: str) -> None:
    async def scripts() -> None:
        first, second = QMPClient("first"), QMPClient("second")
        await first.connect(address)
        await second.connect(address)
        with second.listener("STOP") as listener:
            await first.execute("stop")
            assert await next_event(listener) == ("STOP", None)
        answers = await asyncio.gather(*(client.execute("query-name") for client in (first, second) * 10))
        assert answers == [{"name": "fw"}] * 20
        await first.disconnect()
        await second.disconnect()

    asyncio.run(scripts())


@pytest.fixture
def loop() -> Iterator[None]:
    """The event loop that the old interface takes, and does not close."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("loop")
def test_the_old_interface(address: str) -> None:
    """That of scripts written for QEMU before `qemu.qmp` was asyncio's."""
    with QEMUMonitorProtocol(address) as monitor:
        assert monitor.connect() is not None
        assert monitor.cmd("query-block")[0]["device"] == "ide0-hd0"  # type: ignore[index,call-overload]
        reply = monitor.cmd_raw("query-nothing")
        assert reply["error"]["class"] == "CommandNotFound"
        status = monitor.cmd("human-monitor-command", **{"command-line": "info status"})
        assert status == "VM status: running\r\n"
        monitor.cmd("stop")
        assert monitor.pull_event(PATIENCE_S)["event"] == "STOP"  # type: ignore[index]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    async def script() -> None:
        with pytest.raises(ConnectError):
            await QMPClient("a script").connect(str(tmp_path / "none"))

    asyncio.run(script())
