"""A process with a manager, for test_manager_killed: it does things to guests until it is killed, and counts."""

import sys
from pathlib import Path

from emuvisor.host import Host
from emuvisor.manager import Manager
from emuvisor.store import Store
from emuvisor.units import MIB


def main() -> None:
    store, program = map(Path, sys.argv[1:])
    with Manager(Host(64 * MIB), Store(store)) as manager:
        flat = {"path": str(program), "address": 0x8000}
        for name in ("runs", "sleeps", "auto"):
            auto = name == "auto"
            manager.create({"name": name, "board": "isa", "memory": MIB, "flat": flat, "autostart": auto})
            manager.start(name)
        manager.save("sleeps")
        print("ready", flush=True)
        number = 0
        while True:
            manager.snapshot("runs", f"s{number}")
            manager.save("runs")
            manager.start("runs")
            manager.clone("runs", [f"clone{number}"])
            manager.rename("sleeps", "dreams") if number % 2 == 0 else manager.rename("dreams", "sleeps")
            if number:
                manager.remove(f"clone{number - 1}", force=True)
            number += 1
            print(number, flush=True)


if __name__ == "__main__":
    main()
