"""A host in a process of its own that boots, sends and receives a Debian guest as it is told, a JSON list a line.

["boot", MIB, APPEND], ["load", PAGES A SECOND], ["listen"] (answers an address), ["send", ADDRESS, OPTIONS] (answers
the migration's progress), ["receive"] (when all of the guest is there). Every command is answered by a line of JSON.
"""

import json
import sys
import time
from typing import Any

from emuvisor.host import Guest, Host
from emuvisor.images.cache import find
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.machine.config import GuestConfig, KernelConfig
from emuvisor.migration import Options, Source, Target
from emuvisor.units import MIB

TIMEOUT_S = 300
LOOK_S = 0.005
LOAD = (
    "kill $p 2>/dev/null; (while :; do dd if=/dev/urandom of=/tmp/d bs=4096 count={pages} conv=notrunc 2>/dev/null; "
    "sleep 0.1; done) & p=$!; echo load {pages} is $((1+0))\n"
)
"""Writes that many pages of new content, and waits for a tenth of a second."""
BURSTS = 10
"""In a second, or a little less: a migration is shorter than that."""


class Side:
    """One of the two hosts."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._target: Target | None = None

    @property
    def _guest(self) -> Guest:
        return next(iter(self._host.guests.values()))

    def boot(self, memory_mib: int, append: str) -> None:
        image = find("debian")
        assert image is not None
        kernel = KernelConfig(image.kernel, image.initrd, f"{image.append} {append}".strip())
        guest = self._host.create(GuestConfig(memory=memory_mib * MIB, clock="host", kernel=kernel))
        guest.start()
        assert guest.expect(BOOT_MARKER, TIMEOUT_S)
        assert guest.expect("is 42", TIMEOUT_S, "dmesg -n 1; echo it is $((6*7))\n")

    def load(self, pages: int) -> None:
        if pages:
            burst = -(-pages // BURSTS)
            assert self._guest.expect(f"load {burst} is 1", TIMEOUT_S, LOAD.format(pages=burst))
        else:
            assert self._guest.expect("idle 1", TIMEOUT_S, "kill $p 2>/dev/null; echo idle $((1+0))\n")

    def listen(self) -> str:
        self.close()
        self._target = Target(self._host)
        return self._target.address

    def send(self, address: str, options: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        progress = Source(self._guest, address, Options.of(options)).run()
        return progress.as_dict() | {"total_s": time.perf_counter() - began}

    def receive(self) -> None:
        assert self._target is not None
        self._target.receive(TIMEOUT_S)
        while self._target.missing:
            time.sleep(LOOK_S)

    def close(self) -> None:
        if self._target is not None:
            self._target.close()


def main() -> None:
    with Host(int(sys.argv[1]) * MIB) as host:
        side = Side(host)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(getattr(side, name)(*arguments)), flush=True)
        side.close()


if __name__ == "__main__":
    main()
