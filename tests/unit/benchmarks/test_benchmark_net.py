"""What the network benchmark types and expects; the guests are fakes."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from benchmarks.harness import Context, Settings
from benchmarks.shell import Cost, Shell
from benchmarks.workloads import net
from benchmarks.workloads.net import EmuvisorPair, Job, Net, Pair, card, jobs, stream
from emuvisor.images.cache import Image
from emuvisor.machine.config_file import from_mapping
from emuvisor.net.config import NetworkConfig

SEND = Job("guest to host", "host", "send", 2)
TRIPS = Job("round trips", "guest", "trips", 100)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(Settings(image=Image("debian", tmp_path, tmp_path / "k", tmp_path / "i", "", {}, 0)))


class FakeShell:
    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.called: list[tuple[str, str, Sequence[int]]] = []

    def cost(self, function: str, expected: str, helpers: Sequence[int]) -> Cost:
        self.called.append((function, expected, helpers))
        return Cost(0.5, 0.25)


def test_each_side_has_its_address() -> None:
    assert SEND.command(4711) == "tcp send 10.0.2.2 4711 2097152"
    assert TRIPS.command(4711) == "tcp trips 10.9.0.1 5000 100"
    work = jobs(quick=False)
    assert len({job.function for job in work}) == len(work) == 5
    assert jobs(quick=True)[0].amount * 8 == work[0].amount


def test_throughput_and_round_trips() -> None:
    fake = FakeShell()
    pair = Pair(cast(Shell, fake), (7,))
    assert pair.measured(SEND) == {
        "guest to host": pytest.approx(4.194304),
        "guest to host: CPU time of a MiB": pytest.approx(125_000),
    }
    assert pair.measured(TRIPS) == {
        "round trips": pytest.approx(200),
        "round trips: a round trip": pytest.approx(5000),
        "round trips: CPU time of a round trip": pytest.approx(2500),
    }
    assert fake.called == [("send_host", "send 2097152", (7,)), ("trips_guest", "trips 100", (7,))]


def test_the_hosts_end_says_at_which_port_it_listens(tmp_path: Path) -> None:
    server = tmp_path / "tcp"
    server.write_text(f"#!{sys.executable} -S\nprint('listening on 4711', flush=True); input()\n")
    server.chmod(0o755)
    with ExitStack() as stack:
        assert net._serve_on_host(stack, server) == 4711


def test_emuvisors_guests_are_on_the_networks_that_there_are(context: Context) -> None:
    configuration = EmuvisorPair(context.settings, 2).configuration()
    networks = [NetworkConfig(**network) for network in configuration["networks"]]
    assert [(n.name, n.uplink, n.host_loopback) for n in networks] == [
        ("lan", "none", False),
        ("out", "user", True),
    ]
    server, client = (from_mapping(configuration[name], name) for name in ("server", "client"))
    assert [nic.network for nic in server.nics] == ["lan"]
    assert [nic.network for nic in client.nics] == ["lan", "out"]
    assert configuration["pcpus"] == 2


def test_qemus_cards_are_the_two_ends_of_a_wire() -> None:
    assert card("lan", "52:54:00:00:00:01", stream(Path("a"), listens=True)) == [
        *("-netdev", "stream,id=lan,server=on,addr.type=unix,addr.path=a"),
        *("-device", "virtio-net-pci,netdev=lan,mac=52:54:00:00:00:01,romfile="),
    ]
    assert stream(Path("a"), listens=False) == "stream,server=off,addr.type=unix,addr.path=a"
    assert card("out", "52:54:00:00:00:03", "user")[1] == "user,id=out"


def test_a_second_pcpu_takes_part_where_there_is_a_second_guest() -> None:
    pairs = [Pair(cast(Shell, FakeShell(name))) for name in ("emuvisor", "emuvisor, two pCPUs", "qemu")]
    assert [c.name for c in net._task(SEND, pairs).contenders] == ["emuvisor", "qemu"]
    task = net._task(TRIPS, pairs)
    assert [c.name for c in task.contenders] == ["emuvisor", "emuvisor, two pCPUs", "qemu"]
    assert (task.unit, task.units["round trips: a round trip"]) == ("trips/s", "us")
    assert task.goals["round trips"].text(task.unit) == "at least 0.5x qemu"


def test_two_pcpus_need_two_cores_and_time(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(net, "booted", lambda stack, context, guest, functions: FakeShell(guest.name))
    cores = {0, 1}
    monkeypatch.setattr(net.os, "sched_getaffinity", lambda pid: cores)

    def names(settings: Settings) -> list[str]:
        return [pair.name for pair in net._pairs(ExitStack(), context, settings, Path(), {})]

    assert names(Settings()) == ["emuvisor", "emuvisor, two pCPUs"]
    assert names(Settings(quick=True)) == ["emuvisor"]
    cores = {0}
    assert names(Settings()) == ["emuvisor"]
    assert context.notices[1:] == [
        "emuvisor, two pCPUs is skipped in a quick run",
        "emuvisor, two pCPUs is skipped: this process has one core",
    ]


def test_without_a_compiler_there_is_no_benchmark(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with Net().tasks(context) as tasks:
        assert list(tasks) == []
    assert context.notices == ["net is skipped: no C compiler (cc; Debian: gcc, libc6-dev)"]
