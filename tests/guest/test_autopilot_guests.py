"""The autopilot on a real host: what it sees of guests, and that its changes are applied, logged and taken back.

Whether they are worth it is shown in simulation, where nothing else runs on the machine. Here nobody asks that: the
steps are taken by hand, and caps are so low that a guest lacks something whatever the machine does.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emuvisor import firmware
from emuvisor.devices.limits import Rate
from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.host import Guest, Host
from emuvisor.host.autopilot.log import Kind
from emuvisor.host.autopilot.moves import Knob
from emuvisor.host.autopilot.observe import HostControls
from emuvisor.machine.choices import ClockMode
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig, NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB

PATIENCE_S = 120
MOST_STEPS = 400
CAP, RESERVATION = 5.0, 4.0

Make = Callable[..., Guest]


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(64 * MIB) as host:
        yield host


@pytest.fixture
def make(host: Host, tmp_path: Path) -> Make:
    """make(name, **fields): a guest that computes for ever and prints a line now and then."""

    def create(name: str, clock: ClockMode = "host", **fields: Any) -> Guest:
        image = tmp_path / "spin.bin"
        block = struct.pack("<2Q", 0, 2_000_000).ljust(firmware.PARAMETERS_SIZE, b"\0")
        entry = b"\xea\x00\x00\x00\x08".ljust(16, b"\0")  # jmp 0800h:0, over the parameter block
        image.write_bytes(entry + block + firmware.image("spin"))
        flat = FlatConfig(image, firmware.PARAMETERS - len(entry))
        return host.create(GuestConfig(name=name, memory=4 * MIB, clock=clock, flat=flat, **fields))

    return create


def fly(host: Host, done: Callable[[], bool]) -> None:
    """Steps of 0.05 s until `done`."""
    for _ in range(MOST_STEPS):
        host.autopilot.step()
        if done():
            return
        with host.lock:
            host.changed.wait_for(lambda: False, 0.05)
    pytest.fail("\n".join(map(str, host.autopilot.log)) + f"\n{host.autopilot.scores()}")


def caps(host: Host) -> list[float | None]:
    return [guest.cpu_claim.cap for guest in host.guests.values()]


def test_a_cap_is_raised_and_taken_back(host: Host, make: Make) -> None:
    guest = make("a", cpu_cap=CAP, cpu_reservation=RESERVATION)
    kept = make("b", cpu_cap=CAP)
    for one in (guest, kept):
        one.start()
    pilot = host.autopilot
    pilot.engage("throughput", "keep=b,knobs=cap,factor=4", period_s=0.05)
    fly(host, lambda: len(pilot.log) > 0)
    (first,) = pilot.log
    assert (first.kind, first.guest, first.knob, first.before) == (Kind.CHANGED, "a", "cap", "5 %")
    assert 2 * CAP <= (guest.cpu_claim.cap or 100) <= 4 * CAP
    assert first.why.startswith("its cap of 5 % throttles it ")
    assert set(pilot.scores()) == {"a", "b"}
    assert (kept.cpu_claim.cap, guest.cpu_claim.reservation) == (CAP, RESERVATION)
    pilot.revert(first.number)
    assert caps(host) == [CAP, CAP]
    assert [entry.kind for entry in pilot.log] == [Kind.CHANGED, Kind.REVERTED]


def test_a_dry_run_changes_nothing(host: Host, make: Make) -> None:
    make("a", cpu_cap=CAP).start()
    pilot = host.autopilot
    pilot.engage("throughput", "knobs=cap", period_s=0.05, dry_run=True)
    fly(host, lambda: len(pilot.recommendations) > 0)
    assert {entry.kind for entry in pilot.log} == {Kind.RECOMMENDED}
    assert caps(host) == [CAP]


def test_guests_on_the_virtual_clock_are_left_alone(host: Host, make: Make) -> None:
    warned: list[str] = []
    host.warnings.append(warned.append)
    make("a", clock="virtual", cpu_cap=CAP).start()
    host.autopilot.engage("throughput", period_s=0.05)
    fly(host, lambda: len(warned) > 0)
    assert warned == ["the autopilot: all guests are on the virtual clock, and left alone"]
    assert (list(host.autopilot.log), caps(host)) == ([], [CAP])


def test_a_flight_with_a_thread(host: Host, make: Make) -> None:
    make("a", cpu_cap=CAP).start()
    pilot = host.autopilot
    raised = []

    def heard(entry: object) -> None:
        raised.append(entry)
        with host.lock:
            host.changed.notify_all()

    pilot.log.listeners.append(heard)
    pilot.start("throughput", "knobs=cap", period_s=0.05)
    with host.lock:
        assert host.changed.wait_for(lambda: raised, PATIENCE_S)
    pilot.stop(revert=True)
    assert caps(host) == [CAP]
    pilot.start("throughput", period_s=0.05)  # the host ends it


def test_what_is_seen_of_devices(host: Host, make: Make, tmp_path: Path) -> None:
    create_raw(tmp_path / "disk.img", MIB)
    host.add_network(NetworkConfig("lab"))
    guest = make(
        "a",
        disks=(DiskConfig(tmp_path / "disk.img", bus="virtio", total_bytes=Rate(MIB), read_iops=Rate(9)),),
        nics=(NicConfig("lab", out_bytes=Rate(2 * MIB, 5)), NicConfig(in_packets=Rate(7))),
        memory_limit=3 * MIB,
    )
    controls = HostControls(host)
    assert controls.look().guests == ()
    guest.start()
    (counters,) = controls.look().guests
    pool = f"file system {tmp_path.stat().st_dev}"
    assert [(r.knob, r.number, r.name, r.pool, r.limit, r.done, r.waited_ns) for r in counters.rates] == [
        (Knob.DISK_LIMIT, 0, "total_bytes", pool, Rate(MIB), 0, 0),
        (Knob.DISK_LIMIT, 0, "read_iops", pool, Rate(9), 0, 0),
        (Knob.NIC_LIMIT, 0, "out_bytes", "network lab", Rate(2 * MIB, 5), 0, 0),
        (Knob.NIC_LIMIT, 1, "in_packets", "network of a 1", Rate(7), 0, 0),
    ]
    assert (counters.memory.limit, counters.memory.size) == (3 * MIB, 4 * MIB)
    assert controls.tunable("a") is guest
    assert controls.tunable("b") is None
