"""The rungs of the ladder: the ways in which memory is gained, one file each.

base.py     Rung: the interface, and where your own begins
sharing.py  SharingRung: pages of zeros and equal pages
balloon.py  BalloonRung: the guest gives what it can do without
away.py     CompressionRung, SwapRung: pages go into a store
pause.py    PauseRung: who cannot go on, and why
"""

from emuvisor.host.memory.rungs.away import CompressionRung, StoreRung, SwapRung
from emuvisor.host.memory.rungs.balloon import BalloonRung
from emuvisor.host.memory.rungs.base import Rung
from emuvisor.host.memory.rungs.pause import PauseRung
from emuvisor.host.memory.rungs.sharing import SharingRung

__all__ = [
    "BalloonRung",
    "CompressionRung",
    "PauseRung",
    "Rung",
    "SharingRung",
    "StoreRung",
    "SwapRung",
    "default_rungs",
]


def default_rungs() -> tuple[Rung, ...]:
    """The ladder as it is unless somebody changes it. Rungs whose store is off do nothing."""
    return (SharingRung(), BalloonRung(), CompressionRung(), SwapRung(), PauseRung())
