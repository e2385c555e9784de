# halt: an idle guest. The PIT interrupts 100 times a second, the guest halts in between.
#
# Parameter block, 64-bit number: seconds before power-off (0: 5).

.intel_syntax noprefix
.include "flat.inc"
.include "long.inc"

.equ P_SECONDS,         PARAMETERS
.equ DEFAULT_SECONDS,   5
.equ TICK_HZ,           100

        flat_start
        enter_long_mode
        mov     r8, [P_SECONDS]
        test    r8, r8
        jnz     1f
        mov     r8, DEFAULT_SECONDS
1:      mov     edi, VECTOR_IRQ0
        mov     rsi, offset tick
        mov     eax, GATE_INTERRUPT64
        call    set_gate
        call    pic_init
        mov     ax, PIT_HZ / TICK_HZ
        call    pit_start
        say     "halt: 100 ticks a second\n"

        xor     r9, r9                  # ticks in this second, counted by the handler
        xor     r10, r10                # seconds
idle:   sti
        hlt
        cli
        cmp     r9, TICK_HZ
        jb      idle
        sub     r9, TICK_HZ
        inc     r10
        say     "halt: second "
        mov     rax, r10
        call    put_decimal
        say     "\n"
        cmp     r10, r8
        jb      idle
        say     "halt: done\n"
        jmp     end_success

tick:   push    rax
        inc     r9
        mov     al, PIC_OCW2_EOI
        out     PIC1_COMMAND, al
        pop     rax
        iretq

        long_library
