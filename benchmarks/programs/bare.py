"""The compute loop on Unicorn's own Python binding: python -m benchmarks.programs.bare TURNS TLB

TLB is "cpu", as Unicorn comes, or "virtual": with translations that keep data from being executable, so that
stores take Unicorn's fast path. Prints {"seconds": ..., "checksum": ...}.
"""

import importlib
import json
import sys
import time
from typing import Any

from benchmarks.loop import CODE_ADDRESS, TABLE_ADDRESS, TABLE_SIZE, code
from emuvisor.units import PAGE_SIZE

unicorn: Any = importlib.import_module("unicorn")  # its type hints do not cover what it exports
x86_const: Any = importlib.import_module("unicorn.x86_const")


def _fill(_engine: object, address: int, access: int, entry: Any, _data: object) -> bool:
    """Every address is its own translation."""
    entry.paddr = address
    fetch = access == unicorn.UC_MEM_FETCH
    entry.perms = unicorn.UC_PROT_READ | (unicorn.UC_PROT_EXEC if fetch else unicorn.UC_PROT_WRITE)
    return True


def main() -> int:
    """Run the loop once."""
    program = code(int(sys.argv[1]))
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    if sys.argv[2] == "virtual":
        engine.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        engine.hook_add(unicorn.UC_HOOK_TLB_FILL, _fill)
    engine.mem_map(CODE_ADDRESS, PAGE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
    engine.mem_map(TABLE_ADDRESS, TABLE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
    engine.mem_write(CODE_ADDRESS, program)
    start = time.perf_counter()
    engine.emu_start(CODE_ADDRESS, CODE_ADDRESS + len(program))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "checksum": engine.reg_read(x86_const.UC_X86_REG_RAX)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
