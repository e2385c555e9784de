"""Port 80h: where firmware shows how far it has come (power-on self-test codes)."""

from collections import deque

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Numbers, load_fields, save_fields

__all__ = ["PostPort"]

CODES_KEPT = 256

_DEVICE = "post"
_VERSION = 1
_FIELDS = Fields({"codes": Numbers(length=CODES_KEPT, maximum=0xFF)})


class PostPort:
    """One register. `codes` holds the last 256 codes written, the newest at the end."""

    name = _DEVICE

    def __init__(self) -> None:
        self.codes: deque[int] = deque(maxlen=CODES_KEPT)

    def read(self, offset: int, size: int) -> int:
        """The last code; 0 without one."""
        return self.codes[-1] if self.codes else 0

    def write(self, offset: int, value: int, size: int) -> None:
        """Show a code. Kernels write here for nothing but the delay, so the same code again is not kept."""
        code = value & 0xFF
        if not self.codes or self.codes[-1] != code:
            self.codes.append(code)

    def reset(self) -> None:
        """Forget the codes."""
        self.codes.clear()

    def save(self) -> SavedState:
        """The codes as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
