"""A running vCPU and RAM that is plugged and unplugged: what it may have cached of a block must not outlive it."""

import pytest
from cpu_guest import protected
from run_rig import PAGE, PLENTY, Rig, asm

from emuvisor.cpu.exits import ExitReason

BLOCK = 0x100000
ONES = 0xFFFFFFFF
LOOP = asm(
    f"mov esi, {BLOCK}; a: mov eax, [esi]; mov dword ptr [esi], 0x12345678; mov ebx, [esi]; hlt; jmp a", 32
)


@pytest.fixture
def guest():
    guest = Rig().guest(protected(), LOOP)
    guest.memory.add_pluggable(BLOCK, 4 * PAGE, 2 * PAGE)
    return guest


def turn(guest):
    """What it reads before and behind a write."""
    guest.vcpu.halted = False
    state = guest.run_to_halt()
    return state.rax & ONES, state.rbx & ONES


def test_a_block_comes_and_goes(guest):
    ram = guest.memory.pluggable[0]
    for _ in range(3):
        assert turn(guest) == (ONES, ONES)
        assert guest.devices.log == [("load", BLOCK, 4), ("store", BLOCK, 0x12345678, 4), ("load", BLOCK, 4)]
        guest.devices.log.clear()
        used = guest.memory.pool.used
        ram.plug(0, 1)
        assert turn(guest) == (0, 0x12345678)
        assert turn(guest) == (0x12345678, 0x12345678)
        assert guest.memory.read(BLOCK, 4) == bytes.fromhex("78563412")
        assert ram.unplug(0, 1) == 1
        assert guest.memory.pool.used == used
        assert not guest.devices.log


def test_code_in_a_block_that_goes(guest):
    ram = guest.memory.pluggable[0]
    ram.plug(0, 1)
    guest.memory.write(BLOCK, asm("mov eax, 7; hlt", 32, BLOCK))
    state = protected()
    state.rip = BLOCK
    guest.vcpu.state = state
    assert guest.run_to_halt().rax == 7
    ram.unplug(0, 1)
    ram.plug(0, 1)
    guest.memory.write(BLOCK, asm("mov eax, 8; hlt", 32, BLOCK))
    guest.vcpu.state = state
    assert guest.run_to_halt().rax == 8
    ram.unplug(0, 1)
    guest.vcpu.state = state
    assert guest.run(PLENTY).reason is not ExitReason.HALT
