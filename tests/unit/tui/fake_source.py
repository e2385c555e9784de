"""A source that is written by hand: four guests that do the same each second."""

from collections.abc import Callable

from metrics_samples import DISK, NIC, guest, host

from emuvisor.errors import UsageError
from emuvisor.metrics import GuestSample, HostSample
from emuvisor.units import KIB, MIB

SAVINGS = {"sharing": 3 * MIB, "zero": MIB, "balloon": 0, "compression": 0, "swap": 0}
LATENCY = {"latency": {"read": {"p99_ns": 120_000}, "write": {"p99_ns": 3_141_592}}}


class FakeSource:
    """Each sample is a second after the one before. What is asked for is in `asked`; `refusal` refuses it."""

    def __init__(self, names: tuple[str, ...] = ("web", "db", "build", "old")) -> None:
        self.names = names
        self.seconds = 0
        self.asked: list[tuple[object, ...]] = []
        self.refusal = ""
        self.waiting: list[str] = []
        """Warnings."""
        self.consoles = {"web": "Debian GNU/Linux 12 web ttyS0\r\n\r\nweb login: root\r\n\x1b[1m# \x1b[0m"}
        self.paused: set[str] = set()

    def sample(self) -> HostSample:
        self.seconds += 1
        if self.refusal == "no host":
            raise UsageError("the host has gone away")
        makers: dict[str, Callable[[], GuestSample]] = {
            "web": self._web, "db": self._db, "build": self._build, "old": self._old
        }  # fmt: skip
        guests = [makers.get(name, lambda name=name: guest(name))() for name in self.names]
        return host(*guests, seconds=self.seconds, free=30 * MIB, savings=SAVINGS, overcommit=1.5)

    def warnings(self) -> list[str]:
        told, self.waiting = self.waiting, []
        return told

    def console(self, name: str) -> str:
        self._check(name)
        return self.consoles.get(name, "")

    def type(self, name: str, data: bytes) -> None:
        self._do("type", name, data)
        self.consoles[name] = self.consoles.get(name, "") + data.decode()

    def pause(self, name: str) -> None:
        self._do("pause", name)
        self.paused.add(name)

    def resume(self, name: str) -> None:
        self._do("resume", name)
        self.paused.discard(name)

    def set_weight(self, name: str, weight: int) -> None:
        self._do("weight", name, weight)

    def set_cap(self, name: str, cap: float) -> None:
        self._do("cap", name, cap)

    def screenshot(self, name: str) -> bytes:
        self._do("screenshot", name)
        return b"a picture"

    def _do(self, *what: object) -> None:
        self._check(str(what[1]))
        if self.refusal:
            raise UsageError(self.refusal)
        self.asked.append(what)

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise UsageError(f"there is no guest {name!r} any more")

    def _ms(self, percent: float) -> int:
        return round(self.seconds * percent * 10_000_000)

    def _state(self, name: str) -> dict[str, str]:
        return {"state": "paused", "reason": "paused"} if name in self.paused else {"reason": "started"}

    def _web(self) -> GuestSample:
        n = self.seconds
        ups = sum(10 + 8 * (i % 6) for i in range(n))  # goes up and down
        return guest(
            "web",
            weight=200,
            cap=50.0,
            cpu_ns=ups * 10_000_000,
            waited_ns=self._ms(12),
            retired=n * 123_000_000,
            slices=n * 80,
            exits={"port_read": n * 120, "port_write": n * 1500, "tlb_fill": n * 99_999, "syscall": n * 2345},
            disks=[DISK | LATENCY | {"reads": n * 300, "read_bytes": n * 1228800, "writes": n * 20,
                                     "written_bytes": n * 80_000}],
            nics=[NIC | {"received_bytes": n * 7_000_000, "received_frames": n * 5000, "sent_bytes": n * 90_000,
                         "sent_frames": n * 800}],
            memory={"configured": 32 * MIB, "resident": 20 * MIB, "shared": 3 * MIB, "zero": MIB},
            **self._state("web"),
        )  # fmt: skip

    def _db(self) -> GuestSample:
        return guest(
            "db",
            weight=100,
            cpu_ns=self._ms(62),
            waited_ns=self._ms(31),
            retired=self.seconds * 200_000_000,
            slices=self.seconds,
            exits={"mmio_write": self.seconds * 17},
            memory={"resident": 40 * MIB, "swapped": 10 * MIB, "compressed": 5 * MIB, "ballooned": 700 * KIB},
            **self._state("db"),
        )

    def _build(self) -> GuestSample:
        return guest("build", weight=100, state="paused", reason="paused", memory={"resident": MIB})

    def _old(self) -> GuestSample:
        return guest("old", weight=100, state="crashed", reason="shutdown: triple fault")
