"""The display as a PCI function: identity, framebuffer, registers in memory, ROM."""

from display_rig import Bench

from emuvisor.devices.display.vga_pci import VgaFunction, VgaRegisters

ROM = b"\x55\xaa\x01".ljust(512, b"\0")
BAR0, BAR2, ROM_REGISTER = 0x10, 0x18, 0x30


def test_identity_and_windows(bench: Bench) -> None:
    function = VgaFunction(vga=bench.vga, vram=bench.vram, rom=ROM)
    assert function.config_read(0x00, 4) == 0x1111_1234
    assert function.config_read(0x08, 4) >> 8 == 0x030000
    for register, size in ((BAR0, 0xFF000008), (BAR2, 0xFFFFF000), (ROM_REGISTER, 0xFFFFF800)):
        function.config_write(register, 0xFFFF_FFFE, 4)
        assert function.config_read(register, 4) == size


def test_without_a_rom(bench: Bench) -> None:
    function = VgaFunction(vga=bench.vga, vram=bench.vram)
    function.config_write(ROM_REGISTER, 0xFFFF_FFFE, 4)
    assert function.config_read(ROM_REGISTER, 4) == 0


def test_vbe_registers_in_memory(bench: Bench) -> None:
    registers = VgaRegisters(bench.vga)
    assert registers.read(0x500, 2) == 0xB0C5
    registers.write(0x502, 1024 | 768 << 16, 4)
    registers.write(0x506, 32, 2)
    registers.write(0x508, 0x41, 2)
    bench.picture_on()
    assert bench.vga.screen().pixels.shape == (768, 1024, 3)
    assert registers.read(0x502, 4) == 1024 | 768 << 16
    assert registers.read(0x503, 1) == 1024 >> 8
    registers.write(0x502, 5, 1)  # half a register: ignored
    registers.write(0x503, 5, 2)
    assert registers.read(0x502, 2) == 1024


def test_vga_registers_in_memory(bench: Bench) -> None:
    registers = VgaRegisters(bench.vga)
    registers.write(0x41A, 0xFF, 1)
    registers.read(0x41A, 1)
    registers.write(0x400, 0x20, 1)  # as bochs-drm switches the picture on
    assert bench.vga.attribute.palette_enabled
    registers.write(0x404, 0x0F02, 2)
    assert bench.vga.sequencer.map_mask == 0x0F
    assert registers.read(0x404, 2) == 0x0F02
    registers.write(0x41E, 0xFFFF_FFFF, 4)  # reaches behind the registers
    assert registers.read(0x41E, 4) == 0x0000_FFFF


def test_the_rest_is_empty_and_reset_is_the_adapters_own(bench: Bench) -> None:
    registers = VgaRegisters(bench.vga)
    for offset in (0x000, 0x3FC, 0x420, 0x516, 0x600, 0xFFC):
        registers.write(offset, 0xFFFF_FFFF, 4)
        assert registers.read(offset, 4) == 0
    bench.linear(640, 480, 32)
    function = VgaFunction(vga=bench.vga, vram=bench.vram)
    function.reset()
    assert bench.vga.screen().width == 640
