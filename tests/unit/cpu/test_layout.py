import struct

import pytest
from cpu_guest import CODE, DATA, LONG, PAGES, dpl, flat, long, protected, vm86
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.cpu.layout import CONTEXT_SIZE, hidden_flags, pack, unpack
from emuvisor.cpu.state import CpuState, DescriptorTable, Fpu, Mtrrs, Segment
from emuvisor.errors import UsageError


def number(bits):
    return st.integers(0, (1 << bits) - 1)


segments = st.builds(
    Segment, number(16), number(64), number(32), number(32).map(lambda flags: flags & 0xF0FF00)
)
tables = st.builds(DescriptorTable, number(64), number(16))
fpus = st.builds(
    Fpu,
    fcw=number(16),
    fsw=number(16),
    ftw=number(8),
    st=st.lists(number(80), min_size=8, max_size=8),
    mxcsr=number(32),
    xmm=st.lists(number(128), min_size=16, max_size=16),
    fop=number(16),
    fip=number(64),
    fcs=number(16),
    fdp=number(64),
    fds=number(16),
)
states = st.builds(
    CpuState,
    rax=number(64),
    r15=number(64),
    rip=number(64),
    rflags=number(22).map(lambda flags: flags & 0x3F7FD5 | 2),
    es=segments,
    cs=segments,
    ss=segments,
    gs=segments,
    ldtr=segments,
    tr=segments,
    gdtr=tables,
    idtr=tables,
    cr0=number(32),
    cr2=number(64),
    cr3=number(64),
    cr4=number(23),
    dr0=number(64),
    dr7=number(32),
    efer=number(12),
    star=number(64),
    sysenter_cs=number(32),
    pat=number(64),
    tsc_adjust=number(64),
    tsc_aux=number(32),
    steal_time=number(64),
    mtrrs=st.builds(
        Mtrrs,
        fixed=st.lists(number(64), min_size=11, max_size=11),
        default_type=number(64),
        variable=st.lists(number(64), min_size=16, max_size=16),
    ),
    a20=st.booleans(),
    interrupt_shadow=st.booleans(),
    nmi_blocked=st.booleans(),
    fpu=fpus,
)


@given(states)
def test_unpacking_gives_the_packed_state(state):
    assert unpack(pack(state)) == state


def test_fields_lie_where_the_engine_keeps_them():
    state = CpuState(rsp=1, r8=2, rip=3, cr3=4, efer=5, lstar=6, dr7=7, kernel_gs_base=8)
    state.ss = Segment(9, 10, 11, 12)
    state.fpu.st[2] = 13 << 64 | 14
    state.fpu.xmm[1] = 15
    env = pack(state)
    for offset, value in {
        32: 1,
        64: 2,
        128: 3,
        448: 4,
        592: 5,
        4840: 6,
        5456: 7,
        4864: 8,
        240: 10,
        656: 14,
        888: 15,
    }.items():
        assert struct.unpack_from("<Q", env, offset) == (value,), offset
    assert struct.unpack_from("<I", env, 232) == (9,)
    assert struct.unpack_from("<II", env, 248) == (11, 12)
    assert struct.unpack_from("<H", env, 664) == (13,)


def test_rflags_are_split_as_the_engine_keeps_them():
    env = pack(CpuState(rflags=0x2 | 0x1 | 0x80 | 0x200 | 0x400))
    eflags, _, cc_src, _, cc_op, df = struct.unpack_from("<QQQQIi", env, 136)
    assert (eflags, cc_src, cc_op, df) == (0x202, 0x81, 1, -1)


def test_the_x87_stack_is_kept_with_its_top_apart():
    env = pack(CpuState(fpu=Fpu(fsw=0x2841, ftw=0b0000_0110)))
    assert struct.unpack_from("<I", env, 604) == (5,)
    assert struct.unpack_from("<H", env, 608) == (0x41,)
    assert list(env[612:620]) == [1, 0, 0, 1, 1, 1, 1, 1]


def test_the_x87s_last_instruction_lies_where_the_engine_keeps_it():
    env = pack(CpuState(fpu=Fpu(fop=1, fip=2, fcs=3, fdp=4, fds=5)))
    assert struct.unpack_from("<HHH2xQQ", env, 752) == (1, 3, 5, 2, 4)


def test_a_closed_a20_gate_is_a_mask():
    assert struct.unpack_from("<i", pack(CpuState()), 496) == (-1,)
    assert struct.unpack_from("<I", pack(CpuState(a20=False)), 496) == (0xFFEFFFFF,)


CPL3, CS32, SS32, ADDSEG, PE, LMA, CS64, SMAP = 3, 0x10, 0x20, 0x40, 0x80, 0x4000, 0x8000, 0x800000


@pytest.mark.parametrize(
    ("state", "hflags"),
    [
        pytest.param(CpuState(), ADDSEG, id="reset"),
        pytest.param(CpuState(interrupt_shadow=True), ADDSEG | 8, id="interrupt shadow"),
        pytest.param(CpuState(cr0=0xE), ADDSEG | 0xE00, id="MP EM TS"),
        pytest.param(protected(), PE | CS32 | SS32, id="flat 32-bit"),
        pytest.param(protected(cpl=3), PE | CS32 | SS32 | CPL3, id="ring 3"),
        pytest.param(protected(ds=Segment(0, 16, 0, DATA)), PE | CS32 | SS32 | ADDSEG, id="DS based"),
        pytest.param(protected(fs=Segment(0, 16, 0, DATA)), PE | CS32 | SS32, id="FS based"),
        pytest.param(protected(cs=flat(8, CODE)), PE | SS32 | ADDSEG, id="16-bit code"),
        pytest.param(vm86(), PE | CPL3 | ADDSEG, id="VM86"),
        pytest.param(long(), PE | LMA | CS64 | CS32 | SS32, id="64-bit"),
        pytest.param(long(ss=Segment()), PE | LMA | CS64 | CS32 | SS32, id="64-bit, null SS"),
        pytest.param(long(cpl=3), PE | LMA | CS64 | CS32 | SS32 | CPL3, id="64-bit ring 3"),
        pytest.param(
            long(cpl=3, cs=flat(0x1B, CODE | 0x400000 | PAGES | dpl(3))),
            PE | LMA | CS32 | SS32 | CPL3,
            id="compatibility mode",
        ),
        pytest.param(protected(cs=flat(8, CODE | LONG | 0x400000)), PE | CS32 | SS32, id="L without LMA"),
        pytest.param(protected(rflags=0x57302), PE | CS32 | SS32, id="RFLAGS are not repeated"),
        pytest.param(protected(cr4=0x200200), PE | CS32 | SS32 | SMAP | 0x400000, id="SMAP, OSFXSR"),
    ],
)
def test_hidden_flags_follow_from_the_state(state, hflags):
    assert hidden_flags(state) == hflags
    assert struct.unpack_from("<I", pack(state), 176) == (hflags,)


def test_packing_over_a_state_keeps_what_it_does_not_know():
    env = bytearray(b"\xa5" * CONTEXT_SIZE)
    pack(CpuState(), env)
    assert env[776:800] == b"\xa5" * 24
    assert env[900:940] != b"\xa5" * 40
    assert env[2900:4700] == b"\xa5" * 1800
    assert env[180:184] == b"\xa1\xa5\xa5\xa5", "hflags2, but for the NMI bit"


def test_a_buffer_of_another_size_is_refused():
    with pytest.raises(UsageError) as error:
        pack(CpuState(), bytearray(5504))
    assert str(error.value) == "packed CPU state: 5504 bytes, it must have 5568"
    with pytest.raises(UsageError) as error:
        unpack(b"")
    assert str(error.value) == "packed CPU state: 0 bytes, it must have 5568"


def test_flags_that_only_the_engine_can_evaluate_are_refused():
    env = pack(CpuState())
    struct.pack_into("<I", env, 168, 30)
    with pytest.raises(UsageError) as error:
        unpack(env)
    assert str(error.value) == "packed CPU state: its flags are not evaluated (cc_op is 30, not 1)"
