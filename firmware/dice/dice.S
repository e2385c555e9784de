# dice: rolls dice, computes for as many turns as they show, and tells its neighbours on the network. For the microvm
# board with a virtio-rng, and a virtio network card if it has one.
#
# Parameter block, 64-bit numbers: rolls, sides of the die.
#
# The checksum is made of all turns, and of what has been heard: of when, too, for it goes on from where it is then.
#
# Registers, everywhere:
#   R8   rolls                                          R9   sides
#   R10  this roll, from 1                              R11  the source's registers, 0 without one
#   R12  the card's registers, 0 without one            R13  checksum
#   R14  turns                                          R15  frames heard

.intel_syntax noprefix
.include "flat.inc"
.include "long.inc"
.include "virtio.inc"

.equ P_ROLLS,           PARAMETERS
.equ P_SIDES,           PARAMETERS + 8
.equ DEFAULT_ROLLS,     24
.equ DEFAULT_SIDES,     0x10000
.equ FACTOR,            0x5851F42D      # odd, so that nothing is lost

# The devices: virtio 1.2, sections 5.1 and 5.4
.equ DEVICE_NETWORK,    1
.equ DEVICE_ENTROPY,    4
.equ RECEIVE,           0
.equ TRANSMIT,          1
.equ NET_HEADER,        12              # zeros: nothing is left to do
.equ MAC,               CONFIG
.equ MAC_SIZE,          6

# A frame: to all, from this guest, EtherType "local experimental", this roll, the checksum
.equ FRAME_SOURCE,      6
.equ FRAME_TYPE,        12
.equ FRAME_ROLL,        16
.equ FRAME_SUM,         24
.equ FRAME_SIZE,        60
.equ ETHERTYPE,         0xB588          # 88B5h in network order

# Low memory
.equ RANDOM_QUEUE,      FREE_LOW
.equ RECEIVE_QUEUE,     RANDOM_QUEUE + QUEUE_BYTES
.equ TRANSMIT_QUEUE,    RECEIVE_QUEUE + QUEUE_BYTES
.equ RANDOM,            TRANSMIT_QUEUE + QUEUE_BYTES
.equ SENT,              RANDOM + 0x100
.equ HEARD,             SENT + 0x100    # a buffer for each descriptor of the queue
.equ HEARD_SHIFT,       7
.equ HEARD_SIZE,        1 << HEARD_SHIFT

        flat_start
        enter_long_mode
        default r8, P_ROLLS, DEFAULT_ROLLS
        default r9, P_SIDES, DEFAULT_SIDES
        xor     r10, r10
        mov     r13, 1
        xor     r14, r14
        xor     r15, r15
        say     "dice: "
        mov     rax, r8
        call    put_decimal
        say     " rolls, "
        mov     rax, r9
        call    put_decimal
        say     " sides\n"
        call    start_source
        call    start_card

next_roll:
        inc     r10
        call    roll
        xor     edx, edx
        div     r9
        lea     rcx, [rdx + 1]
        add     r14, rcx
1:      imul    r13, r13, FACTOR
        add     r13, rcx
        dec     rcx
        jnz     1b
        test    r12, r12
        jz      2f
        mov     rbx, r12
        call    tell
        call    hear
2:      cmp     r10, r8
        jb      next_roll

        say     "dice: "
        mov     rax, r14
        call    put_decimal
        say     " turns, "
        mov     rax, r15
        call    put_decimal
        say     " frames heard, checksum "
        mov     rax, r13
        call    put_hex
        say     "\ndice: PASS\n"
        jmp     end_success

# ---- random numbers ----

# start_source: R11. Changes RAX, RBX, RCX, RDI.
start_source:
        mov     eax, DEVICE_ENTROPY
        call    virtio_find
        mov     r11, rbx
        test    rbx, rbx
        jz      1f
        call    virtio_begin
        jc      bad_device
        xor     eax, eax
        mov     edi, RANDOM_QUEUE
        call    virtio_queue
        jc      bad_device
        jmp     virtio_ready
1:      say     "dice: there is no source of random numbers, so they are always the same\n"
        ret

# roll: RAX = a random number. Changes RBX, RCX, RDX, RSI, RDI.
roll:   test    r11, r11
        jz      1f
        mov     rbx, r11
        xor     eax, eax
        mov     edi, RANDOM_QUEUE
        mov     esi, RANDOM
        mov     ecx, 8
        call    virtio_ask
        jc      bad_device
        mov     rax, [RANDOM]
        ret
1:      mov     rax, r13
        bswap   rax                     # the low bits are the least random
        ret

# ---- the network ----

# start_card: R12. Changes RAX, RBX, RCX, RDX, RDI.
start_card:
        mov     eax, DEVICE_NETWORK
        call    virtio_find
        mov     r12, rbx
        test    rbx, rbx
        jz      3f
        call    virtio_begin
        jc      bad_device
        mov     eax, RECEIVE
        mov     edi, RECEIVE_QUEUE
        call    virtio_queue
        jc      bad_device
        mov     eax, TRANSMIT
        mov     edi, TRANSMIT_QUEUE
        call    virtio_queue
        jc      bad_device
        call    virtio_ready

        mov     edi, SENT
        mov     ecx, NET_HEADER + FRAME_SIZE
        xor     eax, eax
        rep stosb
        mov     dword ptr [SENT + NET_HEADER], -1
        mov     word ptr [SENT + NET_HEADER + 4], -1
1:      mov     al, [rbx + MAC + rcx]
        mov     [SENT + NET_HEADER + FRAME_SOURCE + rcx], al
        inc     ecx
        cmp     ecx, MAC_SIZE
        jb      1b
        mov     word ptr [SENT + NET_HEADER + FRAME_TYPE], ETHERTYPE

        mov     edi, RECEIVE_QUEUE
        mov     eax, HEARD
        xor     ecx, ecx
2:      mov     edx, ecx
        shl     edx, 4
        mov     [rdi + rdx + DESC_ADDRESS], rax
        mov     dword ptr [rdi + rdx + DESC_LENGTH], HEARD_SIZE
        mov     dword ptr [rdi + rdx + DESC_FLAGS], DESC_WRITE
        mov     [rdi + AVAILABLE + RING_ENTRIES + rcx * 2], cx
        add     eax, HEARD_SIZE
        inc     ecx
        cmp     ecx, QUEUE_SIZE
        jb      2b
        mov     [rdi + AVAILABLE + RING_IDX], cx
        mov     dword ptr [rbx + QUEUE_NOTIFY], RECEIVE
3:      ret

# tell: this roll and the checksum, to all on the network. Changes RAX, RCX, RDX, RSI, RDI.
tell:   mov     [SENT + NET_HEADER + FRAME_ROLL], r10
        mov     [SENT + NET_HEADER + FRAME_SUM], r13
        mov     eax, TRANSMIT
        mov     edi, TRANSMIT_QUEUE
        mov     esi, SENT
        mov     ecx, NET_HEADER + FRAME_SIZE
        call    virtio_send
        jc      bad_device
        ret

# hear: take what has come meanwhile. Changes RAX, RCX, RDX, RDI.
hear:   mov     edi, RECEIVE_QUEUE
1:      cmp     [rdi + USED + RING_IDX], r15w
        je      2f
        mov     eax, r15d
        and     eax, QUEUE_SIZE - 1
        mov     eax, [rdi + USED + RING_ENTRIES + rax * 8]
        mov     edx, eax                # the descriptor's number
        shl     edx, HEARD_SHIFT
        imul    r13, r13, FACTOR
        add     r13, [rdx + HEARD + NET_HEADER + FRAME_SUM]
        movzx   ecx, word ptr [rdi + AVAILABLE + RING_IDX]
        mov     edx, ecx
        and     edx, QUEUE_SIZE - 1
        mov     [rdi + AVAILABLE + RING_ENTRIES + rdx * 2], ax
        inc     ecx
        mov     [rdi + AVAILABLE + RING_IDX], cx
        mov     dword ptr [rbx + QUEUE_NOTIFY], RECEIVE
        inc     r15
        jmp     1b
2:      ret

bad_device:
        say     "dice: a device does not answer as it should\n"
        mov     al, 3
        jmp     end_failure

        long_library
        virtio_library
