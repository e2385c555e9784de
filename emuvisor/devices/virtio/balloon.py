"""The memory balloon device: virtio 1.2, section 5.5.

Pages that the guest puts into the balloon (`GuestMemory.inflate`), reports free or hints at (`discard`) go back to the
host's pool. They read as zeros from then on and take a frame again when the guest touches them, so that whatever a
driver says, it can only lose content of its own guest.
"""

from collections.abc import Callable
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.features import DeviceType, mask_of
from emuvisor.devices.virtio.pageset import MAX_SET_BYTES, PageSet
from emuvisor.errors import StateError, UsageError
from emuvisor.memory import GuestMemory
from emuvisor.units import MIB, PAGE_SIZE

__all__ = ["STATISTICS", "Balloon"]

# Feature bits (5.5.3).
F_MUST_TELL_HOST = 0
F_STATS_VQ = 1
F_DEFLATE_ON_OOM = 2
F_FREE_PAGE_HINT = 3
F_PAGE_POISON = 4
F_PAGE_REPORTING = 5
FEATURES = mask_of(
    F_MUST_TELL_HOST, F_STATS_VQ, F_DEFLATE_ON_OOM, F_FREE_PAGE_HINT, F_PAGE_POISON, F_PAGE_REPORTING
)

# Queues (5.5.2).
INFLATE = 0
DEFLATE = 1
STATS = 2
FREE_PAGE = 3
REPORTING = 4
QUEUE_SIZES = (128, 128, 8, 128, 128)

# Configuration space (5.5.4).
_CONFIG = Struct("<IIII")

# Free page hinting (5.5.6.7).
CMD_ID_STOP = 0
CMD_ID_DONE = 1
FIRST_CMD_ID = 2
CMD_ID_SIZE = 4

STATISTICS = {
    0: "swap_in",
    1: "swap_out",
    2: "major_faults",
    3: "minor_faults",
    4: "free",
    5: "total",
    6: "available",
    7: "caches",
    8: "hugetlb_allocations",
    9: "hugetlb_failures",
}
"""VIRTIO_BALLOON_S_SWAP_IN and its like (5.5.6.6) by tag: bytes, or for faults and hugetlb counts."""
_STATISTIC = np.dtype([("tag", "<u2"), ("value", "<u8")])
MAX_STATISTICS = 64
"""Entries of one buffer that are looked at."""

PFN_SIZE = 4
MAX_PFNS = 4 * 1024
"""Page numbers of one request that are looked at. Linux sends 256."""
MAX_RANGE_BYTES = 256 * MIB
MAX_RANGES = 64
"""What one chain can report or hint. Linux reports 32 blocks of up to 4 MiB."""

_U32 = Number(0xFFFF_FFFF)
_COUNT = Number((1 << 64) - 1)
_DEVICE = "virtio-balloon"
_VERSION = 1
_FIELDS = Fields(
    {
        "target": _U32,
        "actual_pages": _U32,
        "poison_val": _U32,
        "cmd_id": _U32,
        "last_cmd_id": _U32,
        "hinting": Flag(),
        "pages_inflated": _COUNT,
        "pages_deflated": _COUNT,
        "pages_reported": _COUNT,
        "pages_hinted": _COUNT,
        "frames_returned": _COUNT,
        "statistics_received": _COUNT,
        "inside": Data(MAX_SET_BYTES),
        "figures": Data(len(STATISTICS) * _STATISTIC.itemsize),
    }
)


class Balloon(VirtioDevice):
    """Takes memory of the guest `memory` away by asking for it, and learns from the guest what it does not use.

    The host sets `target_pages` and asks for statistics and hints while the guest does not run. All counts are of
    pages of 4 KiB.
    """

    device_id = DeviceType.BALLOON
    max_chain_bytes = MAX_RANGE_BYTES

    def __init__(self, *, name: str, memory: GuestMemory) -> None:
        super().__init__(name=name, queue_sizes=QUEUE_SIZES, features=FEATURES)
        self.target = 0
        self.actual_pages = 0
        """How many pages the driver says are in the balloon."""
        self.pages_inflated = 0
        """Pages put into the balloon since power-on; RAM that was not in it already."""
        self.pages_deflated = 0
        """Pages taken out of it again."""
        self.pages_reported = 0
        """Pages named by free page reporting."""
        self.pages_hinted = 0
        """Pages named by free page hinting."""
        self.frames_returned = 0
        """Host frames that became free by any of these."""
        self.statistics: dict[str, int] = {}
        """The guest's last statistics, by the names in `STATISTICS`; only those that it gave."""
        self.statistics_received = 0
        """How often the guest gave statistics."""
        self.poison_val = 0
        self.cmd_id = CMD_ID_STOP
        self.last_cmd_id = FIRST_CMD_ID - 1
        self.hinting = False
        """Hints that come now belong to the current command."""
        self._memory = memory
        self._inside = PageSet()
        self._waiting_buffer: Chain | None = None
        """The driver's buffer for statistics: using it asks for new ones."""

    # ---- for the host, while the guest does not run ----

    @property
    def target_pages(self) -> int:
        """How many pages the guest is asked to put into the balloon. Raises UsageError for more than it has."""
        return self.target

    @target_pages.setter
    def target_pages(self, pages: int) -> None:
        limit = self._memory.size // PAGE_SIZE
        if not 0 <= pages <= limit:
            raise UsageError(f"{self.name}: a target of {pages} pages; the guest has {limit}")
        self.target = pages
        self.config_changed()

    @property
    def ballooned_pages(self) -> int:
        """How many pages are in the balloon, by the requests that the device has seen."""
        return self._inside.count

    def request_statistics(self) -> None:
        """Ask the guest for new `statistics`; they come when it next runs. Nothing while it still collects them.

        Raises StateError when the guest's driver gives none.
        """
        self._require(F_STATS_VQ, "statistics")
        buffer, self._waiting_buffer = self._waiting_buffer, None
        if buffer is not None:
            queue = self.queues[STATS]
            with self.guarded(queue):
                queue.push(buffer, 0)

    def start_hinting(self) -> None:
        """Ask the guest which of its pages are free; their frames come back when it next runs.

        Raises StateError when the guest's driver gives no hints.
        """
        self._require(F_FREE_PAGE_HINT, "hints")
        self.last_cmd_id = max(FIRST_CMD_ID, self.last_cmd_id + 1 & 0xFFFF_FFFF)
        self._set_command(self.last_cmd_id)

    def stop_hinting(self) -> None:
        """Let the guest use the pages again that it has hinted at; happens by itself when it knows no more of them."""
        self._set_command(CMD_ID_DONE)

    def _require(self, feature: int, what: str) -> None:
        if not (self.live and self.has(feature)):
            raise StateError(f"{self.name}: the guest has no driver that gives {what}")

    def _set_command(self, cmd_id: int) -> None:
        self.cmd_id = cmd_id
        self.hinting = False
        self.config_changed()

    # ---- as a virtio device ----

    def config(self) -> bytes:
        """num_pages, actual, free_page_hint_cmd_id, poison_val."""
        return _CONFIG.pack(self.target, self.actual_pages, self.cmd_id, self.poison_val)

    def write_config(self, offset: int, data: bytes) -> None:
        """actual, and before the driver is ready poison_val; the rest is not the driver's."""
        config = bytearray(self.config())
        config[offset : offset + len(data)] = data
        _, self.actual_pages, _, poison_val = _CONFIG.unpack(config[: _CONFIG.size])
        if self.has(F_PAGE_POISON) and not self.live:
            self.poison_val = poison_val

    def notified(self, index: int) -> None:
        """Pages that come, go, or are free, or statistics."""
        handlers: tuple[Callable[[Chain], int | None], ...] = (
            self._inflate,
            self._deflate,
            self._take_statistics,
            self._take_hint,
            self._take_report,
        )
        self.serve(self.queues[index], handlers[index])

    def activated(self) -> None:
        """Linux offers its first buffer for statistics before the device may look, and does not say so again."""
        self.kick(STATS)

    def quiesced(self) -> None:
        """The next driver begins with an empty balloon; what the host wants stays."""
        self._inside = PageSet()
        self._memory.empty_balloon()
        self._waiting_buffer = None
        self.actual_pages = 0
        self.poison_val = 0
        self.cmd_id = CMD_ID_STOP
        self.hinting = False
        self.statistics = {}

    def queue_reset(self, index: int) -> None:
        """The driver has its buffer for statistics back."""
        if index == STATS:
            self._waiting_buffer = None

    # ---- inflating and deflating: 5.5.6 ----

    def _inflate(self, chain: Chain) -> int:
        pages = self._pages(chain)
        self.pages_inflated += self._inside.add(pages)
        self.frames_returned += self._memory.inflate(pages)
        return 0

    def _deflate(self, chain: Chain) -> int:
        pages = self._pages(chain)
        self.pages_deflated += self._inside.remove(pages)
        self._memory.deflate(pages)
        return 0

    def _pages(self, chain: Chain) -> NDArray[np.int64]:
        """The guest frames that a request names, each once, ascending; what is not RAM is left out."""
        whole = min(chain.readable_length // PFN_SIZE, MAX_PFNS) * PFN_SIZE
        pages = np.unique(np.frombuffer(chain.read(0, whole), "<u4")).astype(np.int64)
        return pages[self._memory.ram_pages(pages)]

    # ---- statistics: 5.5.6.5 ----

    def _take_statistics(self, chain: Chain) -> None:
        self.figures = chain.read(0, MAX_STATISTICS * _STATISTIC.itemsize)
        self.statistics_received += 1
        # The driver has one buffer out at a time; another one takes its place.
        old, self._waiting_buffer = self._waiting_buffer, chain
        if old is not None:
            self.queues[STATS].push(old, 0)

    # ---- free page hinting: 5.5.6.7 ----

    def _take_hint(self, chain: Chain) -> int:
        if chain.readable_length:
            cmd_id = int.from_bytes(chain.read(0, CMD_ID_SIZE), "little")
            round_open = self.cmd_id >= FIRST_CMD_ID
            self.hinting = round_open and cmd_id == self.cmd_id
            if round_open and cmd_id == CMD_ID_STOP:
                self.stop_hinting()
        elif self.hinting:
            self.pages_hinted += self._give_back(chain)
        return 0

    # ---- free page reporting: 5.5.6.9 ----

    def _take_report(self, chain: Chain) -> int:
        self.pages_reported += self._give_back(chain)
        return 0

    def _give_back(self, chain: Chain) -> int:
        """Discard the ranges that a chain's writable part names; returns how many pages they hold. A guest whose free
        pages hold another value than zero (5.5.6.8) keeps them: they would read as zeros."""
        pages = 0
        for gpa, length in chain.writable[:MAX_RANGES]:
            pages += max(0, (gpa + length) // PAGE_SIZE - -(-gpa // PAGE_SIZE))
            if not self.poison_val:
                self.frames_returned += self._memory.discard(gpa, length)
        return pages

    # ---- saved state ----

    @property
    def inside(self) -> bytes:
        """The pages in the balloon, one bit each; setting it replaces them."""
        return self._inside.bits.tobytes()

    @inside.setter
    def inside(self, bits: bytes) -> None:
        self._inside = PageSet(bits)

    @property
    def figures(self) -> bytes:
        """The statistics as a driver gives them; setting it replaces them."""
        tags = {name: tag for tag, name in STATISTICS.items()}
        entries = [(tags[name], value) for name, value in self.statistics.items()]
        return np.array(entries, _STATISTIC).tobytes()

    @figures.setter
    def figures(self, data: bytes) -> None:
        whole = len(data) // _STATISTIC.itemsize * _STATISTIC.itemsize
        entries = np.frombuffer(data[:whole], _STATISTIC)
        self.statistics = {STATISTICS[tag]: value for tag, value in entries.tolist() if tag in STATISTICS}

    def save_device(self) -> SavedState:
        """The host's wish, the counts, and which pages are in the balloon."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load_device(self, state: SavedState) -> None:
        """Go on with the same. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
