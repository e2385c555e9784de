"""The display adapter: VGA with Bochs VBE, as a picture, as text, and as a PCI function.

vga            the adapter: ports, status, which of the ways below draws the screen
vga_pci        the PCI function around it: linear framebuffer, registers in memory, ROM
screen, png    what it shows at one moment, and that as a file
sequencer, crtc, graphics_controller, attribute, dac
               the VGA's parts with their registers (registers: what the files have in common)
memory         the planes and the processor's window on them
text, graphics, pixels
               from the planes to pixels
bochs_vbe      the linear modes
text_mode, font, cp437
               text mode 3 without a video BIOS, its font (drawn in glyphs.txt), its characters
"""
