# A legacy BIOS of our own: 64 KiB, in segment F000, offsets from 0.

.intel_syntax noprefix
.include "pc.inc"
.include "layout.inc"
.code16

        .asciz  "emuvisor BIOS, GPL-2.0-or-later"

.include "post.inc"
.include "interrupts.inc"
.include "video.inc"
.include "serial.inc"
.include "keyboard.inc"
.include "disk.inc"
.include "system.inc"
.include "memory.inc"
.include "time.inc"
.include "boot.inc"

.org 0xFFF0
        jmp     BIOS_SEGMENT:post       # the CPU starts here
.org 0xFFF5
        .ascii  "01/01/26"              # the date, where programs look for it
        .byte   0
model:  .byte   0xFC                    # an AT
        .byte   0
