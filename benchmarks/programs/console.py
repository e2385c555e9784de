"""Boot a kernel with its console on standard input and output; nothing else.

python -m benchmarks.programs.console KERNEL INITRD APPEND MEMORY_MIB CLOCK DECOMPRESSOR
"""

import os
import sys
import threading
from pathlib import Path
from typing import cast

from emuvisor.host import Guest, Host
from emuvisor.machine.config import ClockMode, GuestConfig, KernelConfig
from emuvisor.machine.loaders.linux import Decompressor
from emuvisor.units import MIB

HOST_RESERVE = 64 * MIB
"""Beyond the guest's memory, so that the pool is never what is measured."""


def _show(data: bytes) -> None:
    os.write(sys.stdout.fileno(), data)


def _type(guest: Guest) -> None:
    while data := os.read(sys.stdin.fileno(), 4096):
        guest.type(data.decode(errors="replace"))


def main() -> int:
    """Run until the guest ends; 0 when it switched itself off."""
    kernel, initrd, append, memory_mib, clock, decompressor = sys.argv[1:]
    memory = int(memory_mib) * MIB
    config = GuestConfig(
        memory=memory,
        clock=cast(ClockMode, clock),
        kernel=KernelConfig(Path(kernel), Path(initrd), append, cast(Decompressor, decompressor)),
    )
    with Host(memory + HOST_RESERVE) as host:
        guest = host.create(config)
        guest.console.listeners.append(_show)
        guest.start()
        threading.Thread(target=_type, args=(guest,), daemon=True).start()
        guest.wait()
        return 0 if guest.outcome is not None and not guest.outcome.crashed else 1


if __name__ == "__main__":
    sys.exit(main())
