# bioscheck: calls the services of the BIOS that started it and checks the answers, in real mode.
#
# Needs a BIOS, and the disk it came from (emuvisor.firmware.boot_disk) as the first hard disk. Sector 2047 of
# that disk is written.

.intel_syntax noprefix
.include "flat.inc"

.equ BDA_SEGMENT,       0x40
.equ BDA_COM1,          0
.equ VIDEO_SEGMENT,     0xB800
.equ BUFFER,            0xA000          # two sectors
.equ BUFFER2,           0xA200
.equ SECTOR,            512
.equ HARD_DISK,         0x80
.equ ABSENT_DISK,       0x8F
.equ DISK_SECTORS,      2048
.equ BOOT_SIGNATURE,    0xAA55
.equ SMAP,              0x534D4150
.equ USABLE,            1
.equ COPY_TARGET,       0x200000
.equ WAIT_US,           220000          # four ticks of 54.9 ms
.equ COLUMNS,           80
.equ GREEN,             0x02

# check TEXT: prints the outcome of the comparison before it: equal is a pass. Keeps all registers.
.macro check text
        call    print_check
        .asciz  "\text"
.endm

# check_carry TEXT, check_no_carry TEXT: the same for CF.
.macro check_carry text
        sbb     bp, bp                  # -1 if CF was set
        inc     bp
        check   "\text"
.endm
.macro check_no_carry text
        sbb     bp, bp
        check   "\text"
.endm

        flat_start
        sti
        jmp     main

# print_check: ZF and the text behind the call.
print_check:
        pushfd
        push    eax
        push    esi
        mov     esi, esp
        movzx   esi, word ptr [esi + 12]
        push    si
        mov     si, offset prefix
        call    put_string
        pop     si
        call    put_string              # leaves SI behind the text
        mov     eax, esp
        mov     [eax + 12], si
        mov     si, offset pass
        test    byte ptr [eax + 8], 1 << 6
        jnz     2f
        mov     si, offset fail
        inc     word ptr [failures]
2:      call    put_string
        pop     esi
        pop     eax
        popfd
        ret

put_string:
        lodsb
        test    al, al
        jz      1f
        call    put_char
        jmp     put_string
1:      ret
put_char:
        put_char_body
        ret

prefix: .asciz  "bioscheck: "
pass:   .asciz  ": PASS\n"
fail:   .asciz  ": FAIL\n"

main:
# Memory
        int     0x12
        cmp     ax, 600
        cmc
        check_carry "int 12h, base memory"

        xor     ebx, ebx
        xor     edi, edi                # entries
        xor     ebp, ebp                # bit 0: memory from 0, bit 1: memory from 1 MiB
next_entry:
        push    edi
        push    bp
        mov     eax, 0xE820
        mov     edx, SMAP
        mov     ecx, 20
        mov     edi, BUFFER
        int     0x15
        pop     bp
        pop     edi
        jc      map_done
        cmp     eax, SMAP
        jne     map_done
        inc     edi
        cmp     dword ptr [BUFFER + 16], USABLE
        jne     2f
        cmp     dword ptr [BUFFER], 0
        jne     1f
        or      bp, 1
1:      cmp     dword ptr [BUFFER], 0x100000
        jne     2f
        or      bp, 2
2:      cmp     edi, 100
        jae     map_done
        test    ebx, ebx
        jnz     next_entry
map_done:
        test    ebx, ebx
        check   "int 15h E820h, the map ends"
        cmp     bp, 3
        check   "int 15h E820h, memory from 0 and from 1 MiB"
        mov     eax, 0xE820
        mov     edx, SMAP
        mov     ecx, 19
        xor     ebx, ebx
        mov     di, BUFFER
        int     0x15
        check_carry "int 15h E820h, a buffer that is too small"
        mov     eax, 0xE820
        xor     edx, edx
        mov     ecx, 20
        xor     ebx, ebx
        int     0x15
        check_carry "int 15h E820h, without SMAP"

        mov     ax, 0xE801
        int     0x15
        check_no_carry "int 15h E801h"
        mov     si, ax
        cmp     ax, cx
        check   "int 15h E801h, both answers are the same"
        mov     ah, 0x88
        int     0x15
        cmp     ax, si
        cmc
        check_carry "int 15h 88h, at least what E801h says below 16 MiB"

        mov     di, BUFFER              # a pattern, to extended memory and back
        mov     cx, SECTOR / 2
1:      mov     [di], di
        add     di, 2
        loop    1b
        mov     eax, BUFFER
        mov     edx, COPY_TARGET
        call    move_block
        check_no_carry "int 15h 87h, to extended memory"
        mov     eax, COPY_TARGET
        mov     edx, BUFFER2
        call    move_block
        mov     si, BUFFER
        mov     di, BUFFER2
        mov     cx, SECTOR / 2
        repe cmpsw
        check   "int 15h 87h, back again"

        mov     ax, 0x2401
        int     0x15
        mov     ax, 0x2402
        int     0x15
        cmp     al, 1
        check   "int 15h 24h, A20 on"

        mov     ah, 0xC0
        int     0x15
        cmp     byte ptr es:[bx + 2], 0xFC
        check   "int 15h C0h, an AT"
        push    ds
        pop     es
        mov     ax, 0xEE00
        int     0x15
        check_carry "int 15h, a function that does not exist"

# Time
        mov     ah, 0
        int     0x1A
        mov     si, dx
1:      hlt
        mov     ah, 0
        int     0x1A
        cmp     dx, si
        je      1b
        cmp     dx, dx
        check   "int 1Ah, the timer ticks"
        mov     si, dx
        mov     ah, 0x86
        mov     cx, WAIT_US >> 16
        mov     dx, WAIT_US & 0xFFFF
        int     0x15
        mov     ah, 0
        int     0x1A
        sub     dx, si
        sub     dx, 4                   # it must not be less, and may be one more
        shr     dx, 1
        check   "int 15h 86h, a wait of four ticks"
        mov     ah, 0x02
        int     0x1A
        cmp     ch, 0x24
        check_carry "int 1Ah, hours"
        mov     ah, 0x04
        int     0x1A
        dec     dh
        cmp     dh, 0x12
        check_carry "int 1Ah, month"

# Keyboard
        mov     ah, 0x05
        mov     cx, 0x1E61              # the key A
        int     0x16
        test    al, al
        check   "int 16h, push a key"
        mov     ah, 0x01
        int     0x16
        mov     bp, 1
        jz      1f
        mov     bp, ax
1:      cmp     bp, 0x1E61
        check   "int 16h, look at it"
        mov     ah, 0x00
        int     0x16
        cmp     ax, 0x1E61
        check   "int 16h, take it"
        mov     ah, 0x01
        int     0x16
        check   "int 16h, no key is left"

# Video. What the BIOS shows on COM1 as well is switched off for the moment.
        mov     ax, BDA_SEGMENT
        mov     fs, ax
        push    word ptr fs:[BDA_COM1]
        mov     word ptr fs:[BDA_COM1], 0
        mov     ax, VIDEO_SEGMENT
        mov     gs, ax
        mov     ax, 0x0003
        int     0x10
        mov     ah, 0x0F
        int     0x10
        cmp     ax, COLUMNS << 8 | 3
        check   "int 10h 0Fh, mode and columns"
        mov     ah, 0x02
        mov     bh, 0
        mov     dx, 5 << 8 | 79         # the end of a row
        int     0x10
        mov     ax, 0x0E00 | 'x'
        mov     bx, 7
        int     0x10
        cmp     byte ptr gs:[(5 * COLUMNS + 79) * 2], 'x'
        check   "int 10h 0Eh, a character"
        mov     ah, 0x03
        mov     bh, 0
        int     0x10
        cmp     dx, 6 << 8
        check   "int 10h 03h, the cursor in the next row"
        mov     ax, 0x0900 | 'y'
        mov     bx, GREEN
        mov     cx, 3
        int     0x10
        cmp     dword ptr gs:[(6 * COLUMNS + 1) * 2], 'y' | GREEN << 8 | 'y' << 16 | GREEN << 24
        check   "int 10h 09h, three green characters"
        mov     ah, 0x08
        mov     bh, 0
        int     0x10
        cmp     ax, GREEN << 8 | 'y'
        check   "int 10h 08h, read one back"
        mov     ax, 0x0601
        mov     bh, 7
        mov     cx, 6 << 8
        mov     dx, 7 << 8 | 79
        int     0x10
        cmp     byte ptr gs:[6 * COLUMNS * 2], ' '
        check   "int 10h 06h, scroll a window up"
        cmp     byte ptr gs:[(5 * COLUMNS + 79) * 2], 'x'
        check   "int 10h 06h, the row above stays"
        mov     ax, 0x0701
        mov     bh, 7
        mov     cx, 5 << 8
        mov     dx, 6 << 8 | 79
        int     0x10
        cmp     byte ptr gs:[(6 * COLUMNS + 79) * 2], 'x'
        check   "int 10h 07h, scroll a window down"
        mov     ax, 0x1301
        mov     bx, GREEN
        mov     cx, 4
        mov     dx, 10 << 8 | 10
        mov     bp, offset string
        int     0x10
        cmp     dword ptr gs:[(10 * COLUMNS + 12) * 2], 'r' | GREEN << 8 | 'i' << 16 | GREEN << 24
        check   "int 10h 13h, a string"
        mov     ah, 0x03
        mov     bh, 0
        int     0x10
        cmp     dx, 10 << 8 | 14
        check   "int 10h 13h, the cursor behind it"
        mov     dx, 24 << 8
        mov     ah, 0x02
        int     0x10
        mov     ax, 0x0E0A
        int     0x10
        cmp     byte ptr gs:[(9 * COLUMNS + 10) * 2], 's'
        check   "int 10h 0Eh, the last row scrolls"
        pop     word ptr fs:[BDA_COM1]

# Serial port
        mov     ah, 0x03
        xor     dx, dx
        int     0x14
        and     ah, LSR_THRE
        cmp     ah, LSR_THRE
        check   "int 14h, COM1 is ready"

# Disk
        mov     ah, 0x08
        mov     dl, HARD_DISK
        int     0x13
        check_no_carry "int 13h 08h, geometry"
        push    ds
        pop     es
        and     cx, 0x3F
        mov     bp, cx
        cmp     bp, 63
        check   "int 13h 08h, 63 sectors per track"
        mov     ah, 0x15
        mov     dl, HARD_DISK
        int     0x13
        cmp     ah, 3
        check   "int 13h 15h, a hard disk"
        mov     ah, 0x41
        mov     bx, 0x55AA
        mov     dl, HARD_DISK
        int     0x13
        cmp     bx, 0xAA55
        check   "int 13h 41h, extensions"
        mov     word ptr [BUFFER], 26
        mov     ah, 0x48
        mov     si, BUFFER
        mov     dl, HARD_DISK
        int     0x13
        cmp     dword ptr [BUFFER + 16], DISK_SECTORS
        check   "int 13h 48h, sectors"
        cmp     word ptr [BUFFER + 24], SECTOR
        check   "int 13h 48h, bytes per sector"

        mov     ax, 0x0201
        mov     cx, 1
        mov     dx, HARD_DISK
        mov     bx, BUFFER
        int     0x13
        check_no_carry "int 13h 02h, read the boot sector"
        cmp     word ptr [BUFFER + SECTOR - 2], BOOT_SIGNATURE
        check   "int 13h 02h, its signature"
        mov     dword ptr [packet_lba], 0
        mov     ah, 0x42
        call    packet_call
        check_no_carry "int 13h 42h, read the boot sector"
        mov     si, BUFFER
        mov     di, BUFFER2
        mov     cx, SECTOR / 2
        repe cmpsw
        check   "int 13h 42h, the same bytes"

        mov     dword ptr [BUFFER2], SMAP
        mov     dword ptr [packet_lba], DISK_SECTORS - 1
        mov     ax, 0x4300
        call    packet_call
        check_no_carry "int 13h 43h, write the last sector"
        mov     dword ptr [BUFFER2], 0
        mov     ah, 0x42
        call    packet_call
        cmp     dword ptr [BUFFER2], SMAP
        check   "int 13h 43h, read it back"
        mov     dword ptr [packet_lba], 5
        mov     ah, 0x42
        call    packet_call
        mov     si, BUFFER2
        mov     di, BUFFER
        mov     cx, SECTOR / 2
        rep movsw
        mov     ax, 0x0301
        mov     cx, 6                   # LBA 5, with what it holds already
        mov     dx, HARD_DISK
        mov     bx, BUFFER
        int     0x13
        check_no_carry "int 13h 03h, write a sector"
        mov     ax, 0x0401
        mov     cx, 6
        mov     dx, HARD_DISK
        int     0x13
        check_no_carry "int 13h 04h, verify it"

        mov     dword ptr [packet_lba], DISK_SECTORS
        mov     ah, 0x42
        call    packet_call
        check_carry "int 13h 42h, behind the last sector"
        mov     byte ptr [packet], 8
        mov     ah, 0x42
        call    packet_call
        check_carry "int 13h 42h, a packet that is too short"
        mov     byte ptr [packet], 16
        mov     ax, 0x0201
        mov     cx, 0x0000              # sectors count from 1
        mov     dx, HARD_DISK
        mov     bx, BUFFER
        int     0x13
        check_carry "int 13h 02h, sector 0"
        mov     ax, 0x0201
        mov     cx, 0xFFC1              # cylinder 1023
        mov     dx, HARD_DISK
        int     0x13
        check_carry "int 13h 02h, a cylinder that does not exist"
        mov     ax, 0x0201
        mov     cx, 0x0001
        mov     dx, 0xFF00 | HARD_DISK
        int     0x13
        check_carry "int 13h 02h, a head that does not exist"
        mov     ax, 0x0200
        mov     cx, 0x0001
        mov     dx, HARD_DISK
        int     0x13
        check_carry "int 13h 02h, no sectors"
        mov     ax, 0x0201
        mov     dx, ABSENT_DISK
        int     0x13
        check_carry "int 13h 02h, a drive that does not exist"
        mov     ah, 0xEE
        mov     dl, HARD_DISK
        int     0x13
        check_carry "int 13h, a function that does not exist"
        mov     ah, 0x01
        mov     dl, HARD_DISK
        int     0x13
        cmp     ah, 0x01
        check   "int 13h 01h, the status of that"
        mov     ah, 0x00
        mov     dl, HARD_DISK
        int     0x13
        check_no_carry "int 13h 00h, reset"

        cmp     word ptr [failures], 0
        jne     1f
        mov     si, offset all_passed
        call    put_string
        mov     dx, PM1_CONTROL
        mov     ax, PM1_POWER_OFF
        out     dx, ax
        jmp     2f
1:      mov     al, 1
        out     DEBUG_EXIT, al
2:      cli
        hlt
        jmp     2b

# packet_call: function AX with the packet, one sector at packet_lba, BUFFER2.
packet_call:
        mov     word ptr [packet + 2], 1
        mov     si, offset packet
        mov     dl, HARD_DISK
        int     0x13
        ret

# move_block: SECTOR bytes from EAX to EDX by INT 15h 87h.
move_block:
        mov     si, offset move_table
        mov     [si + 0x12], ax
        shr     eax, 16
        mov     [si + 0x14], al
        mov     [si + 0x17], ah
        mov     [si + 0x1A], dx
        shr     edx, 16
        mov     [si + 0x1C], dl
        mov     [si + 0x1F], dh
        mov     cx, SECTOR / 2
        mov     ah, 0x87
        int     0x15
        ret

all_passed:
        .asciz  "bioscheck: PASS\n"
string: .ascii  "stri"

.data
.balign 4
failures:
        .word   0
        .balign 4
packet: .byte   16, 0
        .word   1
        .word   BUFFER2, 0
packet_lba:
        .quad   0
move_table:
        .quad   0, 0
        .quad   0x000093000000FFFF      # source
        .quad   0x000093000000FFFF      # target
        .quad   0, 0
