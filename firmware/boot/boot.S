# boot: the boot sector of a disk that carries a flat guest.
#
# Sector 1 is the guest's parameter block, its image follows. The sector loads both to 0x7E00 and starts the
# guest at 0800:0000. Sectors are read one by one by cylinder, head and sector, which every BIOS and drive can.

.intel_syntax noprefix
.code16

.equ LOAD_SEGMENT,      0x7E0
.equ GUEST_SEGMENT,     0x800
.equ PARAGRAPHS,        512 / 16

start:  cli
        cld
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, offset start
        sti
        mov     [drive], dl

        mov     ah, 0x08                # geometry: CL bits 0-5 sectors per track, DH last head
        int     0x13
        jc      failed
        and     cx, 0x3F
        mov     [sectors_per_track], cx
        mov     al, dh
        xor     ah, ah
        inc     ax
        mov     [heads], ax

        mov     word ptr [segment], LOAD_SEGMENT
        mov     di, 1                   # LBA
next:   cmp     di, [last_sector]
        ja      go
        mov     ax, di
        xor     dx, dx
        div     word ptr [sectors_per_track]
        mov     cl, dl
        inc     cl                      # sectors count from 1
        xor     dx, dx
        div     word ptr [heads]
        mov     ch, al                  # cylinder, bits 0-7
        shl     ah, 6
        or      cl, ah                  # and 8-9
        mov     dh, dl
        mov     dl, [drive]
        mov     es, [segment]
        xor     bx, bx
        mov     ax, 0x0201
        int     0x13
        jc      failed
        add     word ptr [segment], PARAGRAPHS
        inc     di
        jmp     next

go:     jmp     GUEST_SEGMENT:0

failed: mov     si, offset message
1:      lodsb
        test    al, al
        jz      2f
        mov     ah, 0x0E
        mov     bx, 0x0007
        int     0x10
        jmp     1b
2:      cli
        hlt
        jmp     2b

message:
        .asciz  "boot: cannot read the guest from the disk\r\n"
drive:  .byte   0
sectors_per_track:
        .word   0
heads:  .word   0
segment:
        .word   0
        .org    508
last_sector:
        .word   0                       # set by emuvisor.firmware.boot_disk
        .word   0xAA55
