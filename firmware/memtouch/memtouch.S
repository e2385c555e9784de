# memtouch: writes a pattern into memory, reads it back, compares, and sums it up.
#
# Parameter block, 64-bit numbers: start (guest physical address), length in bytes, stride in bytes, passes.

.intel_syntax noprefix
.include "flat.inc"
.include "long.inc"

.equ P_START,           PARAMETERS
.equ P_LENGTH,          PARAMETERS + 8
.equ P_STRIDE,          PARAMETERS + 16
.equ P_PASSES,          PARAMETERS + 24
.equ DEFAULT_START,     0x100000
.equ DEFAULT_LENGTH,    0x800000
.equ DEFAULT_STRIDE,    0x1000
.equ DEFAULT_PASSES,    2
.equ LOWEST_START,      0x100000        # below live this program and the PC's holes
.equ CELL,              8

        flat_start
        enter_long_mode
        default r8, P_START, DEFAULT_START
        default r9, P_LENGTH, DEFAULT_LENGTH
        default r10, P_STRIDE, DEFAULT_STRIDE
        default r11, P_PASSES, DEFAULT_PASSES
        mov     ebx, 1
        shl     rbx, 32
        cmp     r8, LOWEST_START
        jb      bad_range
        cmp     r8, rbx
        jae     bad_range
        sub     rbx, r8                 # room up to 4 GiB, the end of what is mapped
        cmp     r9, rbx
        ja      bad_range
        cmp     r9, CELL
        jb      bad_range
        cmp     r10, CELL
        jb      bad_stride

        say     "memtouch: "
        mov     rax, r9
        call    put_decimal
        say     " bytes from "
        mov     rax, r8
        call    put_hex
        say     ", stride "
        mov     rax, r10
        call    put_decimal
        say     ", passes "
        mov     rax, r11
        call    put_decimal
        say     "\n"

        lea     r9, [r8 + r9 - CELL]    # the last address for a word
        xor     r12, r12                # pass, from 1
        xor     r13, r13                # checksum: sum of all words read
        mov     r15, 0x9E3779B97F4A7C15 # 2**64 divided by the golden ratio: every pass gets another pattern

next_pass:
        inc     r12
        mov     r14, r12
        imul    r14, r15
        xor     rcx, rcx                # words
        mov     rdi, r8
fill:   cmp     rdi, r9
        ja      filled
        mov     rax, rdi
        xor     rax, r14
        mov     [rdi], rax
        inc     rcx
        add     rdi, r10
        jnc     fill
filled: say     "memtouch: pass "
        mov     rax, r12
        call    put_decimal
        say     ": wrote "
        mov     rax, rcx
        call    put_decimal
        say     " words"

        mov     rdi, r8
verify: cmp     rdi, r9
        ja      verified
        mov     rax, [rdi]
        mov     rdx, rdi
        xor     rdx, r14
        cmp     rax, rdx
        jne     mismatch
        add     r13, rax
        add     rdi, r10
        jnc     verify
verified:
        say     ", all read back\n"
        cmp     r12, r11
        jb      next_pass
        say     "memtouch: checksum "
        mov     rax, r13
        call    put_hex
        say     "\nmemtouch: PASS\n"
        jmp     end_success

mismatch:
        mov     rbx, rax
        say     "\nmemtouch: FAIL: at "
        mov     rax, rdi
        call    put_hex
        say     " wrote "
        mov     rax, rdx
        call    put_hex
        say     ", read "
        mov     rax, rbx
        call    put_hex
        say     "\n"
        mov     al, 1
        jmp     end_failure

bad_range:
        say     "memtouch: the range must lie between 1 MiB and 4 GiB and hold 8 bytes\n"
        mov     al, 2
        jmp     end_failure
bad_stride:
        say     "memtouch: the stride must be at least 8 bytes\n"
        mov     al, 2
        jmp     end_failure

        long_library
