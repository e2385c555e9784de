"""Guest memory, descriptors and both implementations of the processor, for the tests of this folder."""

from emuvisor.cpu import _core
from emuvisor.cpu.layout import pack, unpack
from emuvisor.cpu.reference import events, paging, ports, system_calls
from emuvisor.cpu.reference.paging import Access
from emuvisor.cpu.registers import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME
from emuvisor.cpu.state import CpuState, DescriptorTable, Segment

# attributes of segments, as in a descriptor's high doubleword
CODE = 0x9B00
DATA = 0x9300
CONFORMING = 0x0400
BIG = 0x400000
LONG = 0x200000
PAGES = 0x800000
TSS16_BUSY, TSS32_BUSY, TSS32, TSS16, LDT = 0x8300, 0x8B00, 0x8900, 0x8100, 0x8200

INTERRUPT, TRAP, INTERRUPT16, TRAP16, TASK = 14, 15, 6, 7, 5


def dpl(level):
    return level << 13


class FlatMemory:
    """Guest memory from GPA 0 in a bytearray; ones beyond it."""

    def __init__(self, data):
        self.data = data

    def read(self, gpa, size):
        return bytes(self.data[gpa : gpa + size]).ljust(size, b"\xff")

    def write(self, gpa, data):
        inside = max(0, min(len(data), len(self.data) - gpa))
        self.data[gpa : gpa + inside] = data[:inside]


class Model:
    """The reference model behind the interface that `Core` has too."""

    def walk(self, state, data, address, access):
        """None for a host exit, an int for a page fault, else (gpa, page size, writable, executable)."""
        result = paging.walk(state, FlatMemory(data), address, Access(access))
        if isinstance(result, paging.NonCanonical):
            return "not canonical"
        if isinstance(result, paging.PageFault):
            return result.error_code
        return result.gpa, result.page_size, result.writable, result.executable

    def deliver(self, state, data, event):
        return self._result(events.deliver(state, FlatMemory(data), event))

    def syscall(self, state, data, length):
        return self._result(system_calls.syscall(state, FlatMemory(data), length))

    def sysenter(self, state, data):
        return self._result(system_calls.sysenter(state, FlatMemory(data)))

    def port_fault(self, state, data, port, size):
        fault = ports.port_fault(state, FlatMemory(data), port, size)
        return fault and (fault.event.vector, fault.event.error_code, fault.address or 0)

    def _result(self, delivery):
        return ("shutdown" if delivery.shutdown else "delivered"), delivery.state


class Core:
    """The C core."""

    def walk(self, state, data, address, access):
        result, *found, error_code = _core.check_walk(pack(state), data, address, int(access))
        if result == 0:
            return tuple(found)
        return "not canonical" if error_code == 0xFFFFFFFF else error_code

    def deliver(self, state, data, event):
        env = pack(state)
        return self._result(deliver(env, data, event), env)

    def syscall(self, state, data, length):
        env = pack(state)
        return self._result(_core.check_syscall(env, data, length), env)

    def sysenter(self, state, data):
        env = pack(state)
        return self._result(_core.check_sysenter(env, data), env)

    def port_fault(self, state, data, port, size):
        _, allowed, *fault = _core.check_port_allowed(pack(state), data, port, size)
        return None if allowed else tuple(fault)

    def _result(self, result, env):
        return ("delivered", "shutdown")[result], unpack(env)


def deliver(env, data, event, accesses=-1):
    """check_deliver with an Event: the raw result."""
    return _core.check_deliver(
        env, data, event.vector, int(event.kind), event.error_code, event.instruction, accesses
    )


def descriptor(base=0, limit=0xFFFFF, attributes=0):
    """Eight bytes; `limit` in units of the granularity bit in `attributes`."""
    high = base & 0xFF000000 | base >> 16 & 0xFF | limit & 0xF0000 | attributes
    return (high << 32 | (base & 0xFFFF) << 16 | limit & 0xFFFF).to_bytes(8, "little")


def gate(kind, selector, offset=0, *, level=0, present=True, ist=0, long=False):
    """An IDT gate: 8 bytes, or 16 in long mode."""
    low = (
        offset & 0xFFFF
        | selector << 16
        | ist << 32
        | kind << 40
        | level << 45
        | present << 47
        | (offset >> 16 & 0xFFFF) << 48
    )
    return (low | (offset >> 32) << 64).to_bytes(16 if long else 8, "little")


def flat(selector, attributes):
    return Segment(selector, 0, 0xFFFFFFFF, attributes)


def words(data, at, count, size):
    """`count` little-endian words from a frame, the one at the stack pointer first."""
    return [int.from_bytes(data[at + i * size : at + (i + 1) * size], "little") for i in range(count)]


# where the hand-made guests below keep their tables
IVT, IDT, GDT, TSS, TSS2, STACKS, TABLES = 0, 0x1000, 0x2000, 0x3000, 0x3800, 0x4000, 0xA000
MEMORY_SIZE = 0x10000
KERNEL_STACK, USER_STACK, IST_STACK = STACKS + 0x1000, STACKS + 0x2000, STACKS + 0x3000

# selectors of the hand-made GDT
CODE0, DATA0, CODE3, DATA3, CONF0, CODE64, USER64, TSS_SEL, TSS2_SEL = (8 * i for i in range(1, 10))


def put(data, at, value):
    data[at : at + len(value)] = value


def put_number(data, at, value, size):
    put(data, at, value.to_bytes(size, "little"))


def tables():
    """Memory with a GDT of flat segments and two 32-bit TSSs; ring 0's stack is at KERNEL_STACK."""
    data = bytearray(MEMORY_SIZE)
    flat32, flat64 = BIG | PAGES, LONG | PAGES
    for selector, entry in {
        CODE0: descriptor(0, 0xFFFFF, CODE | flat32),
        DATA0: descriptor(0, 0xFFFFF, DATA | flat32),
        CODE3: descriptor(0, 0xFFFFF, CODE | flat32 | dpl(3)),
        DATA3: descriptor(0, 0xFFFFF, DATA | flat32 | dpl(3)),
        CONF0: descriptor(0, 0xFFFFF, CODE | CONFORMING | flat32),
        CODE64: descriptor(0, 0xFFFFF, CODE | flat64),
        USER64: descriptor(0, 0xFFFFF, CODE | flat64 | dpl(3)),
        TSS_SEL: descriptor(TSS, 0x67, TSS32_BUSY),
        TSS2_SEL: descriptor(TSS2, 0x67, TSS32),
    }.items():
        put(data, GDT + selector, entry)
    put_number(data, TSS + 4, KERNEL_STACK, 4)
    put_number(data, TSS + 8, DATA0, 2)
    return data


def protected(cpl=0, **changes):
    """32-bit protected mode without paging, at the given privilege level."""
    code, stack = (CODE3 | 3, DATA3 | 3) if cpl else (CODE0, DATA0)
    state = CpuState(
        rip=0x8000,
        rsp=USER_STACK if cpl else KERNEL_STACK,
        rflags=0x202,
        cr0=CR0_PE,
        cs=flat(code, CODE | BIG | PAGES | dpl(cpl)),
        ss=flat(stack, DATA | BIG | PAGES | dpl(cpl)),
        ds=flat(stack, DATA | BIG | PAGES | dpl(cpl)),
        es=flat(stack, DATA | BIG | PAGES | dpl(cpl)),
        fs=Segment(),
        gs=Segment(),
        tr=Segment(TSS_SEL, TSS, 0x67, TSS32_BUSY),
        gdtr=DescriptorTable(GDT, 0x4F),
        idtr=DescriptorTable(IDT, 0x7FF),
    )
    return with_changes(state, changes)


def long(cpl=0, **changes):
    """64-bit mode; add `identity_map` to the memory."""
    state = protected(
        cpl,
        cr0=CR0_PE | CR0_PG,
        cr3=TABLES,
        cr4=CR4_PAE,
        efer=EFER_LME | EFER_LMA,
        idtr=DescriptorTable(IDT, 0xFFF),
    )
    state.cs = flat(USER64 | 3, CODE | LONG | PAGES | dpl(3)) if cpl else flat(CODE64, CODE | LONG | PAGES)
    state.ds = Segment()
    return with_changes(state, changes)


def vm86(**changes):
    """Virtual-8086 mode: code at 0800:0000, stack at 0500:0100."""
    segments = {"cs": 0x800, "ss": 0x500, "ds": 0x11, "es": 0x22, "fs": 0x33, "gs": 0x44}
    state = protected(rflags=0x20202, rsp=0x100, rip=2)
    for name, selector in segments.items():
        setattr(state, name, Segment(selector, selector << 4, 0xFFFF, 0xF300))
    return with_changes(state, changes)


def with_changes(state, changes):
    for name, value in changes.items():
        assert hasattr(state, name), name
        setattr(state, name, value)
    return state


def identity_map(data, pages=16, leaf_flags=7):
    """Four levels at TABLES that map the first pages to themselves, for everybody by default."""
    for level in range(3):
        put_number(data, TABLES + 0x1000 * level, TABLES + 0x1000 * (level + 1) | 7, 8)
    for page in range(pages):
        put_number(data, TABLES + 0x3000 + 8 * page, page << 12 | leaf_flags, 8)
    return data


def good_task(data, *, base=TSS2, cs=CODE3 | 3, ss=DATA3 | 3, esp=0x5100, eip=0x8888, eflags=0x2, **fields):
    """A 32-bit TSS whose task runs in ring 3 unless told otherwise."""
    offsets = {"es": 0x48, "ds": 0x54, "fs": 0x58, "gs": 0x5C, "ldt": 0x60, "cr3": 0x1C, "eax": 0x28}
    put_number(data, base + 0x20, eip, 4)
    put_number(data, base + 0x24, eflags, 4)
    put_number(data, base + 0x38, esp, 4)
    put_number(data, base + 0x4C, cs, 4)
    put_number(data, base + 0x50, ss, 4)
    for name, value in fields.items():
        put_number(data, base + offsets[name], value, 4)
    return data
