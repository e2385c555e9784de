"""The compute loop on Unicorn's own Python binding: python -m benchmarks.programs.bare TURNS

Code is mapped without write permission and the table without execute permission, which is Unicorn at its
fastest. Prints {"seconds": ..., "checksum": ...}.
"""

import json
import sys
import time

import unicorn
from unicorn import x86_const

from benchmarks.loop import CODE_ADDRESS, TABLE_ADDRESS, TABLE_SIZE, code
from emuvisor.units import PAGE_SIZE


def main() -> int:
    """Run the loop once."""
    program = code(int(sys.argv[1]))
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
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
