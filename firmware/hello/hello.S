# hello: from real mode through protected mode to long mode, one line per step, then power-off.

.intel_syntax noprefix
.include "flat.inc"
.include "long.inc"

.equ FACTOR, 1000000007

        flat_start
        mov     si, offset real_text
1:      lodsb
        test    al, al
        jz      2f
        call    put_char16
        jmp     1b
put_char16:
        put_char_body
        ret

2:      enter_protected_mode
        mov     esi, offset protected_text
1:      lodsb
        test    al, al
        jz      2f
        call    put_char32
        jmp     1b
put_char32:
        put_char_body
        ret

2:      enter_long_mode_from_protected
        say     "hello: long mode, 64-bit paging\n"
        mov     rax, FACTOR
        mul     rax
        say     "hello: 1000000007 squared is "
        call    put_decimal
        say     "\n"
        say     "hello: done, powering off\n"
        jmp     end_success

        long_library

.section .rodata
real_text:
        .asciz  "hello: real mode, 16 bits\n"
protected_text:
        .asciz  "hello: protected mode, 32 bits\n"
