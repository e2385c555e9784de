# balloon: works with its memory and serves a virtio balloon, honestly or not. For the microvm board.
#
# Parameter block, 64-bit numbers: start (guest physical address), length in bytes, stride in bytes, passes, mode,
# bytes at the start that are never given.
#
# The pages of the range have numbers from 0. Those from `limit` on are in the balloon: it takes the last ones first, so
# they leave in the opposite order. In each pass the guest fills the pages below `limit` with a pattern, reads them back
# and compares; every SERVED pages it looks what the host wants. A page that comes out of the balloon must be zeros.
#
# Registers, everywhere:
#   RBX  the device's registers, 0 without a driver     R8   start
#   R9   pages                                          R10  stride
#   R11  passes                                         R12  this pass, from 1
#   R13  checksum: sum of all words read from the pages that are never given
#   R14  the pass's pattern                             R15  number of pages that are never given

.intel_syntax noprefix
.include "flat.inc"
.include "long.inc"
.include "virtio.inc"

.equ P_START,           PARAMETERS
.equ P_LENGTH,          PARAMETERS + 8
.equ P_STRIDE,          PARAMETERS + 16
.equ P_PASSES,          PARAMETERS + 24
.equ P_MODE,            PARAMETERS + 32
.equ P_KEPT,            PARAMETERS + 40
.equ DEFAULT_START,     0x100000
.equ DEFAULT_LENGTH,    0x800000
.equ DEFAULT_STRIDE,    0x200
.equ DEFAULT_PASSES,    2
.equ LOWEST_START,      0x100000        # below live this program and the PC's holes
.equ PAGE_SHIFT,        12
.equ PAGE,              1 << PAGE_SHIFT
.equ CELL,              8
.equ SERVED,            64              # pages between two looks at the device

.equ HONEST,            0
.equ LIAR,              1               # claims what the host wants, and gives nothing
.equ REPEATER,          2               # gives one page, again and again
.equ REFUSER,           3               # has a driver that does nothing
.equ GREEDY,            4               # gives, and uses again what it gave
.equ DEAD,              5               # serves until the host has what it wants, and never again
.equ KILLED,            6               # then resets the device, and has no driver any more
.equ RELOADED,          7               # then resets the device, and is honest with a new driver
.equ MODES,             8

# The device: virtio 1.2, section 5.5
.equ DEVICE_BALLOON,    5
.equ INFLATE,           0
.equ DEFLATE,           1
.equ NUM_PAGES,         CONFIG
.equ ACTUAL,            CONFIG + 4
.equ BATCH,             256             # page numbers in one request
.equ PFN_SIZE,          4

# Low memory
.equ INFLATE_QUEUE,     FREE_LOW
.equ DEFLATE_QUEUE,     INFLATE_QUEUE + QUEUE_BYTES
.equ PFNS,              DEFLATE_QUEUE + QUEUE_BYTES

        flat_start
        enter_long_mode
        call    take_parameters
        call    introduce
        mov     eax, DEVICE_BALLOON
        call    virtio_find
        test    rbx, rbx
        jz      no_device
        say     "balloon: the device is at "
        mov     rax, rbx
        call    put_hex
        say     "\n"
        call    start_driver
        jmp     work
no_device:
        say     "balloon: there is no device\n"

# ---- the work ----

work:   mov     [limit], r9
        mov     [written], r9
        xor     r12, r12
        xor     r13, r13
next_pass:
        inc     r12
        mov     r14, 0x9E3779B97F4A7C15 # 2**64 divided by the golden ratio: every pass gets another pattern
        imul    r14, r12
        mov     qword ptr [filled], 0
fill:   call    serve                   # may lower both `limit` and `filled`
        mov     ebp, SERVED
1:      mov     rax, [filled]
        cmp     rax, [limit]
        jae     filled_all
        cmp     rax, [written]
        jb      2f
        call    check_zeros             # it was in the balloon
        lea     rcx, [rax + 1]
        mov     [written], rcx
2:      call    fill_page
        inc     qword ptr [filled]
        dec     ebp
        jnz     1b
        jmp     fill

filled_all:
        xor     eax, eax
verify: push    rax
        call    serve
        pop     rax
        mov     ebp, SERVED
1:      cmp     rax, [filled]
        jae     verified
        call    verify_page
        inc     rax
        dec     ebp
        jnz     1b
        jmp     verify

verified:
        call    report
        mov     dx, COM1 + UART_LSR
        in      al, dx
        test    al, LSR_DR
        jnz     done                    # whatever was typed
        cmp     r12, r11
        jb      next_pass
done:   say     "balloon: "
        mov     rax, r12
        call    put_decimal
        say     " passes, checksum "
        mov     rax, r13
        call    put_hex
        say     "\nballoon: PASS\n"
        jmp     end_success

# page_address: RDI = where page RAX begins.
page_address:
        mov     rdi, rax
        shl     rdi, PAGE_SHIFT
        add     rdi, r8
        ret

# fill_page: the pattern into page RAX. Changes RCX, RDX, RDI.
fill_page:
        call    page_address
        lea     rcx, [rdi + PAGE - CELL]
1:      mov     rdx, rdi
        xor     rdx, r14
        mov     [rdi], rdx
        add     rdi, r10
        cmp     rdi, rcx
        jbe     1b
        ret

# verify_page: page RAX must hold the pattern; sums it up if it is one that is never given. Changes RCX, RDX, RSI, RDI.
verify_page:
        call    page_address
        lea     rcx, [rdi + PAGE - CELL]
        xor     esi, esi
1:      mov     rdx, rdi
        xor     rdx, r14
        cmp     [rdi], rdx
        jne     mismatch
        add     rsi, rdx
        add     rdi, r10
        cmp     rdi, rcx
        jbe     1b
        cmp     rax, r15
        jae     2f
        add     r13, rsi
2:      ret

# check_zeros: page RAX must hold nothing but zeros. Changes RCX, RDX, RDI.
check_zeros:
        call    page_address
        mov     rdx, rax
        xor     eax, eax
        mov     ecx, PAGE / CELL
        repe scasq
        mov     rax, rdx
        je      1f
        sub     rdi, CELL
        xor     edx, edx
        jmp     mismatch
1:      ret

# mismatch: the word at RDI should be RDX.
mismatch:
        say     "balloon: FAIL: at "
        mov     rax, rdi
        call    put_hex
        say     " expected "
        mov     rax, rdx
        call    put_hex
        say     ", read "
        mov     rax, [rdi]
        call    put_hex
        say     "\n"
        mov     al, 1
        jmp     end_failure

# report: what the pass has done. Changes RAX.
report: say     "balloon: pass "
        mov     rax, r12
        call    put_decimal
        say     ": "
        mov     rax, [filled]
        call    put_decimal
        say     " pages read back"
        test    rbx, rbx
        jz      1f
        say     ", "
        mov     eax, [claimed]
        call    put_decimal
        say     " of "
        mov     eax, [rbx + NUM_PAGES]
        call    put_decimal
        say     " in the balloon"
1:      say     "\n"
        ret

# ---- the driver ----

# start_driver: negotiate, set up both queues, with an empty balloon. Changes RAX, RCX, RDI.
start_driver:
        call    virtio_begin
        jc      bad_device
        mov     eax, INFLATE
        mov     edi, INFLATE_QUEUE
        call    virtio_queue
        jc      bad_device
        mov     eax, DEFLATE
        mov     edi, DEFLATE_QUEUE
        call    virtio_queue
        jc      bad_device
        mov     dword ptr [PFNS], 0     # has its frame now: who needs memory to give memory comes too late
        call    virtio_ready
        mov     qword ptr [held], 0
        mov     dword ptr [claimed], 0
        ret
bad_device:
        say     "balloon: the device does not answer as it should\n"
        mov     al, 3
        jmp     end_failure

# serve: do what the host wants, or what the mode does in place of that. Changes RAX, RCX, RDX, RSI, RDI.
serve:  test    rbx, rbx
        jz      1f
        mov     rax, [mode]
        jmp     [served + rax * 8]
1:      ret

served: .quad   serve_host, serve_lie, serve_repeat, serve_nothing, serve_greed, serve_once, serve_once, serve_once

serve_nothing:
        ret

serve_lie:
        mov     eax, [rbx + NUM_PAGES]
        jmp     claim

serve_repeat:
        lea     rcx, [r9 - 1]
        mov     [limit], rcx            # the page that it gives is not used
        mov     ecx, [rbx + NUM_PAGES]
        cmp     ecx, [claimed]
        jbe     1f
        lea     rax, [r9 - 1]
        call    page_address
        shr     rdi, PAGE_SHIFT
        mov     [PFNS], edi
        mov     ecx, 1
        mov     eax, INFLATE
        mov     edi, INFLATE_QUEUE
        call    send_pfns
        mov     eax, [claimed]
        inc     eax
        call    claim
        jmp     serve_repeat
1:      mov     eax, ecx
        jmp     claim

serve_greed:
        call    serve_host
        mov     [limit], r9
        ret

serve_once:
        call    serve_host
        mov     rax, [held]
        test    rax, rax
        jz      1f
        cmp     rax, [goal]
        jne     1f
        cmp     qword ptr [mode], DEAD
        je      2f
        say     "balloon: resets the device with "
        call    put_decimal
        say     " pages in the balloon\n"
        call    virtio_reset            # the pages are the guest's again
        mov     [limit], r9
        cmp     qword ptr [mode], RELOADED
        je      3f
        xor     ebx, ebx
1:      ret
2:      mov     qword ptr [mode], REFUSER
        ret
3:      mov     qword ptr [mode], HONEST
        jmp     start_driver

# serve_host: give pages to the host, or take them back, until it has what it wants.
serve_host:
        mov     eax, [rbx + NUM_PAGES]
        mov     rcx, r9
        sub     rcx, r15
        cmp     rax, rcx
        cmova   rax, rcx
        mov     [goal], rax
        cmp     rax, [held]
        ja      1f
        jb      2f
        ret
1:      call    inflate
        cmp     qword ptr [mode], GREEDY
        jne     serve_host
        call    use_again
        jmp     serve_host
2:      call    deflate
        jmp     serve_host

# inflate: give the next pages, a batch at most.
inflate:
        mov     rcx, [goal]
        sub     rcx, [held]
        cmp     rcx, BATCH
        jbe     1f
        mov     ecx, BATCH
1:      mov     rax, r9
        sub     rax, [held]
        push    rax
        mov     [given], rax
        sub     rax, rcx
        mov     [limit], rax            # not used any more from here on
        cmp     [filled], rax
        jbe     2f
        mov     [filled], rax
2:      cmp     [written], rax
        jbe     3f
        mov     [written], rax
3:      pop     rax
        dec     rax                     # the highest first
        add     [held], rcx
        mov     rdx, -1
        call    list_pfns
        mov     eax, INFLATE
        mov     edi, INFLATE_QUEUE
        call    send_pfns
        mov     rax, [held]
        jmp     claim

# use_again: the pages that `inflate` has just given, without a word to the host. Changes RAX, RCX, RDX, RDI.
use_again:
        mov     rax, [limit]
1:      call    check_zeros
        call    fill_page
        inc     rax
        cmp     rax, [given]
        jb      1b
        mov     [written], r9
        ret

# deflate: take back the pages given last, a batch at most.
deflate:
        mov     rcx, [held]
        sub     rcx, [goal]
        cmp     rcx, BATCH
        jbe     1f
        mov     ecx, BATCH
1:      mov     rax, r9
        sub     rax, [held]             # the lowest first
        sub     [held], rcx
        mov     edx, 1
        call    list_pfns
        mov     eax, DEFLATE
        mov     edi, DEFLATE_QUEUE
        call    send_pfns
        mov     rax, r9
        sub     rax, [held]
        mov     [limit], rax
        mov     rax, [held]

# claim: tell the host that EAX pages are in the balloon, unless it knows.
claim:  cmp     eax, [claimed]
        je      1f
        mov     [claimed], eax
        mov     [rbx + ACTUAL], eax
1:      ret

# list_pfns: the guest frame numbers of RCX pages from page RAX on, in steps of RDX, to PFNS. Changes RAX, RSI, RDI.
list_pfns:
        call    page_address
        mov     rax, rdi
        shr     rax, PAGE_SHIFT
        xor     esi, esi
1:      mov     [PFNS + rsi * PFN_SIZE], eax
        add     rax, rdx
        inc     esi
        cmp     esi, ecx
        jb      1b
        ret

# send_pfns: the ECX numbers at PFNS to queue EAX at RDI. Changes RCX, RDX, RSI.
send_pfns:
        shl     ecx, 2                  # PFN_SIZE
        mov     esi, PFNS
        call    virtio_send
        jc      bad_device
        ret

# ---- parameters ----

# take_parameters: sets R8 to R11, R15 and the mode.
take_parameters:
        default r8, P_START, DEFAULT_START
        default r9, P_LENGTH, DEFAULT_LENGTH
        default r10, P_STRIDE, DEFAULT_STRIDE
        default r11, P_PASSES, DEFAULT_PASSES
        mov     rax, r9
        shr     rax, 2
        and     rax, -PAGE
        default r15, P_KEPT, rax
        mov     ebx, 1
        shl     rbx, 32
        cmp     r8, LOWEST_START
        jb      bad_range
        cmp     r8, rbx
        jae     bad_range
        sub     rbx, r8                 # room up to 4 GiB, the end of what is mapped
        cmp     r9, rbx
        ja      bad_range
        mov     rax, r8
        or      rax, r9
        or      rax, r15
        test    eax, PAGE - 1
        jnz     bad_range
        shr     r9, PAGE_SHIFT
        shr     r15, PAGE_SHIFT
        jz      bad_range
        cmp     r15, r9
        jae     bad_range
        cmp     r10, CELL
        jb      bad_stride
        cmp     r10, PAGE
        ja      bad_stride
        mov     rax, [P_MODE]
        cmp     rax, MODES
        jae     bad_mode
        mov     [mode], rax
        ret

bad_range:
        say     "balloon: the range must be whole pages between 1 MiB and 4 GiB, and some of them never given\n"
        jmp     refuse
bad_stride:
        say     "balloon: the stride must be 8 to 4096 bytes\n"
        jmp     refuse
bad_mode:
        say     "balloon: the mode must be 0 to 7\n"
refuse: mov     al, 2
        jmp     end_failure

# introduce: what the parameters are. Changes RAX, RSI.
introduce:
        say     "balloon: "
        mov     rax, r9
        call    put_decimal
        say     " pages from "
        mov     rax, r8
        call    put_hex
        say     ", "
        mov     rax, r15
        call    put_decimal
        say     " never given, stride "
        mov     rax, r10
        call    put_decimal
        say     ", passes "
        mov     rax, r11
        call    put_decimal
        say     ", mode "
        mov     rax, [mode]
        mov     rsi, [names + rax * 8]
        call    put_string
        say     "\n"
        ret

        long_library
        virtio_library

.section .rodata
names:  .quad   1f, 2f, 3f, 4f, 5f, 6f, 7f, 8f
1:      .asciz  "honest"
2:      .asciz  "liar"
3:      .asciz  "repeater"
4:      .asciz  "refuser"
5:      .asciz  "greedy"
6:      .asciz  "dead"
7:      .asciz  "killed"
8:      .asciz  "reloaded"

.data
.balign 8
mode:   .quad   0
goal:   .quad   0                       # pages that the balloon is to hold: what the host wants, as far as it gets it
held:   .quad   0                       # pages in the balloon
claimed: .quad  0                       # what the host was told; 32 bits
limit:  .quad   0                       # the pages below are used
given:  .quad   0                       # the pages between `limit` and this one were the last batch given
filled: .quad   0                       # the pages below hold this pass's pattern
written: .quad  0                       # pages from here on were in the balloon and not written since
