"""The compute loop on Unicorn's own Python binding: python -m benchmarks.programs.bare TURNS TLB

TLB is "cpu", as Unicorn comes, or "virtual": translations without execute permission for the table, so that
stores to it take the fast path. Prints {"seconds": ..., "checksum": ...}.
"""

import json
import sys
import time

from unicorn import unicorn_const as uc
from unicorn import x86_const
from unicorn.unicorn import Uc

from benchmarks.loop import CODE_ADDRESS, TABLE_ADDRESS, TABLE_SIZE, code
from emuvisor.units import PAGE_SIZE


def _fill(_engine: Uc, address: int, access: int, entry: uc.uc_tlb_entry, _data: object) -> bool:
    return True
