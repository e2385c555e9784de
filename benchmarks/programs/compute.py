"""The compute loop in an emuvisor guest on a host: python -m benchmarks.programs.compute TURNS

Prints {"seconds": ..., "checksum": ...}: from the guest's start to its HLT.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.loop import CODE_ADDRESS, code
from emuvisor.host import Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB

MEMORY = 16 * MIB


def main() -> int:
    """Run the loop once."""
    with tempfile.TemporaryDirectory() as folder, Host(2 * MEMORY) as host:
        image = Path(folder, "loop.bin")
        image.write_bytes(code(int(sys.argv[1])))
        flat = FlatConfig(image, CODE_ADDRESS, "long64")
        guest = host.create(GuestConfig(board="pc", memory=MEMORY, flat=flat))
        start = time.perf_counter()
        guest.start()
        guest.wait()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "checksum": guest.machine.vcpu.state.rax}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
