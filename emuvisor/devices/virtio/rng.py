"""The entropy device: virtio 1.2, section 5.4."""

from collections.abc import Callable
from hashlib import shake_256

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Number, load_fields, save_fields
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.features import DeviceType
from emuvisor.units import KIB

__all__ = ["BYTES_PER_REQUEST", "Rng"]

REQUEST_QUEUE = 0
QUEUE_SIZE = 64
BYTES_PER_REQUEST = 64 * KIB
"""One request gets no more: the driver asks again. Linux asks for at most a page."""
COUNTER_SIZE = 8

_DEVICE = "virtio-rng"
_VERSION = 1
_FIELDS = Fields({"answered": Number((1 << 64) - 1)})


class Rng(VirtioDevice):
    """Random bytes: `source(n)` gives n of them.

    Without a source they come from `seed`: the same guest gets the same bytes in every run, also when it was saved in
    between. That suits guests on the virtual clock, and no secrets.
    """

    device_id = DeviceType.ENTROPY

    def __init__(self, *, name: str, source: Callable[[int], bytes] | None = None, seed: str = "") -> None:
        super().__init__(name=name, queue_sizes=(QUEUE_SIZE,))
        self.answered = 0
        """Requests that the guest has made."""
        self._source = source or self._from_seed
        self._seed = seed.encode()

    def notified(self, index: int) -> None:
        """The driver wants random bytes."""
        self.serve(self.queues[index], self._fill)

    def _fill(self, chain: Chain) -> int:
        length = min(chain.writable_length, BYTES_PER_REQUEST)
        written = chain.write(self._source(length)) if length else 0
        self.answered += 1
        return written

    def _from_seed(self, length: int) -> bytes:
        """An extendable hash of the seed and the number of the request: all that has to be saved is that number."""
        return shake_256(self.answered.to_bytes(COUNTER_SIZE, "little") + self._seed).digest(length)

    def save_device(self) -> SavedState:
        """How many requests were answered: with the seed, where the generator stands."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load_device(self, state: SavedState) -> None:
        """Go on where it stood. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
