"""LOCK in front of what cannot be locked is #UD; for bit tests of a register the engine needs our help to see it."""

import pytest
from cpu_guest import CODE0, CODE64, IDT, identity_map, long, protected, tables
from run_rig import CODE, DATA, Rig, asm, put_handler, real

UD = 6
HANDLER = 0x9000

BIT_TESTS = [
    *(f"0f {opcode:02x} c8" for opcode in (0xA3, 0xAB, 0xB3, 0xBB)),  # BT, BTS, BTR, BTC EAX, ECX
    *(f"0f ba {modrm:02x} 05" for modrm in (0xE1, 0xE9, 0xF1, 0xF9)),  # ... ECX, 5
]
PREFIXES = ["f0", "66 f0", "f0 66", "f0 f0 2e", "f2 65 f0 f3 67 36"]


def guest_in(mode, code):
    data = identity_map(tables()) if mode == 64 else tables()
    data[HANDLER] = 0xF4
    if mode == 16:
        data[4 * UD : 4 * UD + 4] = HANDLER.to_bytes(4, "little")
        state = real(rcx=0x1234, rax=0x5678)
    else:
        put_handler(data, UD, HANDLER, CODE64 if mode == 64 else CODE0, IDT, long=mode == 64)
        state = (long if mode == 64 else protected)(rcx=0x1234, rax=0x5678)
    return Rig().guest(state, code, data)


@pytest.mark.parametrize("mode", [16, 32, 64])
@pytest.mark.parametrize("bit_test", BIT_TESTS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_locked_bit_test_of_a_register(mode, bit_test, prefix):
    guest = guest_in(mode, b"\x90\x43" + bytes.fromhex(prefix + bit_test) if mode != 64 else
                     b"\x90\xff\xc3" + bytes.fromhex(prefix + bit_test))  # fmt: skip
    state = guest.run_to_halt()
    assert state.rip == HANDLER + 1
    word = {16: 2, 32: 4, 64: 8}[mode]
    where = CODE + (3 if mode == 64 else 2)
    assert guest.at(state.rsp, word) == where, "the instructions before it have run, it has not"
    assert (state.rax, state.rbx, state.rcx) == (0x5678, 1, 0x1234)


@pytest.mark.parametrize("rex", ["48", "4f", "41"])
def test_with_rex(rex):
    guest = guest_in(64, bytes.fromhex(f"f0 {rex} 0f ab c1"))
    assert guest.run_to_halt().rip == HANDLER + 1


@pytest.mark.parametrize(
    ("name", "before", "after"), [("bts", 0, 4), ("btr", 7, 3), ("btc", 4, 0), ("bt", 4, 4)]
)
def test_a_locked_bit_test_of_memory(name, before, after):
    guest = guest_in(32, asm(f"mov ecx, 2; lock {name} dword ptr [0x7000], ecx; setc bl; hlt", 32)
                     if name != "bt" else bytes.fromhex("b902000000 f0 0fa30d00700000 0f92c3 f4"))  # fmt: skip
    guest.memory.write(DATA, bytes([before]))
    state = guest.run_to_halt()
    assert (guest.at(DATA, 4), state.rbx) == (after, before >> 2 & 1)


def test_a_bit_test_behind_a_byte_that_looks_like_lock():
    guest = guest_in(64, asm("mov al, 0xf0") + asm("bts eax, ecx; mov bl, 0xf0") + asm("bts ebx, 1; hlt"))
    state = guest.run_to_halt()
    assert state.rax == 0x56F0 | 1 << (0x1234 & 31)
    assert state.rbx == 0xF2


def test_loads_behind_bytes_that_look_like_a_locked_bit_test():
    # mov al, 0F0h; then: mov edi, [rdi] with bytes 0F A3 .. only as data of the instruction before
    guest = guest_in(64, bytes.fromhex("68 f00fa3c8") + asm("pop rdx; mov rsi, [r15 + 0x7000]; hlt"))
    guest.memory.write(DATA, b"\x77")
    assert guest.run_to_halt().rsi == 0x77


OTHERS = "f090 f089c8 f001c8 f00fb1c8 f0f7d0 f00fc1c8 f087c8 f0ffc0 f080c101 f00fc7c8 f08b07 f0f4 f00fa2"


@pytest.mark.parametrize("code", OTHERS.split())
def test_other_locked_instructions_do_not_kill_the_host(code):
    """Not all of them are #UD on this engine, which is more lenient than a processor."""
    guest = guest_in(64, bytes.fromhex(code) + b"\xf4")
    guest.run_to_halt()
