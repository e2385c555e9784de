"""Random guests for comparing the C core with the model.

Most of what is drawn is valid, so that most cases get past the early checks; each thing is wrong now and
then.
"""

from cpu_guest import (
    BIG,
    CODE,
    CONFORMING,
    DATA,
    LDT,
    LONG,
    PAGES,
    TSS16,
    TSS16_BUSY,
    TSS32,
    TSS32_BUSY,
    descriptor,
    dpl,
    gate,
    put,
    put_number,
)

from emuvisor.cpu.reference.faults import Event, Kind
from emuvisor.cpu.registers import (
    CR0_EM,
    CR0_MP,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR0_WP,
    CR4_OSFXSR,
    CR4_PAE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    CR4_VME,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    FLAG_AC,
    FLAG_VM,
    FLAGS_IMPLEMENTED,
)
from emuvisor.cpu.state import CpuState, DescriptorTable, Segment

IDT, GDT, LDT_AT, TSS, STACKS, TABLES = 0x1000, 0x2000, 0x2400, 0x3000, 0x5000, 0xA000
STACK_PAGES = 5
MEMORY_SIZE = 0xF800
"""The last page is partly a hole."""

P, W, U, A, D, PS, NX = 1, 2, 4, 0x20, 0x40, 0x80, 1 << 63
WORD_MASK = (1 << 64) - 1

# one descriptor of each kind that matters; the LDT holds a copy of the segments
SEGMENTS = [
    CODE | BIG | PAGES,
    DATA | BIG | PAGES,
    CODE | BIG | PAGES | dpl(3),
    DATA | BIG | PAGES | dpl(3),
    CODE | CONFORMING | BIG | PAGES,
    CODE,
    DATA,
    CODE | LONG | PAGES,
    CODE | LONG | PAGES | dpl(3),
    CODE | LONG | CONFORMING | PAGES,
    DATA | BIG | dpl(1),
    CODE | BIG | PAGES | dpl(1),
]
CODE0, DATA0, CODE3, DATA3, CONF, CODE16, DATA16, CODE64, USER64, CONF64, DATA1, CODE1 = (
    8 * i for i in range(1, 13)
)
MAIN_TSS, OTHER_TSS, THIRD_TSS, SMALL_TSS, LDT_SELECTOR = (8 * i for i in range(13, 18))
GDT_LIMIT = 8 * 18 - 1
TSS_SIZE = 0x100
VECTORS = [0, 3, 8, 10, 11, 12, 13, 14, 0x21, 0x30]


class Guest:
    """A processor state and memory drawn from `rng`."""

    def __init__(self, rng):
        self.rng = rng
        self.memory = bytearray(MEMORY_SIZE)
        self.mode = rng.choice(["real", "protected", "protected", "protected", "vm86", "long", "long"])
        self.state = CpuState()
        self._tables()
        self._page_tables()
        self._state()

    def seldom(self, one_in=16):
        return self.rng.randrange(one_in) == 0

    def _noise(self, entry):
        """Sometimes with one bit flipped, most often among the attributes."""
        if not self.seldom():
            return entry
        bit = self.rng.randrange(40, 56) if self.rng.randrange(3) else self.rng.randrange(64)
        return (int.from_bytes(entry, "little") ^ 1 << bit).to_bytes(8, "little")

    def _tables(self):
        rng = self.rng
        put(self.memory, 0, rng.randbytes(0x400))
        for i, attributes in enumerate(SEGMENTS):
            limit = 0xFFFF if self.seldom(6) else 0xFFFFF
            if attributes & 0xF00 == 0x300 and self.seldom():
                attributes, limit = attributes | 0x400, rng.choice([0, 2, 5, 8])  # noqa: PLW2901 - a variant of the case
            if self.seldom(3):
                attributes &= ~0x100  # noqa: PLW2901 - a variant of the case
            entry = self._noise(descriptor(0, limit, attributes))
            put(self.memory, GDT + 8 * (i + 1), entry)
            put(self.memory, LDT_AT + 8 * (i + 1), entry)
        for i, attributes in enumerate([TSS32_BUSY, TSS32, TSS32, TSS16]):
            put(
                self.memory,
                GDT + MAIN_TSS + 8 * i,
                self._noise(descriptor(TSS + TSS_SIZE * i, TSS_SIZE - 1, attributes)),
            )
        put(self.memory, GDT + LDT_SELECTOR, self._noise(descriptor(LDT_AT, 8 * 13 - 1, LDT)))
        for vector in range(256) if self.seldom() else VECTORS:
            self._gate(vector)
        for i in range(4):
            self._tss(TSS + TSS_SIZE * i, small=i == 3)

    def _gate(self, vector):
        rng, long = self.rng, self.mode == "long"
        kind = rng.choice([14, 15]) if long else rng.choice([14, 14, 15, 6, 7, 5, 5])
        if self.seldom(32):
            kind = rng.randrange(32)
        codes = (
            [CODE64] * 6 + [CONF64, USER64] if long else [CODE0] * 6 + [CODE16, CODE16, CONF, CODE1, CODE3]
        )
        selector = rng.choice(codes) | rng.choice([0, 0, 0, 3, 4])
        if kind == 5:
            selector = rng.choice([OTHER_TSS, OTHER_TSS, THIRD_TSS, SMALL_TSS] * 4 + [MAIN_TSS])
        if self.seldom():
            selector = rng.randrange(0x120)
        offset = rng.choice([0x8123] * 15 + [0x12345])
        if long:
            offset = rng.choice([0xFFFFFFFF80001234] * 15 + [1 << 47])
        entry = gate(
            kind,
            selector,
            offset,
            level=rng.choice([0, 3, 3]),
            present=not self.seldom(24),
            ist=rng.choice([0, 0, 1, 2, 7]) if long else rng.randrange(8),
            long=long,
        )
        put(self.memory, IDT + len(entry) * vector, entry)

    def _stack_pointer(self):
        """Somewhere on the stack pages, often at the edge of one, seldom aligned badly or elsewhere."""
        rng = self.rng
        pointer = (
            STACKS + 0x1000 * rng.randrange(1, STACK_PAGES) + rng.choice([0, 0, 8, 0x10, 0x28, 0x800, 6])
        )
        if self.seldom():
            pointer = rng.choice([0, 1, 4, 0xFFFF, 0x10000, 0x20000, 0xFFFFFFFF, WORD_MASK, 1 << 47])
        return pointer

    def _tss(self, at, small):
        rng = self.rng
        stacks = [DATA0, DATA1 | 1, DATA0]
        if self.mode == "long":
            for offset in [4, 12, 20, *range(0x24, 0x5C, 8)]:
                put_number(self.memory, at + offset, self._stack_pointer(), 8)
        elif small:
            for level, stack in enumerate(stacks):
                put_number(self.memory, at + 2 + 4 * level, self._stack_pointer() & 0xFFFF, 2)
                put_number(self.memory, at + 4 + 4 * level, stack, 2)
            self._task(at, word=2, registers=0x0E, segments=0x22, ldt=0x2A)
        else:
            for level, stack in enumerate(stacks):
                put_number(self.memory, at + 4 + 8 * level, self._stack_pointer() & 0xFFFFFFFF, 4)
                put_number(
                    self.memory, at + 8 + 8 * level, rng.randrange(0x100) if self.seldom() else stack, 2
                )
            self._task(at, word=4, registers=0x20, segments=0x48, ldt=0x60)
            put_number(self.memory, at + 0x1C, TABLES, 4)
        if not small:
            put_number(self.memory, at + 0x66, rng.choice([0x88, 0x88, 0x68, 0x10, 0xFFF]), 2)
            put(self.memory, at + 0x68, rng.randbytes(0x60))

    def _task(self, at, word, registers, segments, ldt):
        rng = self.rng
        cpl = rng.choice([0, 3])
        flags = rng.getrandbits(32) & ~FLAG_VM | (FLAG_VM if self.seldom(6) else 0)
        code = CONF if self.seldom(8) else (CODE3 if cpl else rng.choice([CODE0, CODE16]))
        stack = DATA3 if cpl else rng.choice([DATA0, DATA16])
        values = [0x8000 + rng.randrange(0x100), flags, *(rng.getrandbits(32) for _ in range(4))]
        values += [self._stack_pointer(), *(rng.getrandbits(32) for _ in range(3))]
        for i, value in enumerate(values):
            put_number(self.memory, at + registers + word * i, value & (1 << 8 * word) - 1, word)
        data = [0, 3, DATA3 | 3, DATA3, DATA0, CONF, CODE3 | 3]
        selectors = [rng.choice(data), code | cpl, stack | cpl, *(rng.choice(data) for _ in range(3))]
        for i, selector in enumerate(selectors if word == 4 else selectors[:4]):
            value = rng.randrange(0x120) if self.seldom(24) else selector
            put_number(self.memory, at + segments + word * i, value, 2)
        put_number(
            self.memory, at + ldt, rng.choice([0, LDT_SELECTOR, LDT_SELECTOR, rng.randrange(0x100)]), 2
        )

    def _page_tables(self):
        """Tables for any paging mode: page n of memory at address n << 12, with odd rights now and then."""
        rng = self.rng
        long = self.mode == "long"
        self.paging = long or (self.mode != "real" and rng.random() < 0.6)
        self.pae = long or rng.random() < 0.5
        if not self.paging:
            return
        size = 8 if self.pae else 4
        levels = 3 if long else (2 if self.pae else 1)
        for level in range(levels):
            flags = P | (0 if self.pae and not long and level == 0 else W | U)
            put_number(self.memory, TABLES + 0x1000 * level, TABLES + 0x1000 * (level + 1) | flags, size)
        for page in range(16):
            flags = P | W | rng.choice([U, U, 0]) | rng.choice([0, A, A | D])
            if self.seldom():
                flags ^= rng.choice([P, W, U, 1 << 20])
            put_number(self.memory, TABLES + 0x1000 * levels + size * page, page << 12 | flags, size)

    def _state(self):
        rng, state = self.rng, self.state
        for name in ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r11"):
            setattr(state, name, rng.getrandbits(64 if self.mode == "long" else 32))
        cpl = {"real": 0, "vm86": 3}.get(self.mode, rng.choice([0, 3, 3, 1]))
        state.cr0 = 0 if self.mode == "real" else CR0_PE | rng.choice([0, CR0_WP])
        state.cr0 |= rng.choice([0, CR0_MP, CR0_EM, CR0_TS])
        state.cr4 = rng.choice([0, CR4_VME, CR4_PSE, CR4_SMEP, CR4_SMAP if self.seldom(4) else 0, CR4_OSFXSR])
        state.efer = rng.choice([0, EFER_SCE]) | rng.choice([0, EFER_NXE])
        if self.paging:
            state.cr0 |= CR0_PG
            state.cr3 = TABLES
            state.cr4 |= CR4_PAE if self.pae else 0
        if self.mode == "long":
            state.efer |= EFER_LMA | EFER_LME
        state.rflags = rng.getrandbits(22) & FLAGS_IMPLEMENTED & ~FLAG_VM | 2
        if not self.seldom(4):
            state.rflags &= ~FLAG_AC
        state.interrupt_shadow = self.seldom(4)
        state.a20 = not self.seldom(32)
        state.dr7 = rng.getrandbits(16) | 0x400
        state.rip = rng.choice([0x8000, 0xFFFF, 0x12345678])
        state.rsp = self._stack_pointer()
        if self.mode != "long":
            state.rsp &= 0xFFFFFFFF
        if self.mode in ("real", "vm86"):
            self._segments_8086()
        else:
            self._segments_protected(cpl)
        state.gdtr = DescriptorTable(GDT, rng.choice([GDT_LIMIT] * 15 + [8 * 7 - 1]))
        idt_size = {"real": 4, "long": 16}.get(self.mode, 8) * 256
        state.idtr = DescriptorTable(
            0 if self.mode == "real" else IDT, rng.choice([idt_size - 1] * 15 + [0x5F])
        )
        state.ldtr = Segment(LDT_SELECTOR, LDT_AT, 8 * 13 - 1, LDT)
        limit = rng.choice([TSS_SIZE - 1] * 15 + [rng.randrange(TSS_SIZE)])
        state.tr = Segment(MAIN_TSS, TSS, limit, TSS32_BUSY)
        if self.mode != "long" and self.seldom(6):
            state.tr = Segment(SMALL_TSS, TSS + 3 * TSS_SIZE, limit, TSS16_BUSY)
        state.star = CODE0 << 32 | rng.getrandbits(32)
        state.lstar, state.cstar, state.fmask = 0xFFFFFFFF80000000, 0x12345, rng.getrandbits(22)
        state.sysenter_cs = rng.choice([0, 3, CODE0, rng.getrandbits(16)])
        state.sysenter_esp, state.sysenter_eip = rng.getrandbits(47), rng.getrandbits(47)

    def _segments_8086(self):
        rng, state = self.rng, self.state
        attributes = 0x9300
        if self.mode == "vm86":
            state.rflags |= FLAG_VM
            attributes = 0xF300
        for name in ("cs", "ss", "ds", "es", "fs", "gs"):
            selector = rng.choice([0, 0x100, 0x500, 0x800])
            limit = 0xFFFFFFFF if self.mode == "real" and self.seldom() else 0xFFFF
            setattr(state, name, Segment(selector, selector << 4, limit, attributes))
        state.rip &= 0xFFFF

    def _segments_protected(self, cpl):
        rng, state = self.rng, self.state
        long_code = {0: CODE64, 3: rng.choice([USER64, USER64, CODE3])}
        codes = {0: rng.choice([CODE0, CODE16]), 1: CODE1, 3: CODE3} | (
            long_code if self.mode == "long" else {}
        )
        stack = {0: rng.choice([DATA0, DATA16]), 1: DATA1, 3: DATA3}[cpl]
        attributes = {selector: SEGMENTS[selector // 8 - 1] for selector in (codes[cpl], stack)}
        state.cs = Segment(codes[cpl] | cpl, 0, 0xFFFFFFFF, attributes[codes[cpl]])
        limit = 0xFFFF if stack == DATA16 or self.seldom() else 0xFFFFFFFF
        expand_down = 0x400 if self.seldom(24) else 0
        state.ss = Segment(stack | cpl, 0, limit, attributes[stack] | expand_down)
        for name in ("ds", "es", "fs", "gs"):
            setattr(state, name, Segment(DATA3 | 3, rng.choice([0, 0, 0x100]), 0xFFFFFFFF, SEGMENTS[3]))

    def event(self):
        """An event that this guest may get, exceptions with the error code that they have."""
        rng = self.rng
        kind = rng.choice(
            [Kind.INTERRUPT, Kind.EXCEPTION, Kind.EXCEPTION, Kind.SOFTWARE, Kind.SOFTWARE, Kind.ICEBP]
        )
        vector = rng.choice(VECTORS[:8] if kind is Kind.EXCEPTION else VECTORS)
        if self.seldom(32):
            vector = rng.randrange(256)
        has_code = kind is Kind.EXCEPTION and vector in (8, 10, 11, 12, 13, 14)
        instruction = self.state.rip - rng.choice([1, 2]) & 0xFFFFFFFF
        return Event(vector, kind, rng.getrandbits(16) if has_code else None, instruction)


class PagedGuest:
    """Random paging entries on the way to one address, in one of the four modes."""

    def __init__(self, rng):
        self.rng = rng
        self.memory = bytearray(0x8000 - 8)
        self.mode = rng.choice(["long", "long", "pae", "32", "off"])
        self.state = CpuState(
            cr0=CR0_PE | (0 if self.mode == "off" else CR0_PG) | rng.choice([0, CR0_WP]),
            cr3=rng.randrange(8) << 12,
            cr4=rng.choice([0, CR4_PSE]) | rng.choice([0, CR4_SMEP]) | rng.choice([0, CR4_SMAP]),
            efer=rng.choice([0, EFER_NXE, EFER_NXE]),
            rflags=2 | rng.choice([0, FLAG_AC]),
            a20=rng.randrange(16) != 0,
        )
        self.access = rng.choice([1, 2, 4]) | rng.choice([0, 8, 16])
        self.address = rng.getrandbits(47 if self.mode == "long" else 33)
        if self.mode == "long":
            self.state.efer |= EFER_LMA | EFER_LME
            self.address |= rng.choice([0, 0, 0xFFFF800000000000])
            if rng.randrange(32) == 0:
                self.address ^= 1 << rng.randrange(47, 64)
            self._path([39, 30, 21, 12], 9, 8)
        elif self.mode == "pae":
            self.state.cr3 |= rng.choice([0, 0x20, 0xFE0])
            self._path([30, 21, 12], 9, 8)
        elif self.mode == "32":
            self._path([22, 12], 10, 4)
        if self.mode in ("long", "pae"):
            self.state.cr4 |= CR4_PAE

    def _path(self, shifts, bits, size):
        table = self.state.cr3
        for depth, shift in enumerate(shifts):
            is_pointer = self.mode == "pae" and depth == 0
            index = (self.address & (1 << 32 if self.mode != "long" else 1 << 48) - 1) >> shift
            at = table + size * (index & (1 << bits) - 1)
            flags = self._pointer_flags() if is_pointer else self._flags(size)
            next_table = self.rng.randrange(8) << 12
            if flags & PS and depth < len(shifts) - 1 and self.rng.randrange(8):
                next_table = self.rng.randrange(8) << shift  # the address of a large page
            entry = next_table | flags
            if at + size <= len(self.memory):
                put_number(self.memory, at, entry & (1 << 8 * size) - 1, size)
            table = next_table

    def _pointer_flags(self):
        return P if self.rng.randrange(12) else self.rng.getrandbits(12)

    def _flags(self, size):
        rng = self.rng

        def likely(bit, one_in):
            return 0 if rng.randrange(one_in) == 0 else bit

        flags = likely(P, 24) | likely(W, 5) | likely(U, 4) | rng.choice([0, A]) | rng.choice([0, D])
        flags |= rng.choice([0] * 7 + [PS])
        if rng.randrange(16) == 0:
            flags |= 1 << rng.randrange(8 * size)
        return flags | (NX if size == 8 and rng.randrange(10) == 0 else 0)
