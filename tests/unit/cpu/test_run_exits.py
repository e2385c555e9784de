"""Why `Pcpu.run` comes back, and what handlers see and may do."""

import threading

import numpy as np
import pytest
from cpu_guest import IDT, identity_map, long, protected, put_number, tables
from run_rig import CODE, DATA, PAGE, Rig, asm, put_handler, real

from emuvisor.cpu.exits import Access, Exit, ExitReason
from emuvisor.cpu.models import DEFAULT_MODEL, TSC_HZ
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.errors import EngineError
from emuvisor.memory import FramePool
from emuvisor.units import MIB

HOLE = 0x20000
"""The first address behind the RAM."""


class DeviceBroke(Exception):
    pass


@pytest.fixture
def rig():
    return Rig()


def test_hlt(rig):
    guest = rig.guest(real(), asm("hlt; inc ax; hlt", 16))
    assert guest.run() == Exit(ExitReason.HALT)
    assert (guest.vcpu.halted, guest.vcpu.state.rip) == (True, CODE + 1)
    assert guest.run() == Exit(ExitReason.HALT), "it stays halted"
    assert guest.vcpu.state.rax == 0
    assert guest.vcpu.counters()["halt"] == 1
    guest.vcpu.halted = False
    assert guest.run() == Exit(ExitReason.HALT)
    assert guest.vcpu.state.rax == 1


def test_ports(rig):
    guest = rig.guest(
        real(),
        asm(
            "mov eax, 0x89abcdef; out 0x10, al; out 0x11, ax; mov dx, 0xffff; out dx, eax;"
            "in al, 0x20; mov bx, ax; in ax, 0x22; mov cx, ax; in eax, dx; hlt",
            16,
        ),
    )
    guest.devices.answers = {0x20: 0x1EE, 0x22: 0x12345, 0xFFFF: 0x1_DEADBEEF}
    state = guest.run_to_halt()
    assert guest.devices.log == [
        ("out", 0x10, 0xEF, 1),
        ("out", 0x11, 0xCDEF, 2),
        ("out", 0xFFFF, 0x89ABCDEF, 4),
        ("in", 0x20, 1),
        ("in", 0x22, 2),
        ("in", 0xFFFF, 4),
    ]
    assert (state.rbx & 0xFFFF, state.rcx & 0xFFFF, state.rax) == (0xCDEE, 0x2345, 0xDEADBEEF)
    counters = guest.vcpu.counters()
    assert (counters["port_read"], counters["port_write"]) == (3, 3)


def test_string_ports(rig):
    guest = rig.guest(real(), asm("mov si, 0x7000; mov di, 0x7100; mov cx, 3; mov dx, 5; rep outsb;"
                                  "mov cx, 2; rep insw; hlt", 16))  # fmt: skip
    guest.memory.write(DATA, b"abc")
    guest.devices.answers = {5: 0x4241}
    guest.run_to_halt()
    assert guest.outs() == list(b"abc")
    assert guest.memory.read(0x7100, 4) == b"ABAB"


def test_mmio(rig):
    code = asm(
        "mov eax, [0x20000]; mov [0x20004], ax; mov bl, [0x20007]; mov byte ptr [0x20009], 0x5a; hlt", 32
    )
    guest = rig.guest(protected(), code)
    guest.devices.answers = {HOLE: 0xCAFEBABE, HOLE + 7: 0x77}
    state = guest.run_to_halt()
    assert guest.devices.log == [
        ("load", HOLE, 4),
        ("store", HOLE + 4, 0xBABE, 2),
        ("load", HOLE + 7, 1),
        ("store", HOLE + 9, 0x5A, 1),
    ]
    assert (state.rax, state.rbx) == (0xCAFEBABE, 0x77)


def test_mmio_of_eight_bytes_comes_in_halves(rig):
    data = identity_map(tables())
    put_number(data, 0xD000 + 8 * 0x20, HOLE | 7, 8)
    guest = rig.guest(long(), asm("mov ebx, 0x20000; mov rax, [rbx]; mov [rbx + 8], rax; hlt"), data)
    guest.devices.answers = {HOLE: 0x55667788, HOLE + 4: 0x11223344}
    assert guest.run_to_halt().rax == 0x1122334455667788
    assert guest.devices.log == [
        ("load", HOLE, 4),
        ("load", HOLE + 4, 4),
        ("store", HOLE + 8, 0x55667788, 4),
        ("store", HOLE + 12, 0x11223344, 4),
    ]


@pytest.mark.parametrize(
    ("source", "access"),
    [
        ("out 0x10, al", Access(0x10, 1, True, 0x99, False)),
        ("in ax, 0x20", Access(0x20, 2, False, 0x1234, False)),
    ],
)
def test_leave_from_a_port_handler(rig, source, access):
    guest = rig.guest(protected(rax=0x99), asm(f"{source}; inc ebx; jmp a; a: inc ebx; hlt", 32))
    guest.devices.answers = {0x20: 0x1234}
    guest.devices.on_access = guest.vcpu.leave
    assert guest.run() == Exit(ExitReason.PORT, access=access)
    assert guest.vcpu.state.rbx == 1, "it left at the end of the block"
    assert guest.run() == Exit(ExitReason.HALT)
    assert guest.vcpu.state.rbx == 2
    assert len(guest.devices.log) == 1, "the access was made once"


def test_leave_in_the_block_that_halts(rig):
    guest = rig.guest(real(), asm("out 0x10, al; hlt", 16))
    guest.devices.on_access = guest.vcpu.leave
    assert guest.run().reason is ExitReason.PORT
    assert guest.run().reason is ExitReason.HALT
    assert len(guest.devices.log) == 1


def test_leave_from_an_mmio_handler(rig):
    guest = rig.guest(protected(rax=0x99), asm("mov [0x20000], eax; inc ebx; jmp a; a: inc ebx; hlt", 32))
    guest.devices.on_access = guest.vcpu.leave
    assert guest.run() == Exit(ExitReason.MMIO, access=Access(HOLE, 4, True, 0x99, True))
    assert guest.vcpu.state.rbx == 1, "it left at the end of the block"
    assert guest.run() == Exit(ExitReason.HALT)
    assert guest.vcpu.state.rbx == 2
    assert len(guest.devices.log) == 1


@pytest.mark.parametrize(
    "source", ["in al, 0x10", "out 0x10, al", "mov eax, [0x20000]", "mov [0x20000], eax"]
)
def test_what_a_handler_raises_comes_out_of_run(rig, source):
    guest = rig.guest(protected(), asm(f"{source}; jmp a; a: inc ebx; hlt", 32))

    def fail():
        raise DeviceBroke("the offender")

    guest.devices.on_access = fail
    with pytest.raises(DeviceBroke, match=r"^the offender$"):
        guest.run()
    assert not guest.vcpu.running
    guest.devices.on_access = lambda: None
    assert guest.run().reason is ExitReason.HALT, "the vCPU can go on"
    assert guest.vcpu.state.rbx == 1


@pytest.mark.parametrize("answer", [(1, 2, 3), None, "abcd", (1, 2, 3, "x")])
def test_a_cpuid_handler_that_answers_nonsense(rig, answer):
    guest = rig.guest(protected(), asm("cpuid; jmp a; a: hlt", 32))
    guest.devices.cpuid = None
    other = rig.empty()
    other.devices.cpuid = lambda leaf, subleaf: answer
    rebuilt = type(guest.vcpu)(guest.stage2, other.devices)
    rebuilt.state = guest.vcpu.state
    with pytest.raises((TypeError, SystemError)):
        rig.pcpus[0].run(rebuilt, 1000)


def test_an_acknowledge_handler_that_raises(rig):
    guest = rig.guest(real(rflags=0x202), asm("a: jmp a", 16))

    def fail():
        raise DeviceBroke("no vector")

    guest.devices.acknowledge = fail
    vcpu = type(guest.vcpu)(guest.stage2, guest.devices)
    vcpu.state = guest.vcpu.state
    vcpu.interrupt = True
    with pytest.raises(DeviceBroke, match=r"^no vector$"):
        rig.pcpus[0].run(vcpu, 1000)


def test_a_handler_may_not_run_or_restore_its_own_vcpu(rig):
    guest = rig.guest(real(), asm("out 0x10, al; hlt", 16))
    errors = []

    def misbehave():
        for act in (
            lambda: guest.run(1),
            lambda: guest.vcpu.restore(guest.vcpu.save()),
            rig.pcpus[0].unload,
            lambda: rig.pcpus[0].run(rig.empty().vcpu, 1),
        ):
            with pytest.raises(RuntimeError) as error:
                act()
            errors.append(str(error.value))

    guest.devices.on_access = misbehave
    guest.run_to_halt()
    assert errors == [
        "the pCPU is running",
        "the vCPU is running",
        "the pCPU is running",
        "the pCPU is running",
    ]


def test_triple_fault(rig):
    guest = rig.guest(protected(idtr=type(protected().idtr)(0, 0)), asm("ud2", 32))
    assert guest.run() == Exit(ExitReason.SHUTDOWN)
    assert guest.vcpu.state.rip == CODE


def test_triple_fault_in_the_page_tables(rig):
    guest = rig.guest(long(cr3=0xF000), asm("nop"), identity_map(tables()))
    assert guest.run() == Exit(ExitReason.SHUTDOWN)
    assert guest.vcpu.state.cr2 != 0 or guest.vcpu.counters()["page_fault"] > 0


@pytest.mark.parametrize("source", ["a: jmp a", "a: inc eax; mov [0x7000], eax; jmp a", "mov ecx, -1; a: loop a; jmp a",
                                    "mov edi, 0x7000; mov ecx, -1; a: mov edi, 0x7000; rep stosb; jmp a"])  # fmt: skip
def test_stop_from_another_thread(rig, source):
    guest = rig.guest(protected(), asm(source, 32))
    exits = []
    started = threading.Event()

    def run():
        started.set()
        exits.append(guest.run(1 << 62))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait()
    guest.vcpu.stop()
    thread.join(60)
    assert exits == [Exit(ExitReason.STOP)]


def test_a_stop_before_the_run_ends_it_at_once(rig):
    guest = rig.guest(real(), asm("a: jmp a", 16))
    guest.vcpu.stop()
    assert guest.run() == Exit(ExitReason.STOP)
    assert guest.vcpu.work == 0
    assert guest.run(10) == Exit(ExitReason.BUDGET), "it stops once"


def test_one_pcpu_cannot_run_twice_at_a_time():
    rig = Rig(pcpus=2)
    guest, other = (rig.guest(real(), asm("out 0x10, al; a: jmp a", 16)) for _ in range(2))
    inside = threading.Event()
    guest.devices.on_access = inside.set
    thread = threading.Thread(target=guest.run, args=(1 << 62,), daemon=True)
    thread.start()
    assert inside.wait(60)
    with pytest.raises(RuntimeError, match=r"^the pCPU is running$"):
        other.run(10)
    with pytest.raises(RuntimeError, match=r"^the vCPU is running$"):
        guest.run(10, pcpu=1)
    assert other.run(10, pcpu=1).reason is ExitReason.BUDGET
    guest.vcpu.stop()
    thread.join(60)
    assert not thread.is_alive()


def test_pool_exhaustion_and_going_on():
    rig = Rig(pool=24 * PAGE)
    guest = rig.guest(protected(), asm("mov edi, 0x10000; mov ecx, 0x4000; mov eax, 0x5a5a5a5a; rep stosd; hlt", 32),
                      blocks=((0, 32 * PAGE),))  # fmt: skip
    hoard = [rig.pool.take() for _ in range(rig.pool.free - 2)]
    assert guest.run() == Exit(ExitReason.MEMORY)
    assert guest.memory.starved
    at = guest.vcpu.state.rdi
    assert at == 0x12000, "it used the two frames that there were"
    assert guest.run() == Exit(ExitReason.MEMORY), "and tries again"
    assert guest.vcpu.state.rdi == at
    for _ in range(4):  # one frame more, one page further
        rig.pool.release(np.array([hoard.pop()], np.uint32))
        assert guest.run() == Exit(ExitReason.MEMORY)
        at += PAGE
        assert guest.vcpu.state.rdi == at
    assert guest.memory.read(0x10000, at - 0x10000) == b"\x5a" * (at - 0x10000)


def test_a_handler_that_raises_right_before_pool_exhaustion():
    rig = Rig(pool=24 * PAGE)
    guest = rig.guest(protected(), asm("out 0x10, al; mov [0x10000], eax; hlt", 32), blocks=((0, 32 * PAGE),))
    hoard = [rig.pool.take() for _ in range(rig.pool.free)]

    def fail():
        raise DeviceBroke("the offender")

    guest.devices.on_access = fail
    with pytest.raises(DeviceBroke, match=r"^the offender$"):
        guest.run()
    assert guest.run() == Exit(ExitReason.MEMORY), "it is told once"
    rig.pool.release(np.array(hoard[:1], np.uint32))
    assert guest.run() == Exit(ExitReason.HALT)
    assert len(guest.devices.log) == 1


def test_pool_exhaustion_while_an_interrupt_is_delivered():
    rig = Rig(pool=24 * PAGE)
    data = tables()
    put_handler(data, 0x20, 0x9000, 8, IDT)
    data[0x9000] = 0xF4  # hlt
    guest = rig.guest(protected(rsp=0x11000), asm("int 0x20", 32), data, blocks=((0, 32 * PAGE),))
    hoard = [rig.pool.take() for _ in range(rig.pool.free)]
    for _ in range(3):
        assert guest.run() == Exit(ExitReason.MEMORY)
    rig.pool.release(np.array(hoard[:1], np.uint32))
    state = guest.run_to_halt()
    assert (state.rip, state.rsp) == (0x9001, 0x11000 - 12)
    assert guest.at(0x11000 - 12, 4) == CODE + 2


def test_a_pool_serves_at_most_32_pcpus():
    pool = FramePool(MIB)
    pcpus = [Pcpu(pool) for _ in range(32)]
    with pytest.raises(EngineError, match=r"^a frame pool serves at most 32 pCPUs$"):
        Pcpu(pool)
    pcpus.pop()
    Pcpu(pool)


def test_rdtsc_is_work_plus_idle_time(rig):
    guest = rig.guest(real(), asm("rdtsc; mov ebx, eax; mov esi, edx; hlt; rdtsc; hlt", 16))
    guest.vcpu.work = (7 << 32) + 100
    guest.run_to_halt()
    state = guest.vcpu.state
    first = state.rsi << 32 | state.rbx
    assert (7 << 32) + 100 < first <= guest.vcpu.work
    guest.vcpu.idle_ns = 5_000_000
    guest.vcpu.halted = False
    guest.run_to_halt()
    state = guest.vcpu.state
    assert state.rdx << 32 | state.rax == guest.vcpu.work + guest.vcpu.idle_ns == guest.vcpu.tsc
    assert TSC_HZ == 1_000_000_000


def test_rdtscp_gives_tsc_aux(rig):
    guest = rig.guest(protected(tsc_aux=0x1234), asm("rdtscp; hlt", 32))
    assert guest.run_to_halt().rcx == 0x1234


@pytest.mark.parametrize(
    "leaf", [0, 1, 7, 0x40000000, 0x80000000, 0x80000001, 0x80000002, 0x80000008, 0xFFFFFFFF]
)
def test_cpuid_is_the_models(rig, leaf):
    guest = rig.guest(protected(rax=leaf, rcx=0), asm("cpuid; hlt", 32))
    state = guest.run_to_halt()
    assert (state.rax, state.rbx, state.rcx, state.rdx) == DEFAULT_MODEL.cpuid(leaf, 0)


def test_rdrand_never_has_a_number(rig):
    guest = rig.guest(protected(rax=5, rflags=0x203), asm("rdrand eax; setc bl; hlt", 32))
    state = guest.run_to_halt()
    assert (state.rax, state.rbx & 0xFF) == (0, 0)


def test_dropping_pcpus_and_vcpus_in_any_order():
    rig = Rig(pcpus=2)
    guest = rig.guest(real(), asm("inc ax; a: jmp a", 16))
    guest.run(10)
    rig.pcpus[0] = None
    assert guest.vcpu.state.rax == 1
    guest.run(10, pcpu=1)
    vcpu = guest.vcpu
    rig.pcpus.clear()
    del guest, rig
    assert vcpu.state.rip == CODE + 1
