# spin: computes without end and without an exit, apart from one line every so many iterations.
#
# Parameter block, 64-bit numbers: iterations per line (0: 1,000,000), lines before power-off (0: no end).

.intel_syntax noprefix
.include "flat.inc"
.include "long.inc"

.equ P_INTERVAL,        PARAMETERS
.equ P_LINES,           PARAMETERS + 8
.equ DEFAULT_INTERVAL,  1000000

        flat_start
        enter_long_mode
        mov     r8, [P_INTERVAL]
        test    r8, r8
        jnz     1f
        mov     r8, DEFAULT_INTERVAL
1:      mov     r9, [P_LINES]
        xor     r10, r10                # lines so far
        mov     eax, 1                  # the state of xorshift64: any value but 0

next_line:
        mov     rcx, r8
compute:                                # Marsaglia's xorshift64
        mov     rdx, rax
        shl     rdx, 13
        xor     rax, rdx
        mov     rdx, rax
        shr     rdx, 7
        xor     rax, rdx
        mov     rdx, rax
        shl     rdx, 17
        xor     rax, rdx
        dec     rcx
        jnz     compute

        inc     r10
        mov     rbx, rax
        say     "spin: line "
        mov     rax, r10
        call    put_decimal
        say     ", state "
        mov     rax, rbx
        call    put_hex
        say     "\n"
        mov     rax, rbx
        cmp     r10, r9
        jne     next_line
        say     "spin: done\n"
        jmp     end_success

        long_library
