"""Guests that cannot be made leave nothing behind; and what users' listeners and policies raise ends no thread."""

import errno
import re
from dataclasses import replace

import host_guests as guests
import pytest

from emuvisor.errors import AdmissionError, ConfigError, HostError, ImageError, UsageError
from emuvisor.host import GuestState, Host, guest
from emuvisor.host.scheduler import policies
from emuvisor.host.scheduler.policy import Policy
from emuvisor.machine.config import DiskConfig, NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB

PATIENCE_S = 120


@pytest.fixture
def make(tmp_path):
    return guests.Maker(tmp_path)


@pytest.fixture
def host():
    with Host(16 * MIB) as host:
        host.add_network(NetworkConfig("lan"))
        yield host
    assert host.pool.used == 0


@pytest.fixture
def config(make, tmp_path):
    """A guest with a card, a disk and half a pCPU."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(MIB))
    made = make.config("g", guests.SPIN, clock="host", cpu_reservation=50.0)
    return replace(made, board="pc", memory=4 * MIB, disks=(DiskConfig(disk),), nics=(NicConfig("lan"),))


def refused(kind, message):
    return pytest.raises(kind, match=f"^{re.escape(message)}$")


def assert_that_all_can_be_had(host, config):
    """Nothing is left of a guest: its name, card, disk and share of the pCPU are there."""
    assert (host.guests, host.processors.scheduler.entities) == ({}, {})
    made = host.create(replace(config, cpu_reservation=100.0))
    assert len(host.disks.usage()) == 1
    made.delete()


def test_a_share_that_cannot_be_promised(host, make, config, monkeypatch):
    other = make(host, "other", guests.SPIN, cpu_reservation=60.0)
    text = (
        "guest 'g': a reservation of 50 % of a pCPU cannot be promised: beside 1 guest with reservations 40 % of "
        "pCPU 0 is left"
    )
    with monkeypatch.context() as nothing_made:
        nothing_made.setattr(guest, "Machine", None)
        with refused(AdmissionError, text):
            host.create(config)
    assert host.guests == {"other": other}
    other.delete()
    assert_that_all_can_be_had(host, config)


def test_a_pcpu_that_there_is_not(host, config):
    text = "guest 'g': an affinity to pCPU 1 is impossible; the host has pCPU 0 alone"
    with refused(UsageError, text):
        host.create(replace(config, cpu_affinity=(1,)))
    assert_that_all_can_be_had(host, config)


def test_a_network_that_there_is_not(host, config):
    with refused(UsageError, "guest 'g': there is no network 'wan'; there are: lan, user"):
        host.create(replace(config, nics=(NicConfig("lan"), NicConfig("wan"))))
    assert_that_all_can_be_had(host, config)


def test_a_disk_that_there_is_not(host, config, tmp_path):
    with pytest.raises((ConfigError, ImageError), match=re.escape(str(tmp_path / "none.img"))):
        host.create(replace(config, disks=(*config.disks, DiskConfig(tmp_path / "none.img"))))
    assert_that_all_can_be_had(host, config)


def test_a_disk_that_is_deleted_meanwhile(host, config, monkeypatch):
    def gone(_name, _drives):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "disk.img")

    with monkeypatch.context() as unlucky:
        unlucky.setattr(host.backends, "add", gone)
        with refused(ImageError, "disk.img: No such file or directory"):
            host.create(config)
    assert_that_all_can_be_had(host, config)


def test_no_memory_for_a_guest(host, config, monkeypatch):
    def full(*_, **_more):
        raise MemoryError

    with monkeypatch.context() as tight:
        tight.setattr(guest, "Machine", full)
        with refused(HostError, "guest 'g': the host has no memory for it"):
            host.create(config)
    assert_that_all_can_be_had(host, config)


# ---- what users' code raises ----


def test_a_listener_that_fails(host, make):
    """The guest's pCPU thread is the one that tells of its end: it goes on."""
    heard, warnings = [], []

    def fail(event):
        raise KeyError(event.new)

    host.listeners += [fail, heard.append]
    host.warnings.append(warnings.append)
    for name in ("first", "second"):
        made = make(host, name, guests.POWER_OFF)
        made.start()
        assert made.wait(PATIENCE_S)
    assert [event.new for event in heard] == ["running", "defined"] * 2
    assert set(warnings) == {
        "a listener to events failed: KeyError: <GuestState.RUNNING: 'running'>",
        "a listener to events failed: KeyError: <GuestState.DEFINED: 'defined'>",
    }


class Broken(Policy):
    """Divides by zero once a guest has run."""

    name = "broken"

    def ran(self, entity, ran_ns):
        raise ZeroDivisionError("of the policy")


def test_a_policy_that_fails(make, monkeypatch):
    """All guests are paused, and say why."""
    monkeypatch.setitem(policies.POLICIES, "broken", lambda _pcpus: Broken())
    text = "scheduling policy 'broken' failed: ZeroDivisionError: of the policy"
    with Host(16 * MIB, pcpus=2, scheduler="broken") as host:
        made = [make(host, name, guests.SPIN) for name in "abc"]
        with host.lock:
            for one in made:
                one.start()
        for one in made:
            assert one.wait(PATIENCE_S)
            assert (one.state, one.reason) == (GuestState.PAUSED, text)
        with refused(HostError, text):
            made[0].resume()
        with refused(HostError, text):
            make(host, "d", guests.SPIN)
        with refused(HostError, text):
            made[0].set_cpu(weight=5)
        made[0].stop()
        with refused(HostError, text):
            made[0].start()
        made[1].delete()
