"""A host on the virtual clock has guests and networks that are, too; and its people are told so."""

import re
from dataclasses import replace

import host_guests as guests
import pytest

from emuvisor.errors import ConfigError, UsageError
from emuvisor.host import Host
from emuvisor.machine.config import NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB

PATIENCE_S = 120


@pytest.fixture
def make(tmp_path):
    return guests.Maker(tmp_path)


@pytest.fixture
def host():
    with Host(16 * MIB, clock="virtual") as host:
        yield host


def refused(error, text):
    return pytest.raises(error, match=f"^{re.escape(text)}$")


def test_an_unknown_clock():
    with refused(UsageError, "clock 'sun': a host's is one of virtual, host"):
        Host(MIB, clock="sun")


def test_a_guest_on_another_clock(host, make):
    text = 'guest \'g\' has clock = "host"; on a host with the virtual clock it must be "virtual"'
    with refused(ConfigError, text):
        make(host, "g", guests.SPIN, clock="host")
    assert not host.guests


def test_networks_that_lead_out(host, make):
    config = make.config("g", guests.SPIN)
    nics = (NicConfig(network="user"),)
    text = "guest 'g': network 'user' leads out of the host; one with the virtual clock has none such"
    with refused(ConfigError, text):
        host.create(replace(config, board="microvm", memory=2 * MIB, nics=nics))
    text = "network 'out' has an uplink; a host with the virtual clock has no networks that lead out of it"
    with refused(UsageError, text):
        host.add_network(NetworkConfig("out", uplink="user"))


def test_a_network_for_a_guest_whose_clock_is_not_its_hosts(make):
    config = replace(
        make.config("g", guests.SPIN), board="microvm", memory=2 * MIB, nics=(NicConfig(network="net"),)
    )
    text = (
        "guest 'g': on a network it needs clock = \"host\", or a host with the virtual clock; "
        "here, its own would skip the time that an answer takes"
    )
    with Host(16 * MIB) as host, refused(ConfigError, text):
        host.add_network(NetworkConfig("net"))
        host.create(config)


def test_affinity_is_to_the_logical_pcpus(host, make):
    make(host, "g", guests.SPIN, cpu_affinity=(3,))
    with refused(UsageError, "guest 'h': an affinity to pCPU 4 is impossible; the host has pCPUs 0 to 3"):
        make(host, "h", guests.SPIN, cpu_affinity=(4,))


def test_time_stands_while_nobody_runs(host, make):
    """And networks know no other time."""
    guest = make(host, "g", guests.say("done", guests.POWER_OFF))
    assert host.processors.now_ns == 0
    guest.start()
    assert guest.wait(PATIENCE_S)
    now_ns = host.processors.now_ns
    assert now_ns == guest.cpu_ns > 0
    assert guest.statistics().cpu_ns == now_ns
    assert host.networks._now_ns() == now_ns
