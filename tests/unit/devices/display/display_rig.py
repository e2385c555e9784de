"""A display adapter on a bench: ports by their numbers, memory by its address, a clock to turn."""

import numpy as np

from emuvisor.bus.bus import Bus
from emuvisor.bus.clock import VirtualClock
from emuvisor.devices.display.memory import WINDOW_LENGTH
from emuvisor.devices.display.vga import PORTS_LENGTH, Vga
from emuvisor.units import MIB

SEQUENCER, GRAPHICS, CRTC, ATTRIBUTE = 0x3C4, 0x3CE, 0x3D4, 0x3C0
STATUS_1 = 0x3DA
VBE_INDEX, VBE_DATA = 0x1CE, 0x1CF
XRES, YRES, BPP, ENABLE, BANK, VIRT_WIDTH, VIRT_HEIGHT, X_OFFSET, Y_OFFSET, MEMORY_64K = range(1, 11)
ENABLED, GETCAPS, DAC_8BIT, LFB, NOCLEARMEM = 0x01, 0x02, 0x20, 0x40, 0x80


class Vram:
    """Memory of the linear modes, with a record of where it was written."""

    def __init__(self, length: int = 16 * MIB) -> None:
        self.data = bytearray(length)
        self.writes: list[tuple[int, int]] = []

    @property
    def length(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(self.data)
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= offset + len(data) <= len(self.data)
        self.writes.append((offset, len(data)))
        self.data[offset : offset + len(data)] = data

    def place(self, gpa: int | None) -> None:
        pass


class Bench:
    def __init__(
        self, vga: Vga | None = None, clock: VirtualClock | None = None, vram: Vram | None = None
    ) -> None:
        self.clock = clock or VirtualClock()
        self.vram = vram or Vram()
        self.vga = vga or Vga(clock=self.clock, vram=self.vram)
        self.ports = Bus("port", 0x10000)
        self.ports.attach(0x3B0, PORTS_LENGTH, self.vga, width=1)
        self.ports.attach(VBE_INDEX, 4, self.vga.vbe, width=2)
        self.memory = Bus("memory", 0x100000)
        self.memory.attach(0xA0000, WINDOW_LENGTH, self.vga.window)

    def restored(self) -> "Bench":
        again = Bench(clock=self.clock, vram=self.vram)
        again.vga.load(self.vga.save())
        return again

    def set(self, index_port: int, index: int, value: int) -> None:
        """An indexed register, by a word as most software writes it."""
        if index_port == ATTRIBUTE:
            self.ports.read(STATUS_1, 1)
            self.ports.write(ATTRIBUTE, index | 0x20, 1)
            self.ports.write(ATTRIBUTE, value, 1)
        else:
            self.ports.write(index_port, index | value << 8, 2)

    def get(self, index_port: int, index: int) -> int:
        if index_port == ATTRIBUTE:
            self.ports.read(STATUS_1, 1)
            self.ports.write(ATTRIBUTE, index | 0x20, 1)
        else:
            self.ports.write(index_port, index, 1)
        return self.ports.read(index_port + 1, 1)

    def set_all(self, index_port: int, values: str) -> None:
        for index, value in enumerate(bytes.fromhex(values)):
            self.set(index_port, index, value)

    def vbe(self, index: int) -> int:
        self.ports.write(VBE_INDEX, index, 2)
        return self.ports.read(VBE_DATA, 2)

    def set_vbe(self, index: int, value: int) -> None:
        self.ports.write(VBE_INDEX, index, 2)
        self.ports.write(VBE_DATA, value, 2)

    def linear(self, width: int, height: int, bpp: int, enable: int = ENABLED | LFB) -> None:
        """A linear mode with the picture on."""
        self.set_vbe(ENABLE, 0)
        for index, value in ((XRES, width), (YRES, height), (BPP, bpp), (ENABLE, enable)):
            self.set_vbe(index, value)
        self.picture_on()

    def picture_on(self) -> None:
        self.ports.read(STATUS_1, 1)
        self.ports.write(ATTRIBUTE, 0x20, 1)

    def set_colours(self, first: int, colours: list[tuple[int, int, int]]) -> None:
        self.ports.write(0x3C8, first, 1)
        for channel in np.array(colours).ravel().tolist():
            self.ports.write(0x3C9, channel, 1)

    def grey_palette(self) -> None:
        """DAC entry n is n / 4 of grey."""
        self.set_colours(0, [(n >> 2, n >> 2, n >> 2) for n in range(256)])

    def type(self, column: int, row: int, text: str, attribute: int = 0x07) -> None:
        """Characters into the text buffer at B8000h."""
        for i, code in enumerate(text.encode("cp437")):
            self.memory.write(0xB8000 + 2 * (row * 80 + column + i), attribute << 8 | code, 2)

    # Modes, as IBM's BIOS sets them ("BIOS modes" in the VGA Technical Reference); the font and colours are left alone.

    def mode_12h(self) -> None:
        """640 by 480 in 16 colours, four planes."""
        self.ports.write(0x3C2, 0xE3, 1)
        self.set_all(SEQUENCER, "03010f0006")
        self.set(CRTC, 0x11, 0)
        self.set_all(CRTC, "5f4f50825480 0b3e 0040000000000000 ea8cdf2800e704e3 ff")
        self.set_all(GRAPHICS, "0000000000 00050fff")
        self.set_all(ATTRIBUTE, "000102030405140738393a3b3c3d3e3f 01000f0000")

    def mode_13h(self) -> None:
        """320 by 200 in 256 colours, chained."""
        self.ports.write(0x3C2, 0x63, 1)
        self.set_all(SEQUENCER, "03010f000e")
        self.set(CRTC, 0x11, 0)
        self.set_all(CRTC, "5f4f50825480bf1f 0041000000000000 9c8e8f284096b9a3 ff")
        self.set_all(GRAPHICS, "0000000000 40050fff")
        self.set_all(ATTRIBUTE, "000102030405060708090a0b0c0d0e0f 41000f0000")

    def mode_4(self) -> None:
        """320 by 200 in 4 colours, as on a CGA."""
        self.ports.write(0x3C2, 0x63, 1)
        self.set_all(SEQUENCER, "0309030002")
        self.set(CRTC, 0x11, 0)
        self.set_all(CRTC, "2d2728902b80bf1f 00c1000000000000 9c8e8f140096b9a2 ff")
        self.set_all(GRAPHICS, "0000000000 300f0fff")
        self.set_all(ATTRIBUTE, "00130000000000000000000000000000 0100030000")

    def mode_6(self) -> None:
        """640 by 200 in 2 colours, as on a CGA."""
        self.ports.write(0x3C2, 0x63, 1)
        self.set_all(SEQUENCER, "0301010006")
        self.set(CRTC, 0x11, 0)
        self.set_all(CRTC, "5f4f50825480bf1f 00c1000000000000 9c8e8f280096b9c2 ff")
        self.set_all(GRAPHICS, "0000000000 000d0fff")
        self.set_all(ATTRIBUTE, "00170000000000000000000000000000 0100010000")
