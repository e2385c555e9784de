"""The architectural state goes into a vCPU, through an engine, and comes back."""

import pytest
from cpu_guest import identity_map, long, protected, tables
from hypothesis import given, settings
from hypothesis import strategies as st
from run_rig import CODE, Rig, asm, real

from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.models import DEFAULT_MODEL
from emuvisor.cpu.reference.faults import Event, Kind
from emuvisor.cpu.registers import FLAGS_IMPLEMENTED
from emuvisor.cpu.saved_state import load_cpu, save_cpu
from emuvisor.cpu.state import CpuState, DescriptorTable, Fpu, Segment
from emuvisor.errors import UsageError

quad = st.integers(0, (1 << 64) - 1)
FLAG_VM, FLAG_TF = 1 << 17, 1 << 8
GENERAL = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16))]
MSRS = ["star", "lstar", "cstar", "fmask", "kernel_gs_base", "sysenter_esp", "sysenter_eip", "pat", "tsc_aux"]
MSRS += ["tsc_adjust", "steal_time"]


def segment(flags):
    return st.builds(
        Segment,
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.just(flags),
    )


events = st.builds(
    Event, st.integers(0, 255), st.sampled_from(Kind), st.none() | st.integers(0, 0xFFFFFFFF), quad
)


@st.composite
def states(draw):
    """Valid states of real, protected and long mode, with everything else at random."""
    state = draw(st.sampled_from([real, protected, long, lambda: long(3), lambda: protected(3)]))()
    for name in GENERAL + MSRS + ["rip", "cr2", "dr0", "dr1", "dr2", "dr3"]:
        setattr(state, name, draw(quad))
    state.rflags = draw(st.integers(0, 0x3FFFFF)) & FLAGS_IMPLEMENTED & ~FLAG_VM | 2
    for name in ("ds", "es", "fs", "gs"):
        setattr(state, name, draw(segment(getattr(state, name).flags)))
    state.gdtr, state.idtr = (
        draw(st.builds(DescriptorTable, quad, st.integers(0, 0xFFFF))) for _ in range(2)
    )
    state.sysenter_cs = draw(st.integers(0, 0xFFFF))
    state.dr6 = 0xFFFF0FF0 | draw(st.integers(0, 15))
    state.dr7 = 0x400 | draw(st.integers(0, 0xFF))
    state.a20 = draw(st.booleans())
    state.interrupt_shadow = draw(st.booleans())
    state.nmi_pending, state.nmi_blocked = draw(st.booleans()), draw(st.booleans())
    state.mtrrs.default_type = draw(quad)
    state.mtrrs.fixed[draw(st.integers(0, 10))] = draw(quad)
    state.mtrrs.variable[draw(st.integers(0, 15))] = draw(quad)
    state.event = draw(st.none() | events)
    state.fpu = draw(
        st.builds(
            Fpu,
            fcw=st.integers(0, 3).map(lambda rc: 0x37F | rc << 10),
            fsw=st.integers(0, 0xFFFF),
            ftw=st.integers(0, 0xFF),
            st=st.lists(st.integers(0, (1 << 80) - 1), min_size=8, max_size=8),
            mxcsr=st.integers(0, 3).map(lambda rc: 0x1F80 | rc << 13),
            xmm=st.lists(st.integers(0, (1 << 128) - 1), min_size=16, max_size=16),
            fop=st.integers(0, 0x7FF),
            fip=quad,
            fcs=st.integers(0, 0xFFFF),
            fdp=quad,
            fds=st.integers(0, 0xFFFF),
        )
    )
    return state


@pytest.fixture(scope="module")
def guest():
    return Rig(pcpus=2).guest(real(), asm("a: jmp a", 16))


@settings(max_examples=100, deadline=None)
@given(state=states())
def test_a_state_comes_back(guest, state):
    guest.vcpu.state = state
    assert guest.vcpu.state.differences(state) == {}


@settings(max_examples=100, deadline=None)
@given(state=states())
def test_a_state_comes_back_from_the_engine(guest, state):
    """Loaded by both pCPUs in turn, with debug registers armed, and not run."""
    guest.vcpu.state = state
    for pcpu in (0, 1, 0):
        assert guest.run(0, pcpu).reason is ExitReason.BUDGET
        assert guest.vcpu.state.differences(state) == {}


def test_the_x87s_last_instruction_goes_along_with_the_plain_state():
    source = "fldpi; fstp qword ptr [0x2008]; hlt; fnstenv [0x2100]; hlt"
    first, second = (Rig().guest(protected(), asm(source, 32)) for _ in range(2))
    state = first.run_to_halt()
    assert (state.fpu.fip, state.fpu.fdp) == (CODE + 2, 0x2008)
    second.vcpu.state = load_cpu(save_cpu(state))
    for guest in (first, second):
        guest.vcpu.halted = False
        guest.run_to_halt()
    assert second.memory.read(0x2100, 28) == first.memory.read(0x2100, 28)
    assert second.at(0x210C, 4) == CODE + 2


def test_a_new_vcpu_is_as_after_reset():
    guest = Rig().empty()
    assert guest.vcpu.state.differences(CpuState()) == {}
    assert (guest.vcpu.work, guest.vcpu.idle_ns, guest.vcpu.halted) == (0, 0, False)


def test_the_reset_vector_is_fetched_below_4_gib():
    guest = Rig().empty()
    guest.memory.add_rom(0xFFFFF000, bytes(0xFF0) + asm("mov ax, 0x77; hlt", 16).ljust(16, b"\0"))
    assert guest.run_to_halt().rax == 0x77


def test_a_state_of_another_size_is_refused(guest):
    with pytest.raises(ValueError, match=r"^a vCPU state has 5568 bytes, not 3$"):
        guest.vcpu.restore(b"abc")


def test_the_digest_tells_states_apart(guest):
    guest.vcpu.state = real()
    before = guest.vcpu.digest()
    guest.vcpu.state = real(r15=1)
    assert guest.vcpu.digest() != before
    guest.vcpu.state = real()
    assert guest.vcpu.digest() == before
    guest.vcpu.work += 1
    assert guest.vcpu.digest() != before


@pytest.mark.parametrize(
    ("make", "bits", "source"),
    [
        (real, 16, "mov eax, cr0; or al, 1; mov cr0, eax; and al, 0xfe; mov cr0, eax; mov bx, 5; hlt"),
        (protected, 32, "mov ax, 0x10; mov ds, ax; pushfd; popfd; mov bx, 5; hlt"),
        (long, 64, "mov rax, cr4; mov cr4, rax; mov rax, cr3; mov cr3, rax; mov bx, 5; hlt"),
    ],
)
def test_a_state_saved_after_any_block_continues_elsewhere(make, bits, source):
    """Run on one vCPU; after every block carry on with a new vCPU that was given the state."""
    rig = Rig(pcpus=2)
    data = identity_map(tables())
    whole = rig.guest(make(), asm(source, bits), data)
    final = whole.run_to_halt()
    guest = rig.guest(make(), asm(source, bits), data)
    for turn in range(100):
        if guest.run(1, turn % 2).reason is ExitReason.HALT:
            break
        other = rig.empty()
        other.memory.write(0, guest.memory.read(0, 0x10000))
        other.vcpu.state = guest.vcpu.state
        other.vcpu.halted = guest.vcpu.halted  # a run can end with its budget and HLT at once
        guest.memory.close()
        guest = other
    assert guest.vcpu.state.differences(final) == {}
    assert final.rip == CODE + len(asm(source, bits))


# ---- what waits: NMIs, an event ----


def nmi_guest(rig, **state):
    guest = rig.guest(real(**state), asm("a: inc ax; jmp a", 16))
    guest.memory.write(4 * 2, (0x9000).to_bytes(4, "little"))
    guest.memory.write(0x9000, asm("inc cx; jmp a; a: jmp b; b: iret", 16, 0x9000))
    return guest


def carried_over(rig, guest):
    """The same guest with a new vCPU that was given the state."""
    twin = rig.clone(guest)
    assert twin.vcpu.state.differences(guest.vcpu.state) == {}
    return twin


def test_a_waiting_nmi_goes_with_the_state():
    rig = Rig()
    guest = nmi_guest(rig)
    guest.vcpu.raise_nmi()
    assert guest.vcpu.state.nmi_pending
    twin = carried_over(rig, guest)
    twin.run(100)
    assert (twin.vcpu.state.rcx, twin.vcpu.state.nmi_pending) == (1, False)


def test_an_nmi_that_is_being_handled_goes_with_the_state():
    """The second NMI waits for IRET on the new vCPU as well."""
    rig = Rig()
    guest = nmi_guest(rig)
    guest.vcpu.raise_nmi()
    guest.run(33)
    assert guest.vcpu.state.nmi_blocked
    guest.vcpu.raise_nmi()
    twin = carried_over(rig, guest)
    assert (twin.vcpu.state.nmi_blocked, twin.vcpu.state.nmi_pending) == (True, True)
    twin.run(500)
    state = twin.vcpu.state
    assert (state.rcx, state.rsp, state.nmi_blocked) == (2, 0x7000, False)


def test_an_event_that_found_no_frame_goes_with_the_state():
    rig = Rig(pool=17 * 4096)
    guest = rig.guest(real(rsp=0x12000), asm("int 0x40; hlt", 16), blocks=((0, 0x20000),))
    guest.memory.write(4 * 0x40, (0x9000).to_bytes(4, "little"))
    guest.memory.write(0x9000, asm("inc cx; hlt", 16, 0x9000))
    hoard = rig.pool.take_many(rig.pool.free)
    state = guest.vcpu.state
    state.ss = Segment(0x1000, 0x10000, 0xFFFF, 0x9300)
    guest.vcpu.state = state
    assert guest.run().reason is ExitReason.MEMORY
    state = guest.vcpu.state
    assert state.event == Event(0x40, Kind.SOFTWARE, None, CODE)
    rig.pool.release(hoard)
    twin = carried_over(rig, guest)
    final = twin.run_to_halt()
    assert (final.rcx, final.event, final.rip) == (1, None, 0x9002)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ((300, 1, None, 0), OverflowError),
        ((1, 4, None, 0), ValueError),
        ((1, 1, "x", 0), TypeError),
        ((1, 1), TypeError),
        (5, TypeError),
    ],
)
def test_events_that_are_none(guest, event, error):
    guest.vcpu.state = real()
    with pytest.raises(error):
        guest.vcpu.event = event
    assert guest.vcpu.event is None


def test_an_event_is_set_only_while_it_does_not_run():
    guest = Rig().guest(real(), asm("out 0x10, al; hlt", 16))

    def set_event():
        guest.vcpu.event = None

    guest.devices.on_access = set_event
    with pytest.raises(RuntimeError, match=r"^the vCPU is running$"):
        guest.run()


# ---- INIT and start-up ----


def test_init():
    guest = Rig().guest(long(), asm("hlt"), identity_map(tables()))
    guest.run_to_halt()
    state = guest.vcpu.state
    state.rbx, state.r9, state.cr2, state.dr0, state.dr7 = 1, 2, 3, 4, 0x401
    state.cr0 |= 1 << 30
    state.star, state.pat, state.tsc_adjust, state.kernel_gs_base, state.sysenter_eip = 5, 6, 7, 8, 9
    state.mtrrs.default_type, state.a20 = 0xC06, False
    state.steal_time = 0x7001
    state.fpu.mxcsr, state.fpu.xmm[3], state.fpu.fcw = 0x1FA0, 77, 0x27F
    state.nmi_pending = state.nmi_blocked = state.interrupt_shadow = True
    state.event = Event(14, Kind.EXCEPTION, 2)
    guest.vcpu.state = state
    guest.vcpu.init()
    after = guest.vcpu.state
    expected = CpuState(
        rdx=DEFAULT_MODEL.signature,
        cr0=0x40000010,
        star=5,
        pat=6,
        tsc_adjust=7,
        kernel_gs_base=8,
        sysenter_eip=9,
        a20=False,
        fpu=state.fpu,
        mtrrs=state.mtrrs,
        idtr=DescriptorTable(0, 0xFFFF),
    )
    assert after.differences(expected) == {}


def test_after_init_it_runs_from_the_reset_vector():
    guest = Rig().guest(long(), asm("hlt"), identity_map(tables()))
    guest.memory.add_rom(0xFFFFF000, bytes(0xFF0) + asm("mov ax, 0x77; hlt", 16).ljust(16, b"\0"))
    guest.run_to_halt()
    guest.vcpu.init()
    assert guest.run_to_halt().rax == 0x77


def test_a_start_up_ipi():
    guest = Rig().guest(long(), asm("hlt"), identity_map(tables()))
    guest.memory.write(0x9000, asm("mov ax, cs; hlt", 16, 0))
    guest.vcpu.init()
    guest.vcpu.halted = True
    guest.vcpu.sipi(9)
    state = guest.run_to_halt()
    assert (state.rax, state.cs.selector, state.cs.base, state.rip) == (0x900, 0x900, 0x9000, 3)


@pytest.mark.parametrize("vector", [-1, 256])
def test_a_start_up_ipi_has_a_byte(guest, vector):
    with pytest.raises(UsageError) as error:
        guest.vcpu.sipi(vector)
    assert str(error.value) == f"start-up IPI: vector {vector:#x} is not a byte"
