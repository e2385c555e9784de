"""The display adapter: an IBM VGA with the Bochs VBE extension.

Source: IBM VGA Technical Reference, FreeVGA's hardware documentation, Intel's open-source PRM on the VGA. The parts
have files of their own; here is what holds them together: the ports at 3B0h to 3DFh, the miscellaneous output and
status registers, and the choice of how the screen is drawn.
"""

from collections.abc import Callable

import numpy as np

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Number, load_fields, save_fields, saved_part
from emuvisor.devices.display.attribute import AttributeController
from emuvisor.devices.display.bochs_vbe import PLANAR_BPP, BochsVbe
from emuvisor.devices.display.crtc import Crtc
from emuvisor.devices.display.dac import Dac
from emuvisor.devices.display.graphics import graphics_pixels
from emuvisor.devices.display.graphics_controller import GraphicsController
from emuvisor.devices.display.memory import DisplayMemory, VideoRam
from emuvisor.devices.display.pixels import look_up
from emuvisor.devices.display.registers import RegisterFile
from emuvisor.devices.display.screen import Screen
from emuvisor.devices.display.sequencer import Sequencer
from emuvisor.devices.display.text import Text
from emuvisor.devices.display.text_mode import MISCELLANEOUS_OUTPUT, fill_memory, palette
from emuvisor.units import NS_PER_S

__all__ = ["PORTS_LENGTH", "Vga"]

PORTS_LENGTH = 0x30

# Ports, by their distance from 3B0h. The CRT controller, input status 1 and the feature control register are at 3Bxh
# on a monochrome display and at 3Dxh on a colour one.
COLOUR_PORTS = 0x20
CRTC_INDEX = 0x04
CRTC_DATA = 0x05
INPUT_STATUS_1 = 0x0A
FEATURE_CONTROL_WRITE = 0x0A
ATTRIBUTE_INDEX = 0x10
ATTRIBUTE_READ = 0x11
INPUT_STATUS_0 = 0x12
MISCELLANEOUS_WRITE = 0x12
VIDEO_ENABLE = 0x13
SEQUENCER_INDEX = 0x14
SEQUENCER_DATA = 0x15
DAC_MASK = 0x16
DAC_STATE = 0x17
DAC_READ_INDEX = 0x17
DAC_WRITE_INDEX = 0x18
DAC_DATA = 0x19
FEATURE_CONTROL_READ = 0x1A
MISCELLANEOUS_READ = 0x1C
GRAPHICS_INDEX = 0x1E
GRAPHICS_DATA = 0x1F
OPEN_BUS = 0xFF

# Miscellaneous output.
IO_ADDRESS_SELECT = 0x01
RAM_ENABLE = 0x02
CLOCK_SELECT_SHIFT = 2
CLOCK_SELECT_MASK = 0x03
DOT_CLOCKS_HZ = (25_175_000, 28_322_000, 25_175_000, 25_175_000)
"""By clock select; the last two are external clocks that nobody has connected."""

SWITCH_SENSE = 0x10
"""Input status 0: a colour monitor is connected."""

# Input status 1.
DISPLAY_DISABLED = 0x01
VERTICAL_RETRACE = 0x08

FEATURE_CONTROL_WRITABLE = 0x0B
VIDEO_ENABLE_WRITABLE = 0x01

PALETTE_BPP = 8
"""Modes of more bits per pixel do without the DAC's table."""

_DEVICE = "vga"
_VERSION = 1
_FIELDS = Fields(
    {
        "miscellaneous": Number(0xFF),
        "feature_control": Number(0xFF),
        "video_enable": Number(0xFF),
    }
)
_PARTS = ("sequencer", "crtc", "graphics", "attribute", "dac", "window", "vbe")


class Vga:
    """A VGA. It is itself the device of the ports from 3B0h on, `PORTS_LENGTH` of them, 8 bits wide.

    `window` is the device of the 128 KiB at A0000h, of any width; `vbe` that of the ports 1CEh to 1D1h, 16 bits wide.
    `vram` is the memory of Bochs VBE's modes: its owner saves and resets it.
    """

    name = _DEVICE

    def __init__(self, *, clock: Clock, vram: VideoRam) -> None:
        self._clock = clock
        self.vram = vram
        self.sequencer = Sequencer()
        self.crtc = Crtc()
        self.graphics = GraphicsController()
        self.attribute = AttributeController()
        self.dac = Dac()
        self.window = DisplayMemory(sequencer=self.sequencer, graphics=self.graphics, vram=vram)
        self.vbe = BochsVbe(vram=vram, planes=lambda: self.window.planes, on_change=self._configure)
        self.miscellaneous = MISCELLANEOUS_OUTPUT
        self.feature_control = 0
        self.video_enable = VIDEO_ENABLE_WRITABLE
        """Port 3C3h. It reads back; the chip answers always."""
        self._readers = self._make_readers()
        self._writers = self._make_writers()
        self._configure()

    def _configure(self) -> None:
        """Registers have changed that decide what the window shows."""
        self.window.configure(bool(self.miscellaneous & RAM_ENABLE), self.vbe.bank)
        self.dac.eight_bit = self.vbe.dac_8bit

    def reset(self) -> None:
        """Registers and planes as after power-on: the timing of text mode 3, the picture off."""
        for part in _PARTS:
            getattr(self, part).reset()
        self.miscellaneous = MISCELLANEOUS_OUTPUT
        self.feature_control = 0
        self.video_enable = VIDEO_ENABLE_WRITABLE
        self._configure()

    def set_text_mode(self) -> None:
        """Text mode 3 with our font, as a video BIOS leaves it: for guests that are started without one."""
        self.reset()
        self.dac.colours[: len(palette())] = palette()
        fill_memory(self.window)
        self.attribute.palette_enabled = True

    # ---- ports ----

    def _index_of(self, registers: RegisterFile) -> Callable[[int], None]:
        def set_index(value: int) -> None:
            registers.index = value

        return set_index

    def _data_of(self, registers: RegisterFile) -> Callable[[int], None]:
        def set_data(value: int) -> None:
            registers.write(value)
            self._configure()

        return set_data

    def _make_readers(self) -> dict[int | None, Callable[[], int]]:
        return {
            CRTC_INDEX: lambda: self.crtc.index,
            CRTC_DATA: self.crtc.read,
            INPUT_STATUS_1: self._read_status_1,
            ATTRIBUTE_INDEX: self.attribute.read_index,
            ATTRIBUTE_READ: self.attribute.read,
            INPUT_STATUS_0: lambda: SWITCH_SENSE,
            VIDEO_ENABLE: lambda: self.video_enable,
            SEQUENCER_INDEX: lambda: self.sequencer.index,
            SEQUENCER_DATA: self.sequencer.read,
            DAC_MASK: lambda: self.dac.mask,
            DAC_STATE: self.dac.state,
            DAC_WRITE_INDEX: lambda: self.dac.index,
            DAC_DATA: self.dac.read,
            FEATURE_CONTROL_READ: lambda: self.feature_control,
            MISCELLANEOUS_READ: lambda: self.miscellaneous,
            GRAPHICS_INDEX: lambda: self.graphics.index,
            GRAPHICS_DATA: self.graphics.read,
        }

    def _make_writers(self) -> dict[int | None, Callable[[int], None]]:
        return {
            CRTC_INDEX: self._index_of(self.crtc),
            CRTC_DATA: self.crtc.write,
            FEATURE_CONTROL_WRITE: self._write_feature_control,
            ATTRIBUTE_INDEX: self.attribute.write_port,
            MISCELLANEOUS_WRITE: self._write_miscellaneous,
            VIDEO_ENABLE: self._write_video_enable,
            SEQUENCER_INDEX: self._index_of(self.sequencer),
            SEQUENCER_DATA: self._data_of(self.sequencer),
            DAC_MASK: self._write_dac_mask,
            DAC_READ_INDEX: lambda value: self.dac.start(value, reading=True),
            DAC_WRITE_INDEX: lambda value: self.dac.start(value, reading=False),
            DAC_DATA: self.dac.write,
            GRAPHICS_INDEX: self._index_of(self.graphics),
            GRAPHICS_DATA: self._data_of(self.graphics),
        }

    def _register(self, offset: int) -> int | None:
        """Which register is at `offset`; None for one of the other kind of display."""
        if ATTRIBUTE_INDEX <= offset < COLOUR_PORTS:
            return offset
        colour = bool(self.miscellaneous & IO_ADDRESS_SELECT)
        return offset % COLOUR_PORTS if colour == (offset >= COLOUR_PORTS) else None

    def read(self, offset: int, size: int) -> int:
        """The register at port 3B0h + `offset`; ones where there is none."""
        read = self._readers.get(self._register(offset))
        return OPEN_BUS if read is None else read()

    def write(self, offset: int, value: int, size: int) -> None:
        """Set the register at port 3B0h + `offset`."""
        write = self._writers.get(self._register(offset))
        if write is not None:
            write(value & 0xFF)

    def _write_miscellaneous(self, value: int) -> None:
        self.miscellaneous = value
        self._configure()

    def _write_feature_control(self, value: int) -> None:
        self.feature_control = value & FEATURE_CONTROL_WRITABLE

    def _write_video_enable(self, value: int) -> None:
        self.video_enable = value & VIDEO_ENABLE_WRITABLE

    def _write_dac_mask(self, value: int) -> None:
        self.dac.mask = value

    # ---- time ----

    def _beam(self) -> tuple[int, int, int]:
        """Where the picture is being drawn now: (frame number, line, character clock of the line)."""
        clock_hz = DOT_CLOCKS_HZ[self.miscellaneous >> CLOCK_SELECT_SHIFT & CLOCK_SELECT_MASK]
        dots = self.sequencer.dots * (2 if self.sequencer.half_dot_clock else 1)
        characters = self._clock.now_ns() * clock_hz // (NS_PER_S * dots)
        lines, column = divmod(characters, self.crtc.total_columns)
        frame, line = divmod(lines, self.crtc.total_lines)
        return frame, line, column

    def _read_status_1(self) -> int:
        """Where the beam is; the attribute controller's next write is its index again."""
        self.attribute.data_next = False
        _, line, column = self._beam()
        status = 0 if self.crtc.shows(line, column) else DISPLAY_DISABLED
        return status | VERTICAL_RETRACE if self.crtc.in_retrace(line) else status

    # ---- the picture ----

    def screen(self) -> Screen:
        """What the display shows now."""
        shown = self.attribute.palette_enabled and not self.sequencer.screen_off
        text = None
        cursor = None
        if self.vbe.enabled and self.vbe.bpp > PALETTE_BPP:
            colours = self.vbe.colours()
        else:
            table = self.dac.table()
            four_bit = table[self.attribute.dac_indexes()]
            if self.vbe.enabled:
                colours = look_up(four_bit if self.vbe.bpp == PLANAR_BPP else table, self.vbe.indexes())
            elif self.graphics.graphics:
                pixels = graphics_pixels(
                    self.window.planes, crtc=self.crtc, graphics=self.graphics, attribute=self.attribute
                )
                colours = look_up(table if self.graphics.shift_256 else four_bit, pixels)
            else:
                shown_text = Text(
                    self.window.planes,
                    crtc=self.crtc,
                    sequencer=self.sequencer,
                    attribute=self.attribute,
                    frame=self._beam()[0],
                )
                text, cursor = shown_text.lines(), shown_text.cursor()
                colours = look_up(four_bit, shown_text.pixels())
        if not shown:
            colours = np.zeros_like(colours)
            text, cursor = None if text is None else [""] * len(text), None
        height, width, _ = colours.shape
        return Screen(width, height, colours, text, cursor)

    # ---- saved state ----

    def save(self) -> SavedState:
        """Registers and planes as plain data."""
        parts = {part: getattr(self, part).save() for part in _PARTS}
        return save_fields(self, _DEVICE, _VERSION, _FIELDS) | parts

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave; `vram` is its owner's to load. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        for part in _PARTS:
            getattr(self, part).load(saved_part(state, _DEVICE, part))
        self._configure()
