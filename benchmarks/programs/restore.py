"""A process that restores a guest and says how long that took, in a line of JSON:

python -m benchmarks.programs.restore STORE GUEST SNAPSHOT

`host_ms` is from before `Host()` to the guest's first instruction, `call_ms` from the call of `restore_guest` on. The
process is up then: Python and the modules that such a guest needs are there, for which another one was built and thrown
away. Nothing else was prepared, and nothing of the guest runs before.
"""

import json
import sys
import threading
import time

from emuvisor.cpu.pcpu import Pcpu
from emuvisor.host import Host
from emuvisor.host.snapshots import restore_guest
from emuvisor.machine.machine import Activity
from emuvisor.store import Store
from emuvisor.units import MIB

POOL = 512 * MIB
PATIENCE_S = 30


def main(folder: str, guest: str, snapshot: str) -> None:
    """Restore it and say how long that took."""
    with Host(POOL) as host, Store(folder, read_only=True) as store:
        restore_guest(host, store, guest, snapshot, running=False).delete()
    began = time.perf_counter()
    with Host(POOL) as host, Store(folder, read_only=True) as store:
        called = time.perf_counter()
        restored = restore_guest(host, store, guest, snapshot, running=False)
        runs = threading.Event()
        first = 0.0
        run_slice = restored.machine.run_slice

        def noted(pcpu: Pcpu, slice_work: int, stolen_ns: int = 0) -> Activity:
            nonlocal first
            first = first or time.perf_counter()
            runs.set()
            return run_slice(pcpu, slice_work, stolen_ns)

        restored.machine.run_slice = noted  # type: ignore[method-assign]
        restored.resume()
        if not runs.wait(PATIENCE_S):
            raise SystemExit("the guest does not run")
        print(json.dumps({"host_ms": (first - began) * 1e3, "call_ms": (first - called) * 1e3}))


if __name__ == "__main__":
    main(*sys.argv[1:])
