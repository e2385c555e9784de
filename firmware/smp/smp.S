# smp: starts all processors, lets them work on the same memory at once, and checks what comes of it.
#
# Parameter block, 64-bit number: rounds of each check.

.intel_syntax noprefix
.include "flat.inc"
.include "long.inc"

.equ P_ROUNDS,          PARAMETERS
.equ DEFAULT_ROUNDS,    1000
.equ ROUNDS_PER_SIGNAL, 8               # interrupts take longer than additions: so many fewer of them

# R15 is the local APIC's page, RBP the processor's number, all the time.

# Shared by all processors; cells of their own are 8 bytes apart.
.equ SHARED,            FREE_LOW
.equ PROCESSORS,        SHARED
.equ ROUNDS,            SHARED + 0x08
.equ SIGNALS,           SHARED + 0x10
.equ STARTED,           SHARED + 0x18
.equ IDS,               SHARED + 0x20   # a bit for each APIC ID that was seen
.equ ARRIVED,           SHARED + 0x40   # the barrier's
.equ GENERATION,        SHARED + 0x48
.equ SUM_XADD,          SHARED + 0x80
.equ SUM_CMPXCHG,       SHARED + 0xC0
.equ LOCK,              SHARED + 0x100
.equ FIRST,             SHARED + 0x108  # only changed together, under the lock
.equ SECOND,            SHARED + 0x110
.equ LAST_TIME,         SHARED + 0x118
.equ TORN,              SHARED + 0x120  # how often they differed
.equ BACKWARDS,         SHARED + 0x128  # how often the time stamp counter was behind another processor's
.equ PAIR,              SHARED + 0x130  # two numbers, 16 bytes
.equ JOB,               SHARED + 0x140  # what a VECTOR_JOB interrupt is about
.equ ACKNOWLEDGED,      SHARED + 0x148
.equ RECEIVED,          SHARED + 0x200
.equ SEEN,              SHARED + 0x300
.equ SHARED_END,        SHARED + 0x400

.equ ROUTINE,           0x31000         # code that the first processor writes
.equ PAGE_A,            0x32000
.equ PAGE_B,            0x33000
.equ WINDOW_TABLE,      0x34000
.equ SPLIT,             0x36000 - 4     # a number that lies in two pages
.equ SPLIT_START,       0xFFFFFF80      # soon there is a carry from one to the other
.equ PAIR_STEP,         3               # what the pair's second number grows by, while the first grows by 1
.equ STACKS,            0x40000
.equ STACK_SIZE,        0x1000
.equ WINDOW,            0x200000        # the second 2 MiB: its first page shows PAGE_A or PAGE_B
.equ WINDOW_ENTRY,      PAGE_DIRECTORIES + 8

.equ ROUTINE_IMMEDIATE, ROUTINE + 1
.equ OPCODE_MOV_EAX,    0xB8
.equ OPCODE_RET,        0xC3

.equ VECTOR_PING,       0x40
.equ VECTOR_JOB,        0x41
.equ JOB_CALL,          1
.equ JOB_TRANSLATE,     2

.equ APIC_ID,           0x020
.equ APIC_ID_SHIFT,     24
.equ APIC_ICR_LOW,      0x300
.equ APIC_ICR_HIGH,     0x310
.equ ICR_ASSERT,        1 << 14
.equ ICR_TO_OTHERS,     3 << 18
.equ ICR_INIT,          5 << 8 | ICR_ASSERT | ICR_TO_OTHERS
.equ ICR_STARTUP,       6 << 8 | ICR_ASSERT | ICR_TO_OTHERS
.equ CPUID_TOPOLOGY,    0x0B
.equ TOPOLOGY_CORES,    1

# fail_unless CONDITION, "text": where the flags do not say so, the end.
.macro fail_unless condition, text
        j\condition 11f
        say     "smp: FAIL: \text\n"
        mov     al, 1
        jmp     end_failure
11:
.endm

# report "text", CELL: a line with the number in the cell.
.macro report text, cell
        say     "smp: \text: "
        mov     rax, [\cell]
        call    put_decimal
        say     "\n"
.endm

        flat_start
        enter_long_mode
        mov     al, 0xFF
        out     PIC1_DATA, al
        out     PIC2_DATA, al
        mov     edi, SHARED
        mov     ecx, (SHARED_END - SHARED) / 8
        xor     eax, eax
        rep stosq
        default rax, P_ROUNDS, DEFAULT_ROUNDS
        mov     [ROUNDS], rax
        xor     edx, edx
        mov     ecx, ROUNDS_PER_SIGNAL
        div     rcx
        mov     [SIGNALS], rax

        mov     eax, CPUID_TOPOLOGY
        mov     ecx, TOPOLOGY_CORES
        cpuid
        test    ebx, ebx
        jnz     1f
        mov     ebx, 1                  # no such leaf: it is alone
1:      mov     [PROCESSORS], rbx

        mov     edi, VECTOR_PING
        lea     rsi, [rip + on_ping]
        mov     eax, GATE_INTERRUPT64
        call    set_gate
        mov     edi, VECTOR_JOB
        lea     rsi, [rip + on_job]
        call    set_gate
        call    make_window
        mov     eax, SPLIT_START
        mov     [SPLIT], rax
        mov     byte ptr [ROUTINE], OPCODE_MOV_EAX
        mov     byte ptr [ROUTINE + 5], OPCODE_RET

        mov     r15d, APIC
        mov     dword ptr [r15 + APIC_SPURIOUS], APIC_ENABLE | VECTOR_SPURIOUS
        mov     dword ptr [r15 + APIC_ICR_LOW], ICR_INIT
        mov     eax, offset processor_start
        shr     eax, 12
        or      eax, ICR_STARTUP
        mov     [r15 + APIC_ICR_LOW], eax
        mov     [r15 + APIC_ICR_LOW], eax
        call    introduce
        call    barrier
        sti

        report  "processors", STARTED
        mov     rcx, [PROCESSORS]
        mov     eax, 1
        shl     rax, cl
        dec     rax
        cmp     rax, [IDS]
        fail_unless e, "their APIC IDs are not the numbers from 0 on"

        call    add_together
        mov     rax, [PROCESSORS]
        mul     qword ptr [ROUNDS]
        mov     rbx, rax
        report  "sum by LOCK XADD", SUM_XADD
        cmp     rbx, [SUM_XADD]
        fail_unless e, "additions were lost"
        report  "sum by LOCK CMPXCHG", SUM_CMPXCHG
        cmp     rbx, [SUM_CMPXCHG]
        fail_unless e, "exchanges were lost"
        report  "sum by LOCK CMPXCHG16B", PAIR
        cmp     rbx, [PAIR]
        fail_unless e, "exchanges of 16 bytes were lost"
        imul    rax, rbx, PAIR_STEP
        cmp     rax, [PAIR + 8]
        fail_unless e, "an exchange of 16 bytes was torn"
        mov     eax, SPLIT_START
        sub     [SPLIT], rax
        report  "sum across two pages by LOCK XADD", SPLIT
        cmp     rbx, [SPLIT]
        fail_unless e, "additions across two pages were lost"
        report  "sum under a spin lock", FIRST
        cmp     rbx, [FIRST]
        fail_unless e, "the lock was held twice"
        cmp     qword ptr [TORN], 0
        fail_unless e, "a change under the lock was seen half done"
        cmp     qword ptr [BACKWARDS], 0
        fail_unless e, "time ran backwards from one processor to the next"
        say     "smp: time never ran backwards\n"

        call    ping
        xor     ecx, ecx
2:      mov     rax, [RECEIVED + rcx * 8]
        cmp     rax, [SIGNALS]
        fail_unless e, "interrupts were lost"
        inc     ecx
        cmp     rcx, [PROCESSORS]
        jb      2b
        report  "interrupts from neighbour to neighbour, each", SIGNALS

        mov     qword ptr [JOB], JOB_CALL
        mov     r12, [SIGNALS]
3:      mov     ebx, r12d
        imul    ebx, ebx, 0x9E3779B1
        mov     [ROUTINE_IMMEDIATE], ebx
        call    interrupt_others
        call    check_seen
        fail_unless e, "a processor executed code as it was before"
        dec     r12
        jnz     3b
        report  "modified code seen by all, times", SIGNALS

        mov     qword ptr [JOB], JOB_TRANSLATE
        mov     r12, [SIGNALS]
4:      mov     eax, PAGE_A
        mov     ebx, PAGE_B
        test    r12, 1
        cmovz   eax, ebx
        mov     ebx, eax                # each page holds its own address
        or      eax, PTE_P + PTE_W
        mov     [WINDOW_TABLE], rax
        invlpg  [WINDOW]
        call    interrupt_others
        call    check_seen
        fail_unless e, "a processor read through a translation that was gone"
        dec     r12
        jnz     4b
        report  "translations changed for all, times", SIGNALS

        say     "smp: PASS\n"
        jmp     end_success

# Every other processor sleeps in here, and does what VECTOR_JOB interrupts ask for.
serve:  sti
        hlt
        jmp     serve

# make_window: a page table for the second 2 MiB, and the two pages that it can show.
make_window:
        mov     edi, WINDOW_TABLE
        mov     ecx, 0x1000 / 8
        xor     eax, eax
        rep stosq
        mov     qword ptr [WINDOW_ENTRY], WINDOW_TABLE + PTE_P + PTE_W
        mov     dword ptr [PAGE_A], PAGE_A
        mov     dword ptr [PAGE_B], PAGE_B
        mov     rax, cr3                # the old entry may be in the TLB
        mov     cr3, rax
        ret

# introduce: EBP = the APIC ID; counted and noted.
introduce:
        mov     ebp, [r15 + APIC_ID]
        shr     ebp, APIC_ID_SHIFT
        lock bts qword ptr [IDS], rbp
        lock inc qword ptr [STARTED]
        ret

# barrier: returns when all processors have come here.
barrier:
        mov     rcx, [GENERATION]
        mov     eax, 1
        lock xadd [ARRIVED], rax
        inc     rax
        cmp     rax, [PROCESSORS]
        jne     1f
        mov     qword ptr [ARRIVED], 0
        inc     qword ptr [GENERATION]
        ret
1:      pause
        cmp     rcx, [GENERATION]
        je      1b
        ret

# add_together: all processors add to the same sums, in several ways.
add_together:
        call    barrier
        mov     r12, [ROUNDS]
1:      mov     eax, 1
        lock xadd [SUM_XADD], rax
        dec     r12
        jnz     1b
        call    barrier
        mov     r12, [ROUNDS]
2:      mov     rax, [SUM_CMPXCHG]
3:      lea     rbx, [rax + 1]
        lock cmpxchg [SUM_CMPXCHG], rbx
        jne     3b
        dec     r12
        jnz     2b
        call    barrier
        mov     r12, [ROUNDS]
4:      mov     rax, [PAIR]
        jmp     5f                      # a block of its own: a turn may end between the two loads
5:      mov     rdx, [PAIR + 8]
6:      lea     rbx, [rax + 1]
        lea     rcx, [rdx + PAIR_STEP]
        lock cmpxchg16b [PAIR]
        jne     6b
        dec     r12
        jnz     4b
        call    barrier
        mov     r12, [ROUNDS]
7:      mov     eax, 1
        lock xadd [SPLIT], rax
        dec     r12
        jnz     7b
        call    barrier
        mov     r12, [ROUNDS]
8:      call    acquire
        mov     rbx, [FIRST]
        cmp     rbx, [SECOND]
        je      5f
        inc     qword ptr [TORN]
5:      rdtsc
        shl     rdx, 32
        or      rax, rdx
        cmp     rax, [LAST_TIME]
        jae     6f
        inc     qword ptr [BACKWARDS]
6:      mov     [LAST_TIME], rax
        inc     rbx
        mov     [FIRST], rbx
        jmp     7f                      # two blocks: a turn may end between them
7:      mov     [SECOND], rbx
        mov     dword ptr [LOCK], 0
        dec     r12
        jnz     8b
        jmp     barrier

acquire:
        mov     eax, 1
        xchg    [LOCK], eax
        test    eax, eax
        jz      2f
1:      pause
        cmp     dword ptr [LOCK], 0
        jne     1b
        jmp     acquire
2:      ret

# ping: every processor interrupts the next one, and waits each time until that has taken it.
ping:
        lea     ebx, [rbp + 1]
        cmp     rbx, [PROCESSORS]
        jne     1f
        xor     ebx, ebx
1:      xor     r12, r12
2:      mov     eax, ebx
        shl     eax, APIC_ID_SHIFT
        mov     [r15 + APIC_ICR_HIGH], eax
        mov     dword ptr [r15 + APIC_ICR_LOW], VECTOR_PING | ICR_ASSERT
        inc     r12
3:      pause
        cmp     [RECEIVED + rbx * 8], r12
        jb      3b
        cmp     r12, [SIGNALS]
        jb      2b
        jmp     barrier

on_ping:
        inc     qword ptr [RECEIVED + rbp * 8]
        mov     dword ptr [r15 + APIC_EOI], 0
        iretq

# interrupt_others: send VECTOR_JOB, and wait until all have done it.
interrupt_others:
        mov     qword ptr [ACKNOWLEDGED], 0
        mov     rcx, [PROCESSORS]
        dec     rcx
        jz      2f
        mov     dword ptr [r15 + APIC_ICR_LOW], VECTOR_JOB | ICR_ASSERT | ICR_TO_OTHERS
1:      pause
        cmp     rcx, [ACKNOWLEDGED]
        jne     1b
2:      ret

on_job:
        push    rax
        push    rcx
        cmp     qword ptr [JOB], JOB_CALL
        jne     1f
        mov     eax, ROUTINE
        call    rax
        jmp     2f
1:      invlpg  [WINDOW]
        mov     eax, [WINDOW]
2:      mov     [SEEN + rbp * 8], rax
        lock inc qword ptr [ACKNOWLEDGED]
        mov     dword ptr [r15 + APIC_EOI], 0
        pop     rcx
        pop     rax
        iretq

# check_seen: ZF when all others have seen EBX.
check_seen:
        mov     ecx, 1
1:      cmp     rcx, [PROCESSORS]
        je      2f
        cmp     [SEEN + rcx * 8], rbx
        jne     2f
        inc     ecx
        jmp     1b
2:      ret

        long_library

# Where the other processors start, in real mode, at an address that a start-up IPI can name.
.balign 0x1000
.code16
processor_start:
        cli
        xor     ax, ax
        mov     ds, ax
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      eax, CR0_PE
        mov     cr0, eax
        jmp     SEL_CODE32:processor_protected
.code32
processor_protected:
        mov     ax, SEL_DATA
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     eax, cr4
        or      eax, CR4_PAE
        mov     cr4, eax
        mov     eax, PML4
        mov     cr3, eax
        mov     ecx, MSR_EFER
        rdmsr
        or      eax, EFER_LME | EFER_NXE | EFER_SCE
        wrmsr
        mov     eax, cr0
        or      eax, CR0_PG | CR0_WP
        mov     cr0, eax
        jmp     SEL_CODE64:processor_long
.code64
processor_long:
        mov     ax, SEL_DATA
        mov     ss, ax
        mov     r15d, APIC
        mov     dword ptr [r15 + APIC_SPURIOUS], APIC_ENABLE | VECTOR_SPURIOUS
        mov     esp, [r15 + APIC_ID]
        shr     esp, APIC_ID_SHIFT
        inc     esp
        imul    esp, esp, STACK_SIZE
        add     esp, STACKS
        lidt    [idt_pointer]
        call    introduce
        call    barrier
        sti
        call    add_together
        call    ping
        jmp     serve
