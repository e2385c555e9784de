"""A host in a process of its own, which boots a guest under load, sends it and receives it as it is told on its
standard input, a JSON command a line; it answers on standard output, a JSON object a line. Run by `migration_guests`.
"""

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from guests import reach_shell

from emuvisor.errors import MigrationError
from emuvisor.host import Guest, Host
from emuvisor.images.cache import find
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig
from emuvisor.migration import Insecure, Options, Security, Source, Target, Token
from emuvisor.units import MIB

LOAD = (
    "s=0; i=0; while :; do i=$((i+1)); "
    "head -c {size} /dev/urandom > /tmp/a; cp /tmp/a /tmp/b; "
    'x=$(md5sum < /tmp/a); y=$(md5sum < /tmp/b); [ "$x" = "$y" ] || echo WRO"NG" $i; '
    "s=$(((s*31+i)%1000003)); echo tick $i $s; done\n"
)
"""Writes files into memory and compares what they hold; `s` depends on every number that was counted."""


class Controller:
    """What the commands do."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._target: Target | None = None
        self._source: Source | None = None

    @property
    def _guest(self) -> Guest:
        return next(iter(self._host.guests.values()))

    def close(self) -> None:
        if self._target is not None:
            self._target.close()

    def boot(self, disk: str, size: int, memory: int) -> dict[str, Any]:
        image = find("debian")
        assert image is not None
        kernel = KernelConfig(image.kernel, image.initrd, image.append)
        disks = (DiskConfig(Path(disk), bus="virtio"),) if disk else ()
        config = GuestConfig(name="debian", memory=memory * MIB, kernel=kernel, clock="host", disks=disks)
        guest = self._host.create(config)
        guest.start()
        reach_shell(guest)
        if size:
            guest.type(LOAD.format(size=size))
            assert guest.expect("tick 3 ", 60)
        return {}

    def type(self, text: str) -> dict[str, Any]:
        self._guest.type(text)
        return {}

    def listen(self, address: str, token: str) -> dict[str, Any]:
        if self._target is not None:
            self._target.close()
        self._target = Target(self._host, address, _security(token))
        return {"address": self._target.address}

    def migrate(self, to: str, token: str, options: dict[str, Any], until: str = "") -> dict[str, Any]:
        """In the background: `migrated` says how it ended. With `until`, it comes as far as that phase, where it stops
        until `go_on`."""
        self._source = Source(self._guest, to, Options.of(options), _security(token))
        self._error = ""
        self._thread = threading.Thread(target=self._run, args=(self._source,))
        if not until:
            return self.go_on()
        while self._source.progress.phase != until:
            assert not self._source.is_over, self._source.progress
            self._source.step()
        return {}

    def go_on(self) -> dict[str, Any]:
        """With the migration that was begun."""
        self._thread.start()
        return {}

    def _run(self, source: Source) -> None:
        try:
            source.run()
        except MigrationError as error:
            self._error = str(error)

    def migrated(self) -> dict[str, Any]:
        assert self._source is not None
        self._thread.join()
        return {"error": self._error, "progress": asdict(self._source.progress)}

    def receive(self) -> dict[str, Any]:
        """Wait for the guest that comes, and until all of it has come."""
        assert self._target is not None
        try:
            self._target.receive(60)
        except MigrationError as error:
            return {"error": str(error)}
        return {"error": ""}

    def missing(self) -> dict[str, Any]:
        """Pages that the last guest still waits for."""
        assert self._target is not None
        return {"missing": self._target.missing}

    def guests(self) -> dict[str, Any]:
        return {
            "guests": {guest.name: [str(guest.state), guest.reason] for guest in self._host.guests.values()}
        }

    def console(self) -> dict[str, Any]:
        return {"text": self._guest.console.text, "written": self._guest.console.written}

    def expect(self, text: str, send: str = "") -> dict[str, Any]:
        """A text that is printed from now on."""
        guest = self._guest
        guest.console.searched = guest.console.written
        return {"found": guest.expect(text, 60, send)}


def _security(token: str) -> Security:
    return Token(token) if token else Insecure()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    with Host(int(sys.argv[1]) * MIB) as host:
        controller = Controller(host)
        for line in sys.stdin:
            command = json.loads(line)
            answer = getattr(controller, command.pop("do"))(**command)
            print(json.dumps(answer), file=answers, flush=True)
        controller.close()


if __name__ == "__main__":
    main()
