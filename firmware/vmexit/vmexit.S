# vmexit: one loop for each kind of exit, so that the host can tell what each kind costs.
#
# Parameter block, 64-bit number: turns of every loop (0: 1000).
# Before a loop the guest writes the kind's number to the POST port, behind it 0.

.intel_syntax noprefix
.include "flat.inc"
.include "long.inc"
.include "user.inc"

.equ P_TURNS,           PARAMETERS
.equ DEFAULT_TURNS,     1000
.equ MMIO_ADDRESS,      0xFED80000
.equ UNMAPPED,          0x100000000             # behind the 4 GiB that are mapped
.equ TICK_HZ,           1000
.equ VECTOR_PAGE_FAULT, 14
.equ VECTOR_SOFTWARE,   0x81
.equ VECTOR_LEAVE,      0x82
.equ VECTOR_APIC_TIMER, 0x30
.equ APIC_TIMER_COUNT,  1000
.equ INTERRUPT_STACK,   FREE_LOW + 0x1000
.equ USER_STACK,        FREE_LOW + 0x2000
.equ PAGE_DIRECTORY_ENTRIES, 4 * 512

# timed KIND, NAME: runs what stands between it and `timed_end` R8 times, R9 counting down.
# The TSC is read outside the POST codes, where it is not an exit of the loop's kind.
.macro timed kind, name
        mov     ebp, \kind
        lea     rsi, [rip + 10f]
        call    begin
.balign 16
11:
.pushsection .rodata
10:     .asciz  "vmexit: \kind \name"
.popsection
.endm

.macro timed_end
        dec     r9
        jnz     11b
        call    finish
.endm

        flat_start
        enter_long_mode
        mov     r8, [P_TURNS]
        test    r8, r8
        jnz     1f
        mov     r8, DEFAULT_TURNS
1:
        mov     rdi, PAGE_DIRECTORIES           # ring 3 may use all pages
        mov     ecx, PAGE_DIRECTORY_ENTRIES
2:      or      byte ptr [rdi], PTE_U
        add     rdi, 8
        dec     ecx
        jnz     2b
        or      byte ptr [PML4], PTE_U
        or      byte ptr [PDPT], PTE_U
        mov     rax, cr3
        mov     cr3, rax

        mov     edi, VECTOR_PAGE_FAULT
        mov     rsi, offset page_fault
        mov     eax, GATE_INTERRUPT64
        call    set_gate
        mov     edi, VECTOR_IRQ0
        mov     rsi, offset tick
        call    set_gate
        mov     edi, VECTOR_APIC_TIMER
        mov     rsi, offset apic_tick
        call    set_gate
        mov     edi, VECTOR_SOFTWARE
        mov     rsi, offset software
        mov     eax, GATE_INTERRUPT64 | GATE_USER
        call    set_gate
        mov     edi, VECTOR_LEAVE
        mov     rsi, offset leave_user
        call    set_gate
        mov     rsi, offset system_call
        call    user_init
        mov     qword ptr [tss + TSS_RSP0], INTERRUPT_STACK

        timed   1, "port out"
        out     DELAY_PORT, al
        timed_end

        timed   2, "port in"
        in      al, DELAY_PORT
        timed_end

        timed   3, "cpuid"
        xor     eax, eax
        cpuid
        timed_end

        timed   4, "rdtsc"
        rdtsc
        timed_end

        mov     edi, MMIO_ADDRESS
        timed   5, "mmio read"
        mov     eax, [rdi]
        timed_end

        call    pic_init
        mov     ax, PIT_HZ / TICK_HZ
        call    pit_start
        timed   6, "hlt and timer interrupt"
        sti
        hlt
        cli
        timed_end
        mov     al, 0xFF
        out     PIC1_DATA, al

        mov     rdi, UNMAPPED
        mov     r14, offset behind_fault
        timed   7, "page fault"
        mov     al, [rdi]
behind_fault:
        timed_end

        timed   8, "software interrupt from ring 3"
        call    enter_user
3:      int     VECTOR_SOFTWARE
        dec     r9
        jnz     3b
        int     VECTOR_LEAVE
        call    finish

        timed   9, "syscall from ring 3"
        call    enter_user
4:      syscall
        dec     r9
        jnz     4b
        int     VECTOR_LEAVE
        call    finish

        mov     eax, CPUID_FEATURES
        cpuid
        test    edx, CPUID_EDX_APIC
        jz      done
        mov     r10d, APIC
        mov     dword ptr [r10 + APIC_SPURIOUS], APIC_ENABLE | VECTOR_SPURIOUS
        mov     dword ptr [r10 + APIC_DIVIDE], APIC_DIVIDE_BY_1
        mov     dword ptr [r10 + APIC_LVT_TIMER], VECTOR_APIC_TIMER     # one shot
        timed   10, "hlt and APIC timer interrupt"
        mov     dword ptr [r10 + APIC_INITIAL_COUNT], APIC_TIMER_COUNT
        sti
        hlt
        cli
        timed_end

done:   say     "vmexit: done\n"
        jmp     end_success

# begin: keeps the name at RSI, reads the TSC, announces kind EBP, R9 = turns.
begin:
        mov     [kind_name], rsi
        mov     r9, r8
        rdtsc
        shl     rdx, 32
        or      rax, rdx
        mov     [tsc_before], rax
        mov     eax, ebp
        out     POST_CODE, al
        ret

# finish: ends what `begin` began, and prints it.
finish:
        mov     al, 0
        out     POST_CODE, al
        rdtsc
        shl     rdx, 32
        or      rax, rdx
        sub     rax, [tsc_before]
        mov     rsi, [kind_name]
        call    put_string
        say     ": turns "
        push    rax
        mov     rax, r8
        call    put_decimal
        pop     rax
        say     ", tsc "
        call    put_decimal
        say     "\n"
        ret

# enter_user: returns to its caller in ring 3, on the user's stack, interrupts off.
enter_user:
        pop     rcx
        push    SEL_USER_DATA | RPL_USER
        push    USER_STACK
        push    2                               # RFLAGS: its one bit that is always 1
        push    SEL_USER_CODE64 | RPL_USER
        push    rcx
        iretq

# leave_user: back to ring 0, on the first stack, behind the INT.
leave_user:
        pop     rcx
        mov     rsp, STACK_TOP
        jmp     rcx

page_fault:
        add     rsp, 8                          # the error code
        mov     [rsp], r14
        iretq

tick:   mov     al, PIC_OCW2_EOI
        out     PIC1_COMMAND, al
        iretq

apic_tick:
        mov     dword ptr [r10 + APIC_EOI], 0
software:
        iretq

system_call:
        sysretq

        long_library
        user_library

.data
.balign 8
tsc_before:
        .quad   0
kind_name:
        .quad   0
