"""Many Debian guests in one host, told over standard input what to do:

python -m benchmarks.programs.many GUESTS PCPUS MEMORY_MIB APPEND

    boot N        boot guests until there are N, each to its shell's prompt, and pause them
    memory        what this process holds besides the guests' frames
    loop          start an endless loop in every guest's shell
    work N SECS   let the first N guests run for SECS seconds

Every answer is a line of JSON; the methods of `Many` say what is in it.
"""

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.guests import debian_config
from benchmarks.harness import BenchmarkError, Settings
from emuvisor.host import Guest, Host
from emuvisor.images.cache import find
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.units import KIB, MIB

TIMEOUT_S = 300
FRAMES_PER_GUEST = 100 * MIB
"""More than a booted guest has touched."""
ENDLESS_LOOP = "echo loop''ing; while :; do i=$((i+1)); done\n"
SETTLE_S = 0.5
"""Guests run this long before a measurement starts, so that caches and translations are their own again."""

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)")


@dataclass(frozen=True, slots=True)
class Residence:
    """Resident bytes of a process besides its frame pool. `translations` is guest code in the engines."""

    other: int
    translations: int


def residence(smaps: str, pool_address: int) -> Residence:
    """From the text of /proc/PID/smaps; translated code is what is anonymous, writable and executable."""
    other = translations = 0
    is_pool = is_generated = False
    for line in smaps.splitlines():
        mapping = _MAPPING.match(line)
        if mapping is not None:
            is_pool = int(mapping[1], 16) <= pool_address < int(mapping[2], 16)
            is_generated = mapping[3].startswith("rwx") and mapping[4] == "0"
        elif line.startswith("Rss:") and not is_pool:
            size = int(line.split()[1]) * KIB
            if is_generated:
                translations += size
            else:
                other += size
    return Residence(other, translations)


class Many:
    """The guests of one host, all paused but while they work."""

    def __init__(self, host: Host, settings: Settings) -> None:
        self.host = host
        self.settings = settings
        self.guests: list[Guest] = []

    def boot(self, count: int) -> dict[str, float]:
        """As many at a time as there are pCPUs. {"guests": how many there are now, "seconds": it took}."""
        start = time.perf_counter()
        while len(self.guests) < count:
            size = min(self.host.pcpus, count - len(self.guests))
            group = [self._create(len(self.guests) + number) for number in range(size)]
            for guest in group:
                guest.start()
            for guest in group:
                _wait_for(guest, BOOT_MARKER)
                _wait_for(guest, "# ")
                guest.pause()
            self.guests += group
        return {"guests": len(self.guests), "seconds": time.perf_counter() - start}

    def _create(self, number: int) -> Guest:
        return self.host.create(debian_config(self.settings, f"guest{number}"))

    def memory(self) -> dict[str, float]:
        """{"other": resident bytes that are neither frames nor translations, "translations": those}."""
        address = self.host.pool.frames.ctypes.data
        found = residence(Path("/proc/self/smaps").read_text(), address)
        return {"other": found.other, "translations": found.translations}

    def loop(self) -> dict[str, float]:
        """{"guests": how many loop now}."""
        for guest in self.guests:
            guest.resume()
            if not guest.expect("looping", TIMEOUT_S, ENDLESS_LOOP):
                raise BenchmarkError(f"{guest.name} does not loop; it printed {guest.console.text[-300:]!r}")
            guest.pause()
        return {"guests": len(self.guests)}

    def work(self, count: int, seconds: float) -> dict[str, float]:
        """{"work": bytes of guest code of all of them, "least": of the slowest, "seconds": in this time}."""
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
        return {"work": sum(done), "least": min(done), "seconds": passed}

    def obey(self, line: str) -> dict[str, float]:
        """Do what `line` says."""
        match line.split():
            case ["boot", count]:
                return self.boot(int(count))
            case ["memory"]:
                return self.memory()
            case ["loop"]:
                return self.loop()
            case ["work", count, seconds]:
                return self.work(int(count), float(seconds))
            case _:
                raise BenchmarkError(f"{line!r} is no command")


def _wait_for(guest: Guest, text: str) -> None:
    if text not in guest.console.text and not guest.expect(text, TIMEOUT_S):
        raise BenchmarkError(
            f"{guest.name} did not boot: {guest.reason}; it printed {guest.console.text[-300:]!r}"
        )


def main() -> int:
    """Obey until standard input ends."""
    guests, pcpus, memory_mib, append = sys.argv[1:]
    settings = Settings(memory_mib=int(memory_mib), append=append, image=find("debian"))
    with Host(int(guests) * FRAMES_PER_GUEST, pcpus=int(pcpus)) as host:
        many = Many(host, settings)
        for line in sys.stdin:
            print(json.dumps(many.obey(line)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
