# vbe: draws a picture of 640 by 480 pixels by Bochs VBE, frame after frame, and powers off.
#
# Parameter block, 64-bit numbers: frames (0: 1).
#
# The picture: red grows from left to right, green from top to bottom, blue along the diagonal and from frame to frame;
# on it a white box and a yellow disc.

.intel_syntax noprefix
.include "flat.inc"
.include "long.inc"

.equ P_FRAMES,          PARAMETERS

# PCI configuration mechanism 1
.equ CONFIG_ADDRESS,    0xCF8
.equ CONFIG_DATA,       0xCFC
.equ CONFIG_ENABLE,     1 << 31
.equ CONFIG_SLOT,       0x800           # from one slot to the next
.equ CONFIG_SLOTS,      32
.equ PCI_COMMAND,       0x04
.equ PCI_COMMAND_MEMORY, 0x02
.equ PCI_BAR0,          0x10
.equ PCI_BAR_FLAGS,     0x0F
.equ DISPLAY_ID,        0x11111234      # device 1111h of vendor 1234h

# Bochs VBE
.equ VBE_INDEX,         0x1CE
.equ VBE_DATA,          0x1CF
.equ VBE_ID,            0
.equ VBE_XRES,          1
.equ VBE_YRES,          2
.equ VBE_BPP,           3
.equ VBE_ENABLE,        4
.equ VBE_ID_VALUE,      0xB0C0          # and 15 more
.equ VBE_ID_MASK,       0xFFF0
.equ VBE_ENABLED_LFB,   0x41

# VGA
.equ VGA_STATUS_1,      0x3DA           # a read makes the next write to 3C0h an index
.equ VGA_ATTRIBUTE,     0x3C0
.equ VGA_PICTURE_ON,    0x20

.equ FRAMEBUFFER,       0xE0000000      # where the display's memory is put, if nobody has
.equ WIDTH,             640
.equ HEIGHT,            480
.equ PITCH,             WIDTH * 4
.equ BOX_X,             40
.equ BOX_Y,             40
.equ BOX_WIDTH,         160
.equ BOX_HEIGHT,        90
.equ BOX_COLOUR,        0xFFFFFF
.equ DISC_X,            420
.equ DISC_Y,            260
.equ DISC_RADIUS,       120
.equ DISC_COLOUR,       0xFFFF00

.macro vbe_set index, value
        mov     dx, VBE_INDEX
        mov     ax, \index
        out     dx, ax
        mov     dx, VBE_DATA
        mov     ax, \value
        out     dx, ax
.endm

        flat_start
        enter_long_mode
        mov     r12, [P_FRAMES]
        test    r12, r12
        jnz     1f
        mov     r12d, 1
1:      call    find_display
        call    map_framebuffer
        call    set_mode
        say     "vbe: 640 x 480 pixels of 32 bits\n"

        xor     r13d, r13d              # frames so far
next_frame:
        call    draw_gradients
        call    draw_box
        call    draw_disc
        inc     r13
        cmp     r13, r12
        jne     next_frame

        say     "vbe: frames: "
        mov     rax, r13
        call    put_decimal
        say     "\n"
        jmp     end_success

# find_display: EBX = CONFIG_ADDRESS value of the display's register 0.
find_display:
        mov     ebx, CONFIG_ENABLE
1:      mov     eax, ebx
        call    config_read
        cmp     eax, DISPLAY_ID
        je      2f
        add     ebx, CONFIG_SLOT
        cmp     ebx, CONFIG_ENABLE + CONFIG_SLOTS * CONFIG_SLOT
        jb      1b
        say     "vbe: there is no display 1234:1111\n"
        mov     al, 1
        jmp     end_failure
2:      ret

# map_framebuffer: R14 = where the display's memory is; it decodes its addresses.
map_framebuffer:
        lea     eax, [rbx + PCI_BAR0]
        call    config_read
        and     eax, ~PCI_BAR_FLAGS
        mov     r14d, eax
        jnz     1f
        mov     r14d, FRAMEBUFFER
        lea     eax, [rbx + PCI_BAR0]
        mov     ecx, r14d
        call    config_write
1:      lea     eax, [rbx + PCI_COMMAND]
        call    config_read
        or      eax, PCI_COMMAND_MEMORY
        mov     ecx, eax
        lea     eax, [rbx + PCI_COMMAND]
        jmp     config_write

# config_read: EAX = the register that CONFIG_ADDRESS value EAX names. config_write: sets it to ECX. Use EDX.
config_read:
        mov     dx, CONFIG_ADDRESS
        out     dx, eax
        mov     dx, CONFIG_DATA
        in      eax, dx
        ret
config_write:
        mov     dx, CONFIG_ADDRESS
        out     dx, eax
        mov     dx, CONFIG_DATA
        mov     eax, ecx
        out     dx, eax
        ret

set_mode:
        mov     dx, VBE_INDEX
        mov     ax, VBE_ID
        out     dx, ax
        mov     dx, VBE_DATA
        in      ax, dx
        and     ax, VBE_ID_MASK
        cmp     ax, VBE_ID_VALUE
        je      1f
        say     "vbe: the display has no Bochs VBE\n"
        mov     al, 2
        jmp     end_failure
1:      vbe_set VBE_ENABLE, 0
        vbe_set VBE_XRES, WIDTH
        vbe_set VBE_YRES, HEIGHT
        vbe_set VBE_BPP, 32
        vbe_set VBE_ENABLE, VBE_ENABLED_LFB
        mov     dx, VGA_STATUS_1
        in      al, dx
        mov     dx, VGA_ATTRIBUTE
        mov     al, VGA_PICTURE_ON
        out     dx, al
        ret

# draw_gradients: the whole screen, of frame R13.
draw_gradients:
        mov     rdi, r14
        xor     ecx, ecx                # line
1:      xor     edx, edx                # column
        imul    ebx, ecx, 256 * 256 / HEIGHT
        and     ebx, 0xFF00             # green
        lea     r8d, [rcx + r13 * 4]    # blue, and more
        xor     esi, esi                # red, in 1/256
2:      mov     eax, esi
        and     eax, 0xFF00
        shl     eax, 8
        or      eax, ebx
        lea     ebp, [rdx + r8]
        movzx   ebp, bpl
        or      eax, ebp
        stosd
        add     esi, 256 * 256 / WIDTH
        inc     edx
        cmp     edx, WIDTH
        jb      2b
        inc     ecx
        cmp     ecx, HEIGHT
        jb      1b
        ret

draw_box:
        lea     rsi, [r14 + BOX_Y * PITCH + BOX_X * 4]
        mov     eax, BOX_COLOUR
        mov     edx, BOX_HEIGHT
1:      mov     rdi, rsi
        mov     ecx, BOX_WIDTH
        rep stosd
        add     rsi, PITCH
        dec     edx
        jnz     1b
        ret

# draw_disc: the points around its middle with x * x + y * y <= r * r.
draw_disc:
        lea     rdi, [r14 + (DISC_Y - DISC_RADIUS) * PITCH + (DISC_X - DISC_RADIUS) * 4]
        mov     ecx, -DISC_RADIUS       # y
1:      mov     edx, -DISC_RADIUS       # x
        mov     esi, ecx
        imul    esi, esi
2:      mov     eax, edx
        imul    eax, eax
        add     eax, esi
        cmp     eax, DISC_RADIUS * DISC_RADIUS
        ja      3f
        mov     dword ptr [rdi], DISC_COLOUR
3:      add     rdi, 4
        inc     edx
        cmp     edx, DISC_RADIUS
        jle     2b
        add     rdi, PITCH - (2 * DISC_RADIUS + 1) * 4
        inc     ecx
        cmp     ecx, DISC_RADIUS
        jle     1b
        ret

        long_library
