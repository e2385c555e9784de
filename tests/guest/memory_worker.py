"""A guest that checks itself: it runs code on many pages, changes some of it, works through data, and prints sums."""

from functools import cache

import keystone

from emuvisor.units import PAGE_SIZE

__all__ = ["ADDRESS", "MEMORY", "worker"]

ADDRESS = 0x8000
CODE, CODE_PAGES = 0x100000, 64
DATA, DATA_PAGES = 0x180000, 224
MEMORY = 4 << 20

SOURCE = f"""
    mov esp, 0x7000
    mov ebp, SEED
    cld

    mov edi, {CODE:#x}
    xor ecx, ecx
write_code:                             # page i: mov eax, i (odd) or i * seed; inc [page + 800h] (each fourth); ret
    mov eax, ecx
    test ecx, 1
    jnz same
    imul eax, ebp
same:
    mov byte ptr [edi], 0xb8
    mov [edi + 1], eax
    lea ebx, [edi + 5]
    test ecx, 3
    jnz pure
    mov word ptr [ebx], 0x05ff
    lea eax, [edi + 0x800]
    mov [ebx + 2], eax
    add ebx, 6
pure:
    mov byte ptr [ebx], 0xc3
    add edi, {PAGE_SIZE}
    inc ecx
    cmp ecx, {CODE_PAGES}
    jb write_code

    xor edx, edx                        # the pass
next_pass:
    xor esi, esi                        # its sum
    mov edi, {CODE:#x}
    xor ecx, ecx
run_code:
    call edi
    rol esi, 5
    add esi, eax
    add esi, [edi + 0x800]
    mov eax, ecx
    add eax, edx
    and eax, 7
    cmp eax, 3
    jne kept
    add dword ptr [edi + 1], 0x101      # this page's code, changed and run at once
    call edi
    add esi, eax
kept:
    add edi, {PAGE_SIZE}
    inc ecx
    cmp ecx, {CODE_PAGES}
    jb run_code

    mov edi, {DATA:#x}
    xor ecx, ecx
data:
    mov eax, ecx
    add eax, edx
    test edx, edx
    jz fill
    and eax, 7
    jnz sum
fill:                                   # every eighth page in each pass, in the first all of them
    mov eax, ecx
    and eax, 3
    jz zeros
    mov ebx, ecx
    add ebx, edx
    imul ebx, ebx, 0x9e3779b1
    cmp eax, 1
    je filled_alike
    xor ebx, ebp
filled_alike:
    or ebx, 1
zeros:
    push ecx
    mov ecx, {PAGE_SIZE // 4}
    xchg eax, ebx
    cmp ebx, 0
    jne words
    xor eax, eax
words:
    mov [edi], eax
    add edi, 4
    cmp ebx, 3
    jne constant                        # what does not compress
    mov ebp, eax
    shl ebp, 13
    xor eax, ebp
    mov ebp, eax
    shr ebp, 17
    xor eax, ebp
    mov ebp, eax
    shl ebp, 5
    xor eax, ebp
    mov ebp, SEED
constant:
    dec ecx
    jnz words
    pop ecx
    sub edi, {PAGE_SIZE}
sum:
    mov ebx, {PAGE_SIZE // 4 // 8}
add_words:
    rol esi, 1
    add esi, [edi]
    add edi, 32
    dec ebx
    jnz add_words
    inc ecx
    cmp ecx, {DATA_PAGES}
    jb data

    mov ecx, 8                          # print the sum
digits:
    rol esi, 4
    mov eax, esi
    and eax, 15
    add al, 0x30
    cmp al, 0x3a
    jb decimal
    add al, 0x27
decimal:
    push edx
    mov dx, 0x3f8
    out dx, al
    pop edx
    dec ecx
    jnz digits
    push edx
    mov dx, 0x3f8
    mov al, 10
    out dx, al
    pop edx
    inc edx
    cmp edx, PASSES
    jb next_pass

    mov dx, 0x604                       # power off
    mov ax, 0x2000
    out dx, ax
    hlt
"""


@cache
def worker(seed: int, passes: int) -> bytes:
    """The guest's image, to be entered at ADDRESS in protected mode. One sum is printed for each pass."""
    lines = (line.split("#")[0] for line in SOURCE.splitlines())
    source = "\n".join(lines).replace("SEED", hex(seed)).replace("PASSES", str(passes))
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_32).asm(source, ADDRESS)
    return bytes(code)
