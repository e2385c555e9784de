"""The memory device, by which RAM comes and goes while the guest runs: virtio 1.2, section 5.15.

The host says how much it wants plugged in all; the driver, when it can, plugs and unplugs single blocks with requests.
What it may plug is bounded by what was asked for, so that whatever it says, it can only have what it was offered.
"""

from struct import Struct

import numpy as np

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Number, load_fields, save_fields
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.features import DeviceType, mask_of
from emuvisor.errors import SnapshotError, UsageError
from emuvisor.memory import PluggableRam
from emuvisor.units import format_size

__all__ = ["Mem"]

# Feature bits (5.15.3). Not offered: ACPI_PXM (0), for there is one NUMA node.
F_UNPLUGGED_INACCESSIBLE = 1

# Queues (5.15.2).
REQUESTS = 0
QUEUE_SIZE = 128

_CONFIG = Struct("<QH6xQQQQQ")
"""block_size, node_id, addr, region_size, usable_region_size, plugged_size, requested_size (5.15.4)."""
NODE_ID = 0

# Requests and their answers (5.15.6).
_REQUEST = Struct("<H6xQH6x")
"""type; addr and nb_blocks where the type has them."""
PLUG = 0
UNPLUG = 1
UNPLUG_ALL = 2
STATE = 3

_RESPONSE = Struct("<H6xH")
"""type, state."""
ACK = 0
NACK = 1
ERROR = 3

PLUGGED = 0
UNPLUGGED = 1
MIXED = 2

BLOCKS_PER_TURN = 4096
"""Blocks that are plugged and unplugged before the guest's slice can end; exceeded by one request."""

MAX_BITMAP = 1 << 20
"""Bytes of saved state that say which blocks are plugged."""
_DEVICE = "virtio-mem"
_VERSION = 1
_FIELDS = Fields({"requested": Number((1 << 64) - 1), "plugged": Data(MAX_BITMAP)})


class Mem(VirtioDevice):
    """Lets the driver plug blocks of `ram`, at most `limit` bytes of it.

    A device reset leaves the blocks as they are (a new driver asks for UNPLUG_ALL); that of the whole machine
    (`GuestMemory.reset`) unplugs them. The host's wish outlives both.
    """

    device_id = DeviceType.MEMORY

    def __init__(self, *, name: str, ram: PluggableRam, limit: int) -> None:
        super().__init__(name=name, queue_sizes=(QUEUE_SIZE,), features=mask_of(F_UNPLUGGED_INACCESSIBLE))
        self.limit = limit
        """The most that can be requested, in bytes."""
        self.requested = 0
        self._ram = ram
        self._blocks_left = 0

    # ---- for the host, while the guest does not run ----

    @property
    def block_size(self) -> int:
        """Bytes of a block."""
        return self._ram.block_size

    @property
    def plugged_size(self) -> int:
        """Bytes that the guest has."""
        return self._ram.plugged_size

    @property
    def requested_size(self) -> int:
        """Bytes that the guest is asked to have. Raises UsageError for a part of a block, and for more than `limit`."""
        return self.requested

    @requested_size.setter
    def requested_size(self, size: int) -> None:
        if not 0 <= size <= self.limit or size % self.block_size:
            raise UsageError(
                f"{self.name}: {size} bytes cannot be plugged; it is a multiple of {format_size(self.block_size)} "
                f"up to {format_size(self.limit)}"
            )
        self.requested = size
        self.config_changed()

    # ---- as a virtio device ----

    def config(self) -> bytes:
        """All of the region is usable at any time."""
        ram = self._ram
        return _CONFIG.pack(
            ram.block_size, NODE_ID, ram.gpa, ram.length, ram.length, ram.plugged_size, self.requested
        )

    def accepts(self, features: int) -> bool:
        """Drivers that might read unplugged blocks, as Linux before 5.16 does, are refused: nothing is there."""
        return bool(features >> F_UNPLUGGED_INACCESSIBLE & 1)

    def notified(self, index: int) -> None:
        """The driver has requests."""
        self._blocks_left = BLOCKS_PER_TURN
        self.serve(self.queues[index], self._request, while_=self._has_time)

    def _has_time(self) -> bool:
        if self._blocks_left <= 0:
            self.serve_later(REQUESTS)
        return self._blocks_left > 0

    # ---- requests: 5.15.6 ----

    def _request(self, chain: Chain) -> int:
        # With frames of its own the answer cannot fail for want of one: the request would be served a second time.
        chain.writable_views(0, _RESPONSE.size)
        request = chain.read(0, _REQUEST.size)
        response, state = ERROR, 0
        if len(request) == _REQUEST.size:
            kind, gpa, blocks = _REQUEST.unpack(request)
            response, state = self._serve(kind, gpa, blocks)
        # By address again: the blocks that went may have held the place for the answer.
        return chain.write(_RESPONSE.pack(response, state))

    def _serve(self, kind: int, gpa: int, blocks: int) -> tuple[int, int]:
        """The answer's type, and for STATE the state."""
        if kind == UNPLUG_ALL:
            self._blocks_left -= self.plugged_size // self.block_size
            self._ram.unplug_all()
            return ACK, 0
        first, rest = divmod(gpa - self._ram.gpa, self.block_size)
        inside = first >= 0 and not rest and 0 < blocks <= self._ram.blocks - first
        if not inside or kind not in (PLUG, UNPLUG, STATE):
            return ERROR, 0
        plugged = self._ram.plugged(first, blocks)
        if kind == STATE:
            return ACK, PLUGGED if plugged.all() else MIXED if plugged.any() else UNPLUGGED
        if plugged.any() if kind == PLUG else not plugged.all():
            return ERROR, 0
        if kind == PLUG and self.plugged_size + blocks * self.block_size > self.requested:
            return NACK, 0
        self._blocks_left -= blocks
        if kind == PLUG:
            self._ram.plug(first, blocks)
        else:
            self._ram.unplug(first, blocks)
        return ACK, 0

    # ---- saved state ----

    @property
    def plugged(self) -> bytes:
        """The plugged blocks, one bit each. Setting it plugs and unplugs what is otherwise; the rest keeps its content.

        Raises SnapshotError for another number of blocks.
        """
        return np.packbits(self._ram.plugged(0, self._ram.blocks), bitorder="little").tobytes()

    @plugged.setter
    def plugged(self, bits: bytes) -> None:
        ram = self._ram
        if len(bits) != -(-ram.blocks // 8):
            raise SnapshotError(
                f"{_DEVICE}: saved field 'plugged' has {len(bits)} bytes; this guest has {ram.blocks} blocks"
            )
        wanted = np.unpackbits(np.frombuffer(bits, np.uint8), count=ram.blocks, bitorder="little") == 1
        for block in np.flatnonzero(wanted != ram.plugged(0, ram.blocks)).tolist():
            if wanted[block]:
                ram.plug(block, 1)
            else:
                ram.unplug(block, 1)

    def save_device(self) -> SavedState:
        """The host's wish, and which blocks are plugged."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load_device(self, state: SavedState) -> None:
        """Go on with the same; what the blocks hold is the memory's to load, behind this. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
