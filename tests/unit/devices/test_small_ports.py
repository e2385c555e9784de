"""Ports of one register: A20 and reset, POST codes, debug console, exit, shutdown and panic."""

from collections.abc import Callable

import pytest
from device_rigs import Rig

from emuvisor.devices.pvpanic import PanicEvent

RigOf = Callable[[str], Rig]


def test_port_92_drives_the_a20_gate(rig_of: RigOf) -> None:
    rig = rig_of("port92")
    port = rig.chips["port92"]
    assert port.read(0, 1) == 0x02
    port.write(0, 0x00, 1)
    port.write(0, 0x00, 1)
    assert port.read(0, 1) == 0x00
    port.write(0, 0x02, 1)
    assert rig.logged("a20") == [False, True]
    assert rig.logged("reset") == []


def test_port_92_resets_on_a_rising_bit(rig_of: RigOf) -> None:
    rig = rig_of("port92")
    port = rig.chips["port92"]
    port.write(0, 0x03, 1)
    port.write(0, 0x03, 1)
    assert port.read(0, 1) == 0x03
    assert rig.logged("reset") == [None]
    port.reset()
    port.write(0, 0x03, 1)
    assert rig.logged("reset") == [None, None]


def test_a_reset_opens_the_a20_gate(rig_of: RigOf) -> None:
    rig = rig_of("port92")
    rig.chips["a20"].set(False)
    rig.chips["a20"].reset()
    rig.chips["a20"].reset()
    assert rig.logged("a20") == [False, True]


def test_restoring_the_a20_gate_calls_nobody(rig_of: RigOf) -> None:
    rig = rig_of("port92")
    rig.chips["a20"].set(False)
    again = rig.restored()
    assert not again.chips["a20"].enabled
    assert again.logged("a20") == [False]  # the one before the save


def test_the_last_post_codes_are_kept(rig_of: RigOf) -> None:
    post = rig_of("post").chips["post"]
    assert post.read(0, 1) == 0
    for code in range(1000):
        post.write(0, code & 0xFF, 1)
        post.write(0, code & 0xFF, 1)  # delay loops write the same again
    assert post.read(0, 1) == 999 & 0xFF
    assert list(post.codes) == [code & 0xFF for code in range(1000 - 256, 1000)]
    post.reset()
    assert list(post.codes) == []


def test_restored_post_codes_stay_bounded() -> None:
    rig = Rig("post")
    rig.chips["post"].write(0, 1, 1)
    post = rig.restored().chips["post"]
    for code in range(1000):
        post.write(0, code & 0xFF, 1)
    assert len(post.codes) == 256


def test_the_debug_console_prints_and_tells_that_it_is_there(rig_of: RigOf) -> None:
    rig = rig_of("debugcon")
    console = rig.chips["debugcon"]
    assert console.read(0, 1) == 0xE9
    for byte in b"hi":
        console.write(0, byte, 1)
    console.write(0, 0x4241, 2)
    console.reset()
    assert rig.sent() == b"hiAB"


@pytest.mark.parametrize(("value", "code"), [(0, 1), (1, 3), (0x10, 0x21), (0xFFFF_FFFF, 0x1_FFFF_FFFF)])
def test_debug_exit_gives_an_odd_exit_code(rig_of: RigOf, value: int, code: int) -> None:
    rig = rig_of("debug_exit")
    assert rig.chips["debug_exit"].read(0, 4) == 0
    rig.chips["debug_exit"].reset()
    assert rig.logged("exit") == []
    rig.chips["debug_exit"].write(0, value, 4)
    assert rig.logged("exit") == [code]


@pytest.mark.parametrize(
    ("offset", "value", "size", "off"),
    [
        (0, 0x2000, 2, True),
        (0, 0x2001, 2, True),
        (1, 0x20, 1, True),
        (0, 0x3C00, 2, False),
        (0, 0x0000, 2, False),
        (0, 0x20, 1, False),
    ],
)
def test_pm1a_control_switches_off(rig_of: RigOf, offset: int, value: int, size: int, off: bool) -> None:
    rig = rig_of("pm1a")
    rig.chips["pm1a"].write(offset, value, size)
    assert rig.logged("off") == ([None] if off else [])
    assert rig.chips["pm1a"].read(0, 2) == 0
    rig.chips["pm1a"].reset()


@pytest.mark.parametrize(
    ("text", "times"),
    [
        (b"Shutdown", 1),
        (b"ShutShutdown", 1),
        (b"SSShutdown", 1),
        (b"ShutdownShutdown", 2),
        (b"shutdown", 0),
        (b"Shutdow", 0),
        (b"Shut down", 0),
    ],
)
def test_the_shutdown_port_waits_for_its_word(rig_of: RigOf, text: bytes, times: int) -> None:
    rig = rig_of("shutdown")
    port = rig.chips["shutdown"]
    for byte in text:
        port.write(0, byte, 1)
    assert rig.logged("off") == [None] * times
    assert port.read(0, 1) == 0


def test_reset_forgets_half_a_word(rig_of: RigOf) -> None:
    rig = rig_of("shutdown")
    port = rig.chips["shutdown"]
    for byte in b"Shut":
        port.write(0, byte, 1)
    port.reset()
    for byte in b"down":
        port.write(0, byte, 1)
    assert rig.logged("off") == []


def test_the_reset_control_register_resets_on_a_rising_bit(rig_of: RigOf) -> None:
    rig = rig_of("reset_control")
    register = rig.chips["reset_control"]
    register.write(0, 0x02, 1)
    assert rig.logged("reset") == []
    register.write(0, 0xFE, 1)
    register.write(0, 0x06, 1)
    assert register.read(0, 1) == 0x06
    assert rig.logged("reset") == [None]
    register.reset()
    register.write(0, 0x04, 1)
    assert rig.logged("reset") == [None, None]


def test_a_panic_is_told(rig_of: RigOf) -> None:
    rig = rig_of("pvpanic")
    port = rig.chips["pvpanic"]
    assert port.read(0, 1) == 0x03
    port.write(0, 0xFC, 1)
    assert rig.logged("panic") == []
    port.write(0, 0x01, 1)
    port.reset()
    port.write(0, 0x02, 1)
    assert rig.logged("panic") == [PanicEvent.PANICKED, PanicEvent.CRASH_LOADED]
