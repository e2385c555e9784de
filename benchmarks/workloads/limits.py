"""Whether a disk and a network card get the bytes and operations that their limits say, and no more."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.figures import Goal
from benchmarks.guests import has_image
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Settings, Task
from benchmarks.shell import END, PRINT_END
from emuvisor.devices.limits import Rate
from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.host import Guest, Host
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig, NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.units import KIB, MIB

__all__ = ["Limits"]

ASKED, GOT = "asked", "got"
MOST_OFF = 2.0
"""Percent."""
DISK_SIZE = 64 * MIB
BOOT_TIMEOUT_S, COMMAND_TIMEOUT_S = 120, 30
SETTLE_S = 0.4
WINDOW_S, QUICK_WINDOW_S = 1.5, 1.0
LAN = "lan"
NOBODY = "10.9.0.2"
CONFIGURE = (
    f"ifconfig eth0 10.9.0.1 netmask 255.255.255.0 up; arp -s {NOBODY} 52:54:00:00:00:99; "
    'loop() { while :; do "$@" >/dev/null 2>&1; done; }; '
    f"send() {{ for i in 1 2 3 4 5 6 7 8; do ping -q -i 0.0005 -s 1000 {NOBODY} & done; wait; }}"
)
"""Eight of busybox's ping, of which each sends a packet a tick of the kernel."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of `rate` a second, on what the guest does by the shell command `work` without end."""

    name: str
    unit: str
    key: str
    rate: int
    work: str

    @property
    def is_disk(self) -> bool:
        """Of the disk, or of the card."""
        return self.key.startswith(("read", "write", "total"))

    def set(self, guest: Guest, rate: Rate | None) -> None:
        """Let it hold, or lift it."""
        if self.is_disk:
            guest.set_disk_limits(0, **{self.key: rate})
        else:
            guest.set_nic_limits(0, **{self.key: rate})

    def done(self, guest: Guest) -> int:
        """What the device has done so far, in what the limit counts."""
        statistics = guest.statistics()
        counts = (statistics.disks if self.is_disk else statistics.nics)[0]
        return int(counts[COUNTERS[self.key]])


COUNTERS = {
    "read_bytes": "read_bytes",
    "write_bytes": "written_bytes",
    "read_iops": "reads",
    "out_bytes": "sent_bytes",
    "out_packets": "sent_frames",
}
"""What the statistics call what a limit counts."""
READ = "dd if=/dev/vda of=/dev/null bs={} count=1000 iflag=direct"
WRITE = "dd if=/dev/zero of=/dev/vda bs={} count=1000 oflag=direct"
LIMITS = (
    Limit("disk, reading 1 MiB/s", "bytes/s", "read_bytes", MIB, READ.format(4 * KIB)),
    Limit("disk, reading 16 MiB/s", "bytes/s", "read_bytes", 16 * MIB, READ.format(64 * KIB)),
    Limit("disk, writing 4 MiB/s", "bytes/s", "write_bytes", 4 * MIB, WRITE.format(16 * KIB)),
    Limit("disk, 100 reads/s", "1/s", "read_iops", 100, READ.format(4 * KIB)),
    Limit("disk, 1,000 reads/s", "1/s", "read_iops", 1000, READ.format(4 * KIB)),
    Limit("card, sending 512 KiB/s", "bytes/s", "out_bytes", 512 * KIB, "send"),
    Limit("card, 500 packets/s", "1/s", "out_packets", 500, "send"),
)


class Limited:
    """A Debian guest at its shell, with a disk and a card; booted when first used."""

    def __init__(self, settings: Settings, host: Host, folder: Path) -> None:
        self._settings = settings
        self._host = host
        self._disk = folder / "disk.img"
        self._guest: Guest | None = None
        self._window_s = QUICK_WINDOW_S if settings.quick else WINDOW_S

    def measure(self, limit: Limit) -> Figures:
        """What it gets in a second."""
        guest = self._booted()
        limit.set(guest, Rate(limit.rate))
        _command(guest, f"loop {limit.work} & task=$!")
        try:
            time.sleep(SETTLE_S)
            before, start = limit.done(guest), time.perf_counter()
            time.sleep(self._window_s)
            done, seconds = limit.done(guest) - before, time.perf_counter() - start
        finally:
            limit.set(guest, None)
            _command(guest, "kill $task; killall dd ping; wait")
        got = done / seconds
        return {limit.name: got, off(limit): abs(got / limit.rate - 1) * 100}

    def _booted(self) -> Guest:
        if self._guest is None:
            image = self._settings.image
            assert image is not None
            assert image.kernel is not None
            create_raw(self._disk, DISK_SIZE)
            self._host.add_network(NetworkConfig(LAN))
            self._guest = self._host.create(
                GuestConfig(
                    name="debian",
                    board="microvm",
                    memory=self._settings.memory_mib * MIB,
                    clock="host",
                    kernel=KernelConfig(image.kernel, image.initrd, image.append),
                    disks=(DiskConfig(self._disk),),
                    nics=(NicConfig(LAN),),
                )
            )
            self._guest.start()
            _expect(self._guest, BOOT_MARKER, BOOT_TIMEOUT_S)
            _command(self._guest, f"dd if=/dev/zero of=/dev/vda bs=1M; {CONFIGURE}")
        return self._guest


def _expect(guest: Guest, text: str, timeout_s: float, send: str = "") -> None:
    if text in guest.console.text and not send:
        return
    if not guest.expect(text, timeout_s, send):
        raise BenchmarkError(f"no {text!r} from {guest.name}; it printed {guest.console.text[-300:]!r}")


def _command(guest: Guest, line: str) -> None:
    _expect(guest, END, COMMAND_TIMEOUT_S, f"{line}; {PRINT_END}\n")


def off(limit: Limit) -> str:
    """The name of the difference's figure."""
    return f"{limit.name}: off by"


class Limits:
    """In this process: one Debian guest, whose limits are changed while it runs."""

    name = "limits"
    measures = "what a guest gets of a disk and a card that have limits"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """A task for each limit."""
        if not has_image(context, self.name):
            yield []
            return
        settings = context.settings
        context.note(
            "Debian on the microvm board with the host's clock reads, writes (dd, direct) or sends (ping) more than it "
            "may. What it gets is counted by the device and timed by the host, after the burst has been used up."
        )
        with tempfile.TemporaryDirectory() as folder, Host(2 * settings.memory_mib * MIB) as host:
            guest = Limited(settings, host, Path(folder))
            yield [_task(limit, guest.measure) for limit in LIMITS]


def _task(limit: Limit, measure: Callable[[Limit], Figures]) -> Task:
    contenders = [Contender(ASKED, lambda: {limit.name: limit.rate}), Contender(GOT, partial(measure, limit))]
    return Task(
        limit.name,
        limit.unit,
        contenders,
        goals={off(limit): Goal(MOST_OFF, contender=GOT)},
        units={off(limit): "%"},
        against=ASKED,
        warm_ups=0,
    )
