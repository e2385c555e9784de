"""QEMU's firmware configuration device: named blobs that SeaBIOS, OVMF and Linux read at ports 510h-51Bh.

Source: QEMU's documentation, docs/specs/fw_cfg. All items are read-only here. A DMA transfer that cannot be carried
out whole ends with the error bit in its descriptor; one whose descriptor is not in RAM does nothing.
"""

import struct
from collections.abc import Callable

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Number, load_fields, save_fields
from emuvisor.errors import GuestAddressError, UsageError
from emuvisor.memory import PhysicalMemory

__all__ = ["PORT_COUNT", "FwCfg", "Item"]

# Offsets on the bus.
SELECTOR = 0
DATA = 1
DMA_ADDRESS = 4
DMA_ADDRESS_SIZE = 8
PORT_COUNT = DMA_ADDRESS + DMA_ADDRESS_SIZE


class Item:
    """Selector keys of items that are not files."""

    SIGNATURE = 0x00
    ID = 0x01
    UUID = 0x02
    RAM_SIZE = 0x03
    NOGRAPHIC = 0x04
    NB_CPUS = 0x05
    BOOT_MENU = 0x0E
    MAX_CPUS = 0x0F
    FILE_DIR = 0x19
    FIRST_FILE = 0x20
    """Files have the keys from here on, in the order of their names."""


SIGNATURE = b"QEMU"
ID_TRADITIONAL = 1 << 0
ID_DMA = 1 << 1

NO_ITEM = 0xFFFF
MAX_KEY = 0xFFFF
ARCHITECTURE_LOCAL = 0x8000
MAX_FILES = 0x1000
MAX_NAME = 55
DIRECTORY_ENTRY = struct.Struct(">IHH56s")
"""Size, key, reserved, name."""

# The DMA descriptor: control, length, address.
DESCRIPTOR = struct.Struct(">IIQ")
CONTROL = struct.Struct(">I")
DMA_SIGNATURE = b"QEMU CFG"
DMA_ERROR = 1 << 0
DMA_READ = 1 << 1
DMA_SKIP = 1 << 2
DMA_SELECT = 1 << 3
DMA_WRITE = 1 << 4
DMA_KEY_SHIFT = 16
MAX_PADDING = 0x10000
"""Bytes of zeros behind an item's end that one transfer may ask for: no guest needs more, and it bounds the work."""

_DEVICE = "fw_cfg"
_VERSION = 1
_FIELDS = Fields(
    {
        "selected": Number(MAX_KEY),
        "position": Number(2**32 - 1),
        "dma_address": Data(DMA_ADDRESS_SIZE, minimum=DMA_ADDRESS_SIZE),
    }
)


class FwCfg:
    """Twelve ports: selector (2), data (1), and the address of a DMA descriptor (8, big-endian).

    Items are the board's, which adds them again when it restores the chip; only what is selected is saved.
    `OutOfFrames` of `memory` passes through; nothing has changed by then, so the transfer can be started again.
    """

    name = _DEVICE

    def __init__(self, *, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._files: dict[str, bytes] = {}
        self._items: dict[int, bytes] = {
            Item.SIGNATURE: SIGNATURE,
            Item.ID: struct.pack("<I", ID_TRADITIONAL | ID_DMA),
        }
        self._refresh: dict[str, Callable[[], bytes]] = {}
        self._names: dict[int, str] | None = None
        """The files by their selectors; None until somebody asks, so that adding many is cheap."""
        self.selected = Item.SIGNATURE
        self.position = 0
        """The next byte of the selected item."""
        self.dma_address = bytearray(DMA_ADDRESS_SIZE)

    def set_item(self, key: int, data: bytes) -> None:
        """Give the item with selector `key` its content.

        Raises UsageError for a key that is no item's: a file's, the directory's, or not 16 bits wide.
        """
        is_file = Item.FIRST_FILE <= key < Item.FIRST_FILE + MAX_FILES
        if not 0 <= key < NO_ITEM or is_file or key == Item.FILE_DIR:
            raise UsageError(
                f"{_DEVICE}: {key:#x} is not the key of an item (0..{Item.FIRST_FILE - 1:#x} "
                f"without {Item.FILE_DIR:#x}, {ARCHITECTURE_LOCAL:#x}..{NO_ITEM - 1:#x})"
            )
        self._items[key] = bytes(data)

    def add_file(self, name: str, data: bytes, refresh: Callable[[], bytes] | None = None) -> None:
        """Offer `data` as file `name`; a file of that name is replaced.

        `refresh` makes the content anew, of the same size, each time a guest selects the file. Raises UsageError for
        a name that is empty, not ASCII, or longer than 55 characters, and beyond 4,096 files.
        """
        if not name or not name.isascii() or len(name) > MAX_NAME:
            raise UsageError(f"{_DEVICE}: file name {name!r} is not 1 to {MAX_NAME} ASCII characters")
        if name not in self._files and len(self._files) == MAX_FILES:
            raise UsageError(f"{_DEVICE}: no room for file {name!r}: there are {MAX_FILES} already")
        self._files[name] = bytes(data)
        self._refresh.pop(name, None)
        if refresh is not None:
            self._refresh[name] = refresh
        self._names = None

    def _name_of(self, key: int) -> str | None:
        """The file with selector `key`."""
        if self._names is None:
            self._names = self._index_files()
        return self._names.get(key)

    def _index_files(self) -> dict[int, str]:
        """Number the files by their names and write the directory."""
        names = sorted(self._files)
        numbered = dict(enumerate(names, Item.FIRST_FILE))
        directory = struct.pack(">I", len(names))
        for key, name in numbered.items():
            directory += DIRECTORY_ENTRY.pack(len(self._files[name]), key, 0, name.encode())
        self._items[Item.FILE_DIR] = directory
        return numbered

    def item(self, key: int) -> bytes:
        """The content of the item or file with selector `key`; empty where there is none."""
        name = self._name_of(key)
        return self._items.get(key, b"") if name is None else self._files[name]

    def read(self, offset: int, size: int) -> int:
        """The next byte of the selected item, or of the DMA interface's signature."""
        if offset == DATA and size == 1:
            value = self._peek(1)[0]
            self._skip(1)
            return value
        if offset >= DMA_ADDRESS:
            start = offset - DMA_ADDRESS
            return int.from_bytes(DMA_SIGNATURE[start : start + size], "little")
        return 0

    def write(self, offset: int, value: int, size: int) -> None:
        """Select an item, or start a DMA transfer with the last byte of its descriptor's address."""
        if offset == SELECTOR and size == 2:
            self._select(value)
        elif offset >= DMA_ADDRESS:
            start = offset - DMA_ADDRESS
            end = min(start + size, DMA_ADDRESS_SIZE)
            self.dma_address[start:end] = value.to_bytes(size, "little")[: end - start]
            if end == DMA_ADDRESS_SIZE:
                self._transfer(int.from_bytes(self.dma_address, "big"))
                self.dma_address[:] = bytes(DMA_ADDRESS_SIZE)

    def reset(self) -> None:
        """The signature is selected; items stay."""
        self._select(Item.SIGNATURE)
        self.dma_address[:] = bytes(DMA_ADDRESS_SIZE)

    def save(self) -> SavedState:
        """What is selected, as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)

    def _select(self, key: int) -> None:
        self.selected = key
        self.position = 0
        name = self._name_of(key)
        if name in self._refresh:
            self._files[name] = self._refresh[name]()

    def _left(self) -> int:
        """How many bytes of the selected item are still to come."""
        return max(0, len(self.item(self.selected)) - self.position)

    def _peek(self, count: int) -> bytes:
        """The next `count` bytes of the selected item; zeros behind its end."""
        return self.item(self.selected)[self.position : self.position + count].ljust(count, b"\0")

    def _skip(self, count: int) -> None:
        self.position += min(count, self._left())

    def _transfer(self, descriptor: int) -> None:
        """Carry out the DMA transfer described at guest physical address `descriptor`."""
        try:
            control, length, address = DESCRIPTOR.unpack(self._memory.read(descriptor, DESCRIPTOR.size))
            done = self._carry_out(control, length, address)
            self._memory.write(descriptor, CONTROL.pack(0 if done else DMA_ERROR))
        except GuestAddressError:
            pass  # nowhere to report to

    def _carry_out(self, control: int, length: int, address: int) -> bool:
        """Select, then read, write or skip; False for what cannot be done."""
        if control & DMA_SELECT:
            self._select(control >> DMA_KEY_SHIFT)
        if control & DMA_READ:
            if length > self._left() + MAX_PADDING:
                return False
            try:
                self._memory.write(address, self._peek(length))
            except GuestAddressError:
                return False
            self._skip(length)
        elif control & DMA_WRITE:
            return length == 0
        elif control & DMA_SKIP:
            self._skip(length)
        return True
