"""Interrupts, traps and debug exceptions on a running vCPU."""

import pytest
from cpu_guest import (
    CODE0,
    CODE64,
    IDT,
    KERNEL_STACK,
    TSS,
    identity_map,
    long,
    protected,
    put_number,
    tables,
)
from run_rig import CODE, DATA, Rig, asm, put_handler, real

from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.state import DescriptorTable

DB, NMI, BP, OF = 1, 2, 3, 4
IF, TF, RF = 0x200, 0x100, 0x10000
HANDLER = 0x9000
BS = 1 << 14


@pytest.fixture
def rig():
    return Rig()


def real_guest(rig, source, handlers, **state):
    """Real mode; `handlers` by vector."""
    guest = rig.guest(real(**state), asm(source, 16))
    for vector, code in handlers.items():
        at = HANDLER + 0x100 * vector % 0x1000
        guest.memory.write(4 * vector, at.to_bytes(4, "little"))
        guest.memory.write(at, asm(code, 16, at))
    return guest


def protected_guest(rig, source, handlers, **state):
    """32-bit protected mode, `handlers` by vector."""
    data = tables()
    for i, (vector, code) in enumerate(handlers.items()):
        at = HANDLER + 0x80 * i
        put_handler(data, vector, at, CODE0, IDT, level=3)
        binary = asm(code, 32, at)
        data[at : at + len(binary)] = binary
    return rig.guest(protected(**state), asm(source, 32), data)


def interrupt(guest, vector):
    guest.devices.vectors = [vector]
    guest.vcpu.interrupt = True


def lower_pin(guest):
    """The controller takes INTR down when it is acknowledged."""
    vectors = guest.devices.vectors

    def acknowledge():
        guest.vcpu.interrupt = len(vectors) > 1
        return vectors.pop(0) if vectors else None

    guest.devices.acknowledge = acknowledge
    vcpu = type(guest.vcpu)(guest.stage2, guest.devices)
    vcpu.state = guest.vcpu.state
    guest.vcpu = vcpu


def test_an_interrupt_waits_for_if(rig):
    guest = real_guest(
        rig, "mov cx, 5; a: inc ax; loop a; sti; nop; inc bx; cli; hlt", {0x40: "mov dx, bx; mov si, ax; hlt"}
    )
    interrupt(guest, 0x40)
    state = guest.run_to_halt()
    assert (state.rax, state.rsi, state.rip) == (5, 5, HANDLER + 5)


def test_the_sti_shadow(rig):
    guest = real_guest(rig, "sti; inc bx; inc cx; hlt", {0x40: "mov dx, bx; mov si, cx; hlt"}, rflags=2)
    interrupt(guest, 0x40)
    state = guest.run_to_halt()
    assert (state.rdx, state.rsi) == (1, 0), "exactly one instruction behind STI ran"
    assert guest.at(DATA - 6, 2) == CODE + 2


def test_sti_hlt_wakes_up(rig):
    guest = real_guest(rig, "sti; hlt; inc bx; cli; hlt", {0x40: "inc cx; iret"})
    lower_pin(guest)
    assert guest.run().reason is ExitReason.HALT
    guest.devices.vectors.append(0x40)
    guest.vcpu.interrupt = True
    state = guest.run_to_halt()
    assert (state.rcx, state.rbx, state.rip) == (1, 1, CODE + 5)


def test_the_mov_ss_shadow(rig):
    guest = real_guest(rig, "mov ss, ax; mov sp, 0x6000; inc cx; hlt", {0x40: "hlt"}, rflags=2 | IF)
    # the interrupt comes up while the first block is about to run
    guest.vcpu.set_breakpoints([CODE + 2])
    assert guest.run().reason is ExitReason.DEBUG
    interrupt(guest, 0x40)
    guest.vcpu.set_breakpoints([])
    state = guest.run_to_halt()
    assert (state.rsp, state.rcx) == (0x6000 - 6, 0), "the stack was switched whole"


def test_the_interrupt_flag_is_seen_by_popf_and_iret(rig):
    guest = real_guest(rig, "push 0x202; popf; nop; nop; inc bx; hlt", {0x40: "mov dx, bx; hlt"})
    interrupt(guest, 0x40)
    state = guest.run_to_halt()
    assert (state.rdx, state.rbx) == (0, 0)


def test_a_spurious_interrupt(rig):
    guest = real_guest(rig, "sti; nop; inc bx; a: hlt", {})
    guest.vcpu.interrupt = True  # acknowledge answers None
    assert guest.run().reason is ExitReason.HALT
    assert guest.vcpu.state.rbx == 1


def test_interrupts_end_hlt_and_are_counted(rig):
    guest = real_guest(rig, "sti; a: hlt; inc bx; jmp a", {0x40: "inc cx; iret"})
    lower_pin(guest)
    for turn in range(1, 5):
        assert guest.run().reason is ExitReason.HALT
        guest.devices.vectors.append(0x40)
        guest.vcpu.interrupt = True
        assert guest.run().reason is ExitReason.HALT
        assert (guest.vcpu.state.rbx, guest.vcpu.state.rcx) == (turn, turn)
        guest.vcpu.halted = True
    assert guest.vcpu.counters()["interrupt"] == 4


def test_nmi(rig):
    guest = real_guest(rig, "inc ax; hlt; inc bx; hlt", {NMI: "inc cx; iret"})
    guest.run_to_halt()
    guest.vcpu.raise_nmi()
    state = guest.run_to_halt()
    assert (state.rcx, state.rbx) == (1, 1), "it ends HLT with IF clear"


def test_a_second_nmi_waits_for_iret(rig):
    guest = real_guest(rig, "a: inc ax; jmp a", {NMI: "inc cx; out 0x10, al; nop; nop; iret"})

    def on_access():
        if len(guest.devices.log) == 1:
            guest.vcpu.raise_nmi()

    guest.devices.on_access = on_access
    guest.vcpu.raise_nmi()
    guest.run(5000)
    assert guest.vcpu.state.rcx == 2
    assert guest.vcpu.state.rsp == DATA, "they were not nested"
    assert guest.vcpu.counters()["interrupt"] == 2


def test_int_n_and_its_return_address(rig):
    guest = real_guest(rig, "int 0x40; hlt", {0x40: "pop ax; push ax; hlt"})
    assert guest.run_to_halt().rax == CODE + 2


@pytest.mark.parametrize(
    ("code", "vector", "back"),
    [("cc", BP, 1), ("f1", DB, 1), ("cd03", BP, 2), ("b040 0440 ce", OF, 5), ("cd40", 0x40, 2)],
)
def test_int3_int1_into_and_int_n(rig, code, vector, back):
    source = asm("hlt", 32)
    guest = protected_guest(rig, "hlt", {vector: "hlt"})
    guest.memory.write(CODE, bytes.fromhex(code) + source)
    state = guest.run_to_halt()
    assert state.rip == HANDLER + 1
    assert guest.at(state.rsp, 4) == CODE + back
    assert state.rsp == KERNEL_STACK - 12, "no error code"


def test_single_step(rig):
    # the handler notes the return address; the stepped code sets TF itself
    source = (
        "pushfd; or dword ptr [esp], 0x100; popfd; inc ebx; inc ebx; mov [0x7000], ebx;"
        "and dword ptr [esp + 4], 0xfffffeff; hlt"
    )
    handler = (
        "mov eax, [esp]; mov [esi], eax; add esi, 4; cmp esi, 0x7110; jne a;"
        "and dword ptr [esp + 8], 0xfffffeff; a: iretd"
    )
    guest = protected_guest(rig, source, {DB: handler}, rsi=0x7100)
    guest.run_to_halt()
    first = CODE + len(asm("pushfd; or dword ptr [esp], 0x100; popfd", 32))
    stops = [guest.at(0x7100 + 4 * i, 4) for i in range(4)]
    assert stops == [first + 1, first + 2, first + 8, first + 16]
    assert guest.vcpu.state.dr6 & BS


def test_single_step_in_slices_is_the_same(rig):
    def result(budget):
        guest = protected_guest(rig, "mov ecx, 20; a: add eax, ecx; loop a; hlt",
                                {DB: "inc edi; iretd"}, rflags=2 | TF)  # fmt: skip
        for _ in range(10_000):
            if guest.run(budget).reason is ExitReason.HALT:
                return guest.vcpu.digest(), guest.vcpu.state.rdi
        raise AssertionError("it never halts")

    assert result(1) == result(7) == result(100_000)
    assert result(1)[1] >= 41


def test_execution_breakpoint_of_the_guest(rig):
    source = "mov eax, 0x8100; mov dr0, eax; mov eax, 0x402; mov dr7, eax; mov eax, 0x8100; jmp eax"
    guest = protected_guest(
        rig, source, {DB: "mov ebx, [esp]; mov ecx, dr6; or dword ptr [esp + 8], 0x10000; iretd"}
    )
    guest.memory.write(0x8100, asm("inc esi; hlt", 32))
    state = guest.run_to_halt()
    assert (state.rbx, state.rsi) == (0x8100, 1), "it stopped before the instruction, and RF let it pass"
    assert state.rcx & 0xF == 1


@pytest.mark.xfail(
    reason="the engine never checks data breakpoints: its cpu_check_watchpoint is empty", strict=True
)
def test_data_breakpoint_of_the_guest(rig):
    source = (
        "mov eax, 0x7004; mov dr1, eax; mov eax, 0xd00408; mov dr7, eax; mov [0x7000], eax; mov [0x7008], eax;"
        "mov edx, [0x7004]; mov [0x7004], eax; inc esi; hlt"
    )
    guest = protected_guest(rig, source, {DB: "inc edi; mov ebx, [esp]; mov ecx, dr6; iretd"})
    state = guest.run_to_halt()
    assert (state.rdi, state.rsi) == (1, 1)
    assert state.rcx & 0xF == 2
    assert state.rbx == CODE + len(asm(source, 32)) - 2, "it is a trap behind the store"
    assert guest.at(0x7004, 4) == 0xD00408


def test_breakpoints_stay_with_their_guest(rig):
    """Guests with debug registers set take turns with one that has none, and with their clones."""
    start = "mov eax, 0x8100; mov dr1, eax; mov eax, {}; mov dr7, eax; mov eax, 0x8100; jmp eax"
    handler = {DB: "inc edi; or dword ptr [esp + 8], 0x10000; iretd"}
    watcher = protected_guest(rig, start.format("0x408"), handler)
    others = [protected_guest(rig, start.format("0x400"), handler) for _ in range(3)]
    guests = [watcher, *others]
    for guest in guests:
        guest.memory.write(0x8100, asm("inc ecx; jmp a; a: inc edx; jmp b; b: mov eax, 0x8100; jmp eax", 32))
    for _ in range(50):
        for guest in guests:
            guest.run(500)
    assert [other.vcpu.state.rdi for other in others] == [0, 0, 0]
    assert min(other.vcpu.state.rcx for other in others) > 50
    state = watcher.vcpu.state
    assert state.rdi > 50
    assert state.rdi - state.rcx in (0, 1)
    assert (state.dr1, state.dr7) == (0x8100, 0x408)


def test_dropping_a_guest_with_breakpoints(rig):
    for _ in range(40):
        guest = protected_guest(
            rig, "a: mov [0x7000], eax; jmp a", {DB: "iretd"}, dr0=0x7000, dr1=CODE, dr7=0xD0405
        )
        guest.run(300)
        guest.memory.close()
        del guest
    other = protected_guest(rig, "mov [0x7000], eax; hlt", {DB: "inc edi; hlt"})
    assert other.run_to_halt().rdi == 0


def test_interrupts_in_long_mode_to_ring_0(rig):
    data = identity_map(tables())
    put_handler(data, 0x40, HANDLER, CODE64, IDT, long=True)
    data[HANDLER] = 0xF4
    put_number(data, TSS + 4, KERNEL_STACK, 8)
    guest = rig.guest(long(3, rflags=2 | IF), asm("a: inc rax; jmp a"), data)
    guest.run(100)
    interrupt(guest, 0x40)
    state = guest.run_to_halt()
    assert (state.cpl, state.rsp) == (0, KERNEL_STACK - 40)
    assert (state.cs.selector, state.ss.selector) == (CODE64, 0)


def test_an_interrupt_in_the_middle_of_a_string_instruction(rig):
    handler = "mov ebx, ecx; inc edx; iretd"
    guest = protected_guest(
        rig, "mov edi, 0x7000; mov ecx, 0x400; rep stosb; hlt", {0x40: handler}, rflags=2 | IF
    )
    lower_pin(guest)
    guest.run(200)
    guest.devices.vectors.append(0x40)
    guest.vcpu.interrupt = True
    state = guest.run_to_halt()
    assert state.rdx == 1
    assert 0 < state.rbx < 0x400
    assert (state.rdi, state.rcx) == (0x7400, 0)


def test_no_idt_is_a_triple_fault_for_an_interrupt_too(rig):
    guest = rig.guest(protected(rflags=2 | IF, idtr=DescriptorTable(0, 0)), asm("a: jmp a", 32))
    interrupt(guest, 0x40)
    assert guest.run().reason is ExitReason.SHUTDOWN


# ---- a controller that moves the pin while a block runs ----

EOI_PORT, TPR_PORT = 0x20, 0x21


class Controller:
    """A local APIC in small: requests by vector, one in service at a time, a task priority; INTR follows."""

    def __init__(self, guest):
        self.guest = guest
        self.requested = set()
        self.in_service = []
        self.priority = 0
        devices = guest.devices
        devices.on_access = self.access
        devices.acknowledge = self.acknowledge
        devices.write_cr8 = self.write_cr8
        vcpu = type(guest.vcpu)(guest.stage2, devices)
        vcpu.state = guest.vcpu.state
        guest.vcpu = vcpu

    def deliverable(self):
        floor = max(self.priority, max(self.in_service, default=0) >> 4)
        return [vector for vector in self.requested if vector >> 4 > floor]

    def drive(self):
        self.guest.vcpu.interrupt = bool(self.deliverable())

    def request(self, *vectors):
        self.requested.update(vectors)
        self.drive()

    def acknowledge(self):
        vectors = self.deliverable()
        if not vectors:
            return None
        self.requested.remove(max(vectors))
        self.in_service.append(max(vectors))
        self.drive()
        return max(vectors)

    def write_cr8(self, value):
        self.priority = value
        self.drive()

    def access(self):
        kind, port, value, _ = self.guest.devices.log[-1]
        assert kind == "out"
        if port == EOI_PORT:
            self.in_service.pop()
        elif port == TPR_PORT:
            self.priority = value & 0xF
        else:
            self.requested.add(port)
        self.drive()


def controlled(rig, source, handlers, **state):
    """Each handler writes its vector to [EDI], increments EDI and does what its source says."""
    note = "mov byte ptr [edi], {}; inc edi;"
    guest = protected_guest(
        rig,
        source,
        {vector: note.format(vector) + code for vector, code in handlers.items()},
        rdi=0x7000,
        **state,
    )
    return guest, Controller(guest)


EOI_IRET = "out 0x20, al; iretd"


def noted(guest):
    return list(guest.memory.read(0x7000, guest.vcpu.state.rdi - 0x7000))


def test_a_pin_raised_in_the_middle_of_a_block(rig):
    guest, _ = controlled(
        rig, "out 0x50, al; inc ebx; jmp a; a: inc esi; cli; hlt", {0x50: EOI_IRET}, rflags=2 | IF
    )
    state = guest.run_to_halt()
    assert (noted(guest), state.rbx, state.rsi) == ([0x50], 1, 1)
    assert not guest.vcpu.interrupt


def test_a_pin_lowered_in_the_middle_of_a_block(rig):
    """Requested with IF clear; then the task priority rises and IF is set: nothing may come until it falls."""
    guest, _ = controlled(
        rig,
        "out 0x50, al; mov al, 15; out 0x21, al; sti; nop; inc ebx; jmp a; a: mov esi, edi; xor al, al; out 0x21, al;"
        "jmp b; b: cli; hlt",
        {0x50: EOI_IRET},
        rflags=2,
    )
    state = guest.run_to_halt()
    assert (noted(guest), state.rsi, state.rbx) == ([0x50], 0x7000, 1)


def test_a_pin_raised_and_lowered_in_one_block(rig):
    guest, _ = controlled(
        rig,
        "out 0x50, al; mov al, 15; out 0x21, al; jmp a; a: jmp b; b: cli; hlt",
        {0x50: EOI_IRET},
        rflags=2 | IF,
    )
    guest.run_to_halt()
    assert noted(guest) == []
    assert guest.vcpu.counters()["interrupt"] == 0


def test_eoi_brings_the_next_one(rig):
    """The lower priority waits for the EOI of the higher one, and comes behind its IRET, or inside it with STI."""
    guest, controller = controlled(rig, "sti; nop; a: cli; hlt", {0x50: EOI_IRET, 0x60: EOI_IRET}, rflags=2)
    controller.request(0x50, 0x60)
    guest.run_to_halt()
    assert noted(guest) == [0x60, 0x50]
    nested = "out 0x20, al; sti; nop; mov byte ptr [edi], 1; inc edi; iretd"
    guest, controller = controlled(rig, "sti; nop; a: cli; hlt", {0x50: EOI_IRET, 0x60: nested}, rflags=2)
    controller.request(0x50, 0x60)
    guest.run_to_halt()
    assert noted(guest) == [0x60, 0x50, 1]


def test_cr8_lets_it_through(rig):
    data = identity_map(tables())
    put_handler(data, 0x50, HANDLER, CODE64, IDT, long=True)
    code = asm("mov rbx, rax; out 0x20, al; iretq")
    data[HANDLER : HANDLER + len(code)] = code
    source = (
        "mov eax, 15; mov cr8, rax; sti; out 0x50, al; jmp a; a: mov eax, 5; mov cr8, rax; nop; mov eax, 4;"
    )
    guest = rig.guest(long(rflags=2), asm(source + "mov cr8, rax; cli; hlt"), data)
    Controller(guest)
    assert guest.run_to_halt().rbx == 4


def test_a_request_that_goes_away_before_it_is_taken(rig):
    """The pin is up, but the controller has no vector any more: the guest goes on, and a new request comes through."""
    guest, controller = controlled(
        rig, "sti; nop; inc ebx; jmp a; a: out 0x50, al; jmp b; b: cli; hlt", {0x50: EOI_IRET}, rflags=2
    )
    guest.vcpu.interrupt = True
    state = guest.run_to_halt()
    assert (noted(guest), state.rbx) == ([0x50], 1)
    assert controller.in_service == []


def test_the_pin_up_while_interrupts_are_masked_changes_nothing(rig):
    """The slow look at every block is only slower: the same work, the same state."""
    source = "mov ecx, 300; a: inc ebx; jmp b; b: add eax, ebx; loop a; hlt"
    plain = rig.guest(protected(rflags=2), asm(source, 32))
    waiting = rig.guest(protected(rflags=2), asm(source, 32))
    waiting.vcpu.interrupt = True
    assert plain.run_to_halt() == waiting.run_to_halt()
    assert plain.vcpu.work == waiting.vcpu.work
