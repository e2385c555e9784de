"""The VGA's own memory, 256 KiB in four planes, and the processor's window on it at A0000h to BFFFFh.

Every access of a guest is a Python call here, so what an access does is decided when a register changes, not at
the access: `configure` chooses one function for reads and one for writes. Text, chained and banked memory have
short ones; everything else goes through the planar data path, a byte at a time.

The four planes' bytes at one address lie side by side: as a 32-bit number they are what the latches hold.
"""

from collections.abc import Callable
from mmap import mmap
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Number, load_fields, save_fields
from emuvisor.devices.display.graphics_controller import GraphicsController
from emuvisor.devices.display.sequencer import Sequencer
from emuvisor.units import KIB, PAGE_SIZE

__all__ = ["WINDOW_LENGTH", "DisplayMemory", "VideoRam"]

WINDOW_LENGTH = 128 * KIB
PLANES = 4
PLANE_SIZE = 64 * KIB
SIZE = PLANES * PLANE_SIZE
BANK_SIZE = 64 * KIB

ADDRESS_MASK = PLANE_SIZE - 1
EVEN_MASK = ADDRESS_MASK & ~1
CHAIN_4_MASK = ADDRESS_MASK & ~3

EVERY_PLANE = 0x01010101
"""Times a byte: that byte in every plane."""
ALL = 0xFFFFFFFF
PLANE_BYTES = tuple(
    sum(0xFF << 8 * plane for plane in range(PLANES) if bits >> plane & 1) for bits in range(16)
)
"""By a bit for each plane: ones in the planes' bytes."""
TEXT_PLANES = 0b0011
EVEN_PLANES = 0b0101

_DEVICE = "vga memory"
_VERSION = 2
"""In version 1 the content has all its zeros."""
_FIELDS = Fields({"content": Data(SIZE), "latches": Number(ALL)})


class VideoRam(Protocol):
    """The memory behind Bochs VBE's modes: a region of `emuvisor.memory`."""

    @property
    def length(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, inside the region."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`, inside the region."""
        ...


class DisplayMemory:
    """The planes and the window, a device of `WINDOW_LENGTH` bytes that takes accesses of any width.

    An access that is not inside the part of the window that the registers choose reads ones and writes nothing.
    """

    name = "vga window"

    def __init__(self, *, sequencer: Sequencer, graphics: GraphicsController, vram: VideoRam) -> None:
        self._sequencer = sequencer
        self._graphics = graphics
        self._vram = vram
        self._bytes = mmap(-1, SIZE)  # the host backs what a guest uses, which for a text screen is little
        view = memoryview(self._bytes)
        self._pairs = view.cast("H")
        self._words = view.cast("I")
        self._planes: NDArray[np.uint8] = np.frombuffer(self._bytes, np.uint8).reshape(PLANE_SIZE, PLANES)
        self._content: bytes | None = b""
        """What the planes hold, if that is known since they were last written."""
        self._behind = False
        """That was loaded, and the planes get it when somebody uses them."""
        self.latches = 0
        """The four bytes of the last read, plane 0 lowest."""
        self._start = 0
        self._end = 0
        self._bank = 0
        self._map_mask = 0
        self._set_reset = 0
        self._set_reset_planes = 0
        self._bit_mask = 0
        self._rotate = 0
        self._function = 0
        self._read: Callable[[int, int], int] = self._read_nothing
        self._write: Callable[[int, int, int], None] = self._write_nothing
        self._data_path: Callable[[int], int] = self._write_mode_0

    # ---- the device ----

    def read(self, offset: int, size: int) -> int:
        """What the registers make of the bytes at `offset` from A0000h."""
        if self._behind:
            self._catch_up()
        return self._read(offset, size)

    def write(self, offset: int, value: int, size: int) -> None:
        """Let the registers make of `value` what they do."""
        if self._behind:
            self._catch_up()
        self._content = None
        self._write(offset, value, size)

    @property
    def planes(self) -> NDArray[np.uint8]:
        """(address, plane), to be looked at and written before the guest goes on."""
        if self._behind:
            self._catch_up()
        self._content = None
        return self._planes

    def reset(self) -> None:
        """All zeros."""
        self.planes[:] = 0
        self.latches = 0

    def configure(self, enabled: bool, bank: int | None) -> None:
        """Registers have changed. `enabled` opens the window; with `bank` it shows that bank of the video RAM."""
        sequencer, graphics = self._sequencer, self._graphics
        start, length = graphics.window
        self._start, self._end = start, start + length
        if not enabled:
            self._read, self._write = self._read_nothing, self._write_nothing
        elif bank is not None:
            self._end = start + min(length, BANK_SIZE)
            self._bank = bank * BANK_SIZE
            self._read, self._write = self._read_bank, self._write_bank
        else:
            self._map_mask = PLANE_BYTES[sequencer.map_mask]
            self._choose_write()
            if graphics.read_mode_1:
                self._read = self._read_compare
            elif sequencer.chain_4:
                self._read = self._read_chain_4
            elif graphics.odd_even:
                self._read = self._read_odd_even
            else:
                self._read = self._read_planar

    def _choose_write(self) -> None:
        sequencer, graphics = self._sequencer, self._graphics
        if graphics.plain_write and sequencer.chain_4 and self._map_mask == ALL:
            self._write = self._write_chain_4
        elif (
            graphics.plain_write
            and sequencer.odd_even
            and not sequencer.chain_4
            and sequencer.map_mask == TEXT_PLANES
        ):
            self._write = self._write_text
        else:
            self._write = self._write_planar
            modes = (self._write_mode_0, self._write_mode_1, self._write_mode_2, self._write_mode_3)
            self._data_path = modes[graphics.write_mode]
            self._set_reset = PLANE_BYTES[graphics.set_reset]
            self._set_reset_planes = PLANE_BYTES[graphics.enable_set_reset]
            self._bit_mask = graphics.bit_mask * EVERY_PLANE
            self._rotate = graphics.rotate
            self._function = graphics.function

    # ---- nothing, and banks of video RAM ----

    def _read_nothing(self, offset: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def _write_nothing(self, offset: int, value: int, size: int) -> None:
        pass

    def _in_bank(self, offset: int, size: int) -> int | None:
        """The place in video RAM of `offset`; None for none."""
        place = self._bank + offset - self._start
        if self._start <= offset and offset + size <= self._end and place + size <= self._vram.length:
            return place
        return None

    def _read_bank(self, offset: int, size: int) -> int:
        place = self._in_bank(offset, size)
        if place is None:
            return self._read_nothing(offset, size)
        return int.from_bytes(self._vram.read(place, size), "little")

    def _write_bank(self, offset: int, value: int, size: int) -> None:
        place = self._in_bank(offset, size)
        if place is not None:
            self._vram.write(place, value.to_bytes(size, "little"))

    # ---- the short ways ----

    def _read_odd_even(self, offset: int, size: int) -> int:
        """The address's low bit chooses the plane of a pair, the read map select register the pair."""
        if not (self._start <= offset and offset + size <= self._end):
            return self._read_nothing(offset, size)
        address = offset - self._start
        pair = self._graphics.read_map >> 1
        if size == 1 or address & 1:
            value = 0
            for i in range(size):
                place = address + i
                self.latches = self._words[place & EVEN_MASK]
                value |= self._bytes[(place & EVEN_MASK) * 4 + pair * 2 + (place & 1)] << 8 * i
            return value
        value = 0
        for i in range(0, size, 2):
            place = (address + i) & EVEN_MASK
            value |= self._pairs[place * 2 + pair] << 8 * i
        self.latches = self._words[place]
        return value

    def _write_text(self, offset: int, value: int, size: int) -> None:
        """Characters to plane 0, attributes to plane 1."""
        if not (self._start <= offset and offset + size <= self._end):
            return
        address = offset - self._start
        if size == 1 or address & 1:
            for i in range(size):
                place = address + i
                self._bytes[(place & EVEN_MASK) * 4 + (place & 1)] = value >> 8 * i & 0xFF
        else:
            for i in range(0, size, 2):
                self._pairs[(address + i & EVEN_MASK) * 2] = value >> 8 * i & 0xFFFF

    def _read_chain_4(self, offset: int, size: int) -> int:
        """The address's two low bits choose the plane."""
        if not (self._start <= offset and offset + size <= self._end):
            return self._read_nothing(offset, size)
        address = offset - self._start
        value = 0
        if size < PLANES or address & 3:
            for i in range(size):
                place = address + i
                self.latches = self._words[place & CHAIN_4_MASK]
                value |= (self.latches >> 8 * (place & 3) & 0xFF) << 8 * i
            return value
        for i in range(0, size, PLANES):
            self.latches = self._words[address + i & CHAIN_4_MASK]
            value |= self.latches << 8 * i
        return value

    def _write_chain_4(self, offset: int, value: int, size: int) -> None:
        if not (self._start <= offset and offset + size <= self._end):
            return
        address = offset - self._start
        if size < PLANES or address & 3:
            for i in range(size):
                place = address + i
                self._bytes[(place & CHAIN_4_MASK) * 4 + (place & 3)] = value >> 8 * i & 0xFF
        else:
            for i in range(0, size, PLANES):
                self._words[address + i & CHAIN_4_MASK] = value >> 8 * i & ALL

    # ---- the planar data path ----

    def _read_planar(self, offset: int, size: int) -> int:
        """Read mode 0: the plane that the read map select register names."""
        if not (self._start <= offset and offset + size <= self._end):
            return self._read_nothing(offset, size)
        address = offset - self._start
        shift = 8 * self._graphics.read_map
        value = 0
        for i in range(size):
            self.latches = self._words[address + i & ADDRESS_MASK]
            value |= (self.latches >> shift & 0xFF) << 8 * i
        return value

    def _read_compare(self, offset: int, size: int) -> int:
        """Read mode 1: ones where a pixel's colour is the colour compare register's, in the planes that count."""
        if not (self._start <= offset and offset + size <= self._end):
            return self._read_nothing(offset, size)
        compare = PLANE_BYTES[self._graphics.colour_compare]
        care = PLANE_BYTES[self._graphics.colour_care]
        mask = self._address_mask()
        value = 0
        for i in range(size):
            self.latches = self._words[offset - self._start + i & mask]
            differs = (self.latches ^ compare) & care
            differs |= differs >> 16
            differs |= differs >> 8
            value |= (~differs & 0xFF) << 8 * i
        return value

    def _address_mask(self) -> int:
        """Which bits of the address reach the planes; the others choose among them."""
        if self._sequencer.chain_4:
            return CHAIN_4_MASK
        return EVEN_MASK if self._sequencer.odd_even else ADDRESS_MASK

    def _write_planar(self, offset: int, value: int, size: int) -> None:
        if not (self._start <= offset and offset + size <= self._end):
            return
        address_mask = self._address_mask()
        for i in range(size):
            address = offset - self._start + i
            planes = self._map_mask
            if address_mask == CHAIN_4_MASK:
                planes &= 0xFF << 8 * (address & 3)
            elif address_mask == EVEN_MASK:
                planes &= PLANE_BYTES[EVEN_PLANES << (address & 1)]
            place = address & address_mask
            data = self._data_path(value >> 8 * i & 0xFF)
            self._words[place] = self._words[place] & ~planes | data & planes

    def _write_mode_0(self, byte: int) -> int:
        """The rotated byte, or the set/reset register in its planes; then function and bit mask."""
        data = self._rotated(byte) * EVERY_PLANE
        planes = self._set_reset_planes
        return self._masked(data & ~planes | self._set_reset & planes, self._bit_mask)

    def _write_mode_1(self, byte: int) -> int:
        """The latches."""
        return self.latches

    def _write_mode_2(self, byte: int) -> int:
        """Each of the four low bits fills its plane; then function and bit mask."""
        return self._masked(PLANE_BYTES[byte & 0x0F], self._bit_mask)

    def _write_mode_3(self, byte: int) -> int:
        """The set/reset register fills the planes; the rotated byte is ANDed to the bit mask."""
        return self._masked(self._set_reset, self._rotated(byte) * EVERY_PLANE & self._bit_mask)

    def _rotated(self, byte: int) -> int:
        return (byte >> self._rotate | byte << 8 - self._rotate) & 0xFF

    def _masked(self, data: int, bit_mask: int) -> int:
        if self._function == 1:
            data &= self.latches
        elif self._function == 2:
            data |= self.latches
        elif self._function == 3:
            data ^= self.latches
        return data & bit_mask | self.latches & ~bit_mask

    # ---- saved state ----

    def _catch_up(self) -> None:
        """Put what was loaded into the planes."""
        content = self.content
        for start in range(0, SIZE, PAGE_SIZE):  # pages that stay blank cost the host nothing
            part = slice(start, start + PAGE_SIZE)
            new = content[part].ljust(PAGE_SIZE, b"\0")
            if new != self._bytes[part]:
                self._bytes[part] = new
        self._behind = False

    @property
    def content(self) -> bytes:
        """All planes, interleaved, without zeros at the end, which in text modes are most. As long as nobody writes
        them, it is the same object."""
        if self._content is None:
            used = np.flatnonzero(np.frombuffer(self._bytes, np.uint64))
            self._content = self._bytes[: 8 * (int(used[-1]) + 1)] if len(used) else b""
        return self._content

    @content.setter
    def content(self, content: bytes) -> None:
        self._content = content
        self._behind = True  # most guests go on without a look at their screen

    def save(self) -> SavedState:
        """Planes and latches as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
