"""Many Debian guests in one host, told over standard input what to do:

python -m benchmarks.programs.many GUESTS PCPUS MEMORY_MIB APPEND

    boot N        boot guests until there are N, each to its shell with an endless loop typed; all stay paused
    idle          what the process holds beside the guests' frames, in bytes
    work N SECS   run the first N for SECS seconds

Every answer is a line of JSON: {"guests": n}, {"other": bytes, "translations": bytes}, {"work": bytes of guest
code, "seconds": s, "least": the least that one guest got}.
"""

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Settings
from benchmarks.guests import debian_config
from emuvisor.host import Guest, Host
from emuvisor.images.cache import find
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.units import KIB, MIB

BOOT_TIMEOUT_S = 300
FRAMES_PER_GUEST = 96 * MIB
"""What a booted guest of 256 MiB has touched, rounded up."""
LOOP = "echo loop''ing; while :; do i=$((i+1)); done\n"
SETTLE_S = 0.5
"""Guests run before a measurement starts, so that caches and translations are their own again."""

_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ (\S{4}) \S+ \S+ (\d+)")


@dataclass(frozen=True, slots=True)
class Residence:
    """Resident bytes of this process: all of them, and those in which the engines keep translated code."""

    total: int
    translations: int


def residence(smaps: str) -> Residence:
    """From the text of /proc/self/smaps. Translated code is what is anonymous, writable and executable."""
    total = translations = 0
    generated = False
    for line in smaps.splitlines():
        mapping = _MAPPING.match(line)
        if mapping is not None:
            generated = mapping[1].startswith("rwx") and mapping[2] == "0"
        elif line.startswith("Rss:"):
            size = int(line.split()[1]) * KIB
            total += size
            translations += size if generated else 0
    return Residence(total, translations)


class Many:
    """The guests of one host, all paused but while they work."""

    def __init__(self, host: Host, settings: Settings) -> None:
        self.host = host
        self.settings = settings
        self.guests: list[Guest] = []

    def boot(self, count: int) -> dict[str, float]:
        """Boot guests, as many at a time as there are pCPUs, until there are `count`."""
        while len(self.guests) < count:
            group = [self._start(len(self.guests) + i) for i in range(min(self.host.pcpus, count - len(self.guests)))]
            for guest in group:
                if not guest.expect("# ", BOOT_TIMEOUT_S):
                    raise SystemExit(f"{guest.name} did not boot: {guest.reason}; {guest.console.text[-300:]!r}")
                if not guest.expect("looping", BOOT_TIMEOUT_S, LOOP):
                    raise SystemExit(f"{guest.name} does not loop; {guest.console.text[-300:]!r}")
                guest.pause()
            self.guests += group
        return {"guests": len(self.guests)}

    def _start(self, number: int) -> Guest:
        guest = self.host.create(debian_config(self.settings, f"guest{number}"))
        guest.start()
        return guest

    def idle(self) -> dict[str, float]:
        """Resident bytes that are neither frames nor translations, and the translations."""
        found = residence(Path("/proc/self/smaps").read_text())
        frames = self.host.pool.memory_resident() if hasattr(self.host.pool, "memory_resident") else 0
        return {"other": found.total - found.translations - frames, "translations": found.translations}

    def work(self, count: int, seconds: float) -> dict[str, float]:
        """Let the first `count` guests run for `seconds`."""
        running = self.guests[:count]
        for guest in running:
            guest.resume()
        time.sleep(SETTLE_S)
        before = [guest.machine.vcpu.work for guest in running]
        start = time.perf_counter()
        time.sleep(seconds)
        after = [guest.machine.vcpu.work for guest in running]
        passed = time.perf_counter() - start
        for guest in running:
            guest.pause()
        done = [b - a for a, b in zip(before, after, strict=True)]
        return {"work": sum(done), "seconds": passed, "least": min(done)}
