"""Port 61h: the NMI status and control register of a PC, with the speaker's gate.

Source: NMI_SC in the Intel 82801 (ICH) data sheet. Nothing here raises an NMI, so the two error sources are
never set; their enable bits are kept for whoever reads them back.
"""

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Number, load_fields, save_fields
from emuvisor.devices.pit import I8254

__all__ = ["SpeakerPort"]

TIM_CNT2_EN = 0x01
SPKR_DAT_EN = 0x02
NMI_SC_WRITABLE = 0x0F
REF_TOGGLE = 0x10
TMR2_OUT_STS = 0x20

SPEAKER_COUNTER = 2
REFRESH_TICKS = 18
"""A memory refresh cycle, in ticks of the 8254: 15.09 us."""

_DEVICE = "nmi-sc"
_VERSION = 1
_FIELDS = Fields({"control": Number(NMI_SC_WRITABLE)})


class SpeakerPort:
    """One register; its lowest bit is the gate of counter 2 of `pit`."""

    name = _DEVICE

    def __init__(self, *, pit: I8254) -> None:
        self._pit = pit
        self.control = 0

    @property
    def speaker_on(self) -> bool:
        """Whether counter 2's output reaches the speaker."""
        return bool(self.control & SPKR_DAT_EN)

    def read(self, offset: int, size: int) -> int:
        """The control bits, the refresh toggle and counter 2's output."""
        tick = self._pit.tick()
        value = self.control
        if tick // REFRESH_TICKS & 1:
            value |= REF_TOGGLE
        if self._pit.counters[SPEAKER_COUNTER].output(tick):
            value |= TMR2_OUT_STS
        return value

    def write(self, offset: int, value: int, size: int) -> None:
        """Set the control bits."""
        self.control = value & NMI_SC_WRITABLE
        self._pit.set_gate(SPEAKER_COUNTER, bool(value & TIM_CNT2_EN))

    def reset(self) -> None:
        """Gate closed, speaker off."""
        self.write(0, 0, 1)

    def save(self) -> SavedState:
        """The control bits as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
