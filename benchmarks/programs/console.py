"""Boot a guest with its console on standard input and output; nothing else.

python -m benchmarks.programs.console CONFIGURATION (as JSON)
"""

import json
import os
import sys
import threading

from emuvisor.host import Guest, Host
from emuvisor.machine.config_file import from_mapping
from emuvisor.units import MIB

HOST_RESERVE = 64 * MIB
"""Beyond the guest's memory, so that the pool is never what is measured."""


def _show(data: bytes) -> None:
    os.write(sys.stdout.fileno(), data)


def _type(guest: Guest) -> None:
    while data := os.read(sys.stdin.fileno(), 4096):
        guest.type(data.decode(errors="replace"))


def run_on_stdio(guest: Guest) -> int:
    """Start `guest` with its console on standard input and output, and wait for its end; 0 when it switched itself
    off."""
    guest.console.listeners.append(_show)
    guest.start()
    threading.Thread(target=_type, args=(guest,), daemon=True).start()
    guest.wait()
    return 0 if guest.outcome is not None and not guest.outcome.crashed else 1


def main() -> int:
    """Run until the guest ends; 0 when it switched itself off."""
    config = from_mapping(json.loads(sys.argv[1]), "the configuration")
    with Host(config.memory + HOST_RESERVE) as host:
        return run_on_stdio(host.create(config))


if __name__ == "__main__":
    sys.exit(main())
