"""Clones go on from where their source was, are who they are, and leave nothing behind."""

import re
from dataclasses import replace

import host_guests as guests
import pytest

from emuvisor.devices.vm_generation import ID_LENGTH
from emuvisor.errors import (
    AdmissionError,
    ConfigError,
    HostError,
    SnapshotError,
    StateError,
    UsageError,
)
from emuvisor.host import GuestState, Host, cloning, garbage, networks
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.machine.config import DiskConfig, NicConfig
from emuvisor.memory import FrameState
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB, PAGE_SIZE

PATIENCE_S = 30
COUNTER = 0x7004
ODD = "mov byte ptr [0x7000], 1; mov word ptr [0x9000], 0x4242; a: inc dword ptr [0x7004]; jmp a"


@pytest.fixture
def make(tmp_path):
    return guests.Maker(tmp_path)


@pytest.fixture
def host():
    with Host(16 * MIB) as host:
        host.add_network(NetworkConfig("lan"))
        yield host
    assert host.pool.used == 0


def refused(kind, message):
    return pytest.raises(kind, match=f"^{re.escape(message)}$")


def counter(guest):
    return int.from_bytes(guest.memory.read(COUNTER, 4), "little")


def paused(host, make, name="g", source=ODD, **fields):
    """A guest that has run for a while, and stands."""
    guest = host.create(replace(make.config(name, source, clock="host"), **fields))
    guest.start()
    while not counter(guest):
        guest.wait(0.01)
    guest.pause()
    return guest


def test_a_clone_goes_on_from_where_its_source_was(host, make):
    source = paused(host, make)
    with source.checkpoint() as checkpoint:
        count = counter(source)
        still = host.clone(checkpoint, "still", running=False)
        clone = host.clone(checkpoint, "clone")
    assert (still.state, still.reason) == (GuestState.PAUSED, "cloned from guest 'g'")
    assert (clone.state, clone.reason) == (GuestState.RUNNING, "resumed")
    assert (counter(still), still.memory.read(0x9000, 2)) == (count, b"BB")
    while counter(clone) == count:
        clone.wait(0.01)
    clone.pause()
    assert (counter(source), counter(still)) == (count, count)
    assert counter(clone) > count
    still.resume()
    still.pause()
    assert counter(still) >= count
    assert host.checkpoints == set()


def test_a_running_guest_is_cloned_and_goes_on(host, make):
    source = paused(host, make)
    source.resume()
    clone = source.clone("clone", running=False)
    then = counter(clone)
    while counter(source) <= then:
        source.wait(0.01)
    assert (source.state, clone.state, counter(clone)) == (GuestState.RUNNING, GuestState.PAUSED, then)


def test_a_clone_costs_what_it_writes(host, make):
    source = paused(host, make, board="pc", memory=4 * MIB)
    with source.checkpoint() as checkpoint:
        used = host.pool.used
        clones = host.clone_many(checkpoint, ["a", "b", "c"], running=False)
        assert host.pool.used == used
        for number, clone in enumerate(clones):
            clone.memory.write(0x20_0000, bytes([number + 1]) * PAGE_SIZE)
        assert host.pool.used == used + 3
        assert [clone.memory.read(0x20_0000, 1)[0] for clone in clones] == [1, 2, 3]
        assert source.memory.read(0x20_0000, 1) == b"\0"
        assert sum(clone.delete() for clone in clones) == 3
        assert host.pool.used == used


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_all_frames_come_back_in_any_order(host, make, order):
    source = paused(host, make)
    first = source.clone("first", running=False)
    second = first.clone("second", running=False)
    everybody = [source, first, second]
    used = host.pool.used
    assert sum(everybody[number].delete() for number in order) == used
    assert (host.pool.used, host.guests) == (0, {})
    assert not host.pool.references.any()


def test_a_clone_of_a_clone_after_its_source_is_gone(host, make):
    source = paused(host, make)
    first = source.clone("first", running=False)
    count = counter(source)
    source.delete()
    second = first.clone("second", running=False)
    first.delete()
    assert (counter(second), second.memory.read(0x9000, 2)) == (count, b"BB")


def test_frames_of_a_deleted_guest_are_empty_when_others_get_them(host, make):
    source = paused(host, make)
    clone = source.clone("clone", running=False)
    secret = b"secret" * 600
    for number in range(64):
        clone.memory.write(0x1_0000 + number * PAGE_SIZE, secret)
    assert clone.delete() == 64
    other = host.create(replace(make.config("other", guests.HALT), name="other"))
    for number in range(64):
        other.memory.write(0x1_0000 + number * PAGE_SIZE, b"x")
        assert other.memory.read(0x1_0000 + number * PAGE_SIZE, PAGE_SIZE) == b"x" + bytes(PAGE_SIZE - 1)


def test_each_writes_to_its_own_disk(host, make, tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"source".ljust(MIB, b"\0"))
    source = paused(host, make, board="microvm", disks=(DiskConfig(path),))
    first, second = (source.clone(name, running=False) for name in ("first", "second"))
    assert first.config.disks == (DiskConfig(path, overlay="temporary"),)
    first.machine.images[0].write(0, b"first".ljust(512, b"\0"))
    source.machine.images[0].write(0, b"changed".ljust(512, b"\0"))
    third = first.clone("third", running=False)
    read = [guest.machine.images[0].read(0, 1).rstrip(b"\0") for guest in (source, first, second, third)]
    assert read == [b"changed", b"first", b"source", b"first"]
    source.delete()
    first.delete()
    assert [guest.machine.images[0].read(0, 1)[:6] for guest in (second, third)] == [b"source", b"first\0"]
    assert path.read_bytes()[:7] == b"changed"


# ---- identity ----


def test_a_clone_has_addresses_and_an_identity_of_its_own(host, make):
    cards = (NicConfig("lan", mac="52:54:00:00:00:01"), NicConfig("lan"))
    source = paused(host, make, board="microvm", nics=cards, rng=True)
    clone = source.clone("clone", running=False)
    macs = [port.mac for guest in (source, clone) for port in guest.nics]
    assert len(set(macs)) == 4
    assert all(mac[0] & 3 == 2 for mac in macs)  # locally administered, not a group's
    assert [nic.mac for nic in clone.config.nics] == [port.mac.hex(":") for port in clone.nics]
    identifiers = [guest.machine.board.generation_id for guest in (source, clone)]
    assert identifiers[0].identifier != identifiers[1].identifier
    assert (identifiers[0].changed, identifiers[1].changed) == (False, True)
    assert (clone.config.identity, clone.config.known_as) == (None, "clone")


def test_an_address_that_somebody_has_is_not_taken(host, make):
    source = paused(host, make, board="microvm", nics=(NicConfig("lan"),))
    taken = NicConfig().address("clone", 0)
    host.networks["lan"].port("rival", taken)
    clone = source.clone("clone", running=False)
    assert clone.nics[0].mac == NicConfig().address("clone+1", 0)


def test_random_numbers_and_identifiers_of_deterministic_clones_repeat(make):
    seen = []
    for _ in range(2):
        with Host(16 * MIB) as host:
            config = replace(make.config("g", guests.IDLE), board="microvm", rng=True)
            source = host.create(config)
            source.start()
            source.pause()
            with source.checkpoint() as checkpoint:
                a, b = host.clone_many(checkpoint, ["a", "b"], running=False)
                twin = host.clone(checkpoint, "twin", same_identity=True, running=False)
            everybody = (source, a, b, twin)
            rngs = [guest.machine.virtio.devices[0] for guest in everybody]
            seen.append(
                [guest.machine.board.generation_id.identifier for guest in everybody]
                + [rng._from_seed(8) for rng in rngs]
            )
    assert seen[0] == seen[1]
    identifiers, numbers = seen[0][:4], seen[0][4:]
    assert (len(set(identifiers)), len(set(numbers))) == (3, 3)
    assert (identifiers[3], numbers[3]) == (identifiers[0], numbers[0])
    assert len(identifiers[0]) == ID_LENGTH


def test_the_same_identity_is_refused_on_the_same_network(host, make):
    source = paused(host, make, board="microvm", nics=(NicConfig("lan"),))
    mac = source.nics[0].mac
    with source.checkpoint() as checkpoint:
        text = f"network lan: port clone cannot have the MAC {mac.hex(':')}; it is port g's"
        with refused(UsageError, text):
            host.clone(checkpoint, "clone", same_identity=True)
        assert list(host.guests) == ["g"]
        source.delete()
        clone = host.clone(checkpoint, "clone", same_identity=True, running=False)
        assert (clone.nics[0].mac, clone.config.known_as) == (mac, "g")
        assert host.clone(checkpoint, "other", running=False).nics[0].mac != mac


def test_on_a_network_of_its_own_a_clone_may_go_on_with_the_old_address(host, make, monkeypatch):
    heard = []

    class FakeUplink:
        mac = bytes.fromhex("525400000009")

        def start(self, port):
            pass

        def joined(self, name, port):
            pass

        def left(self, name, port):
            pass

        def tolerates(self, port, mac):
            heard.append((port.name, mac))

        def close(self):
            pass

    monkeypatch.setattr(networks, "_uplink", lambda config: FakeUplink() if config.uplink == "user" else None)
    source = paused(host, make, board="microvm", nics=(NicConfig("lan"), NicConfig("user")))
    clone = source.clone("clone", running=False)
    assert heard == [("clone.1", source.nics[1].mac)]
    assert clone.nics[1].mac != source.nics[1].mac
    twin = source.clone("twin", running=False)
    assert (len(heard), twin.nics[1].mac != clone.nics[1].mac) == (2, True)


def test_what_can_be_had_once_stays_the_source_s(host, make, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(MIB))
    source = paused(
        host,
        make,
        board="pc",
        memory=4 * MIB,
        disks=(DiskConfig(disk, readonly=True),),
        nics=(NicConfig("lan"),),
    )
    config = replace(
        source.config,
        nics=(NicConfig("lan", forwards=("tcp:8080:80",)),),
        firmware_variables=tmp_path / "variables",
    )
    for same in (False, True):
        made = cloning.clone_config(host, config, "clone", [None], same_identity=same)
        assert (made.firmware_variables, made.nics[0].forwards, made.disks) == (None, (), config.disks)
    assert source.clone("clone", running=False).config.disks == source.config.disks


# ---- what goes wrong leaves nothing behind ----


def test_many_begin_when_all_are_queued(host, make):
    """What the first would wait while the others are queued would count as time that they have had. One that somebody
    lets run before that is left alone."""
    source = paused(host, make)
    slices = []

    def listen(event):
        if event.guest == "a" and event.new is GuestState.PAUSED:
            host.guests["a"].resume()
        elif event.guest in ("b", "c") and event.new is GuestState.RUNNING:
            slices.append([host.guests[name].slices for name in "bc"])

    with source.checkpoint() as checkpoint:
        host.listeners.append(listen)
        clones = host.clone_many(checkpoint, ["a", "b", "c"])
    assert slices == [[0, 0], [0, 0]]
    assert [clone.state for clone in clones] == [GuestState.RUNNING] * 3


def test_a_name_that_is_taken(host, make):
    source = paused(host, make)
    used = host.pool.used
    with source.checkpoint() as checkpoint:
        with refused(UsageError, "there is a guest 'g' already"):
            host.clone(checkpoint, "g")
        with refused(UsageError, "there is a guest 'a' already"):
            host.clone_many(checkpoint, ["a", "b", "a"])
        with refused(ConfigError, "name: 'a b' is not 1 to 64 letters, digits, '-', '_' or '.'"):
            host.clone_many(checkpoint, ["a", "a b"])
    assert (list(host.guests), host.pool.used) == (["g"], used)


def test_memory_and_pcpus_that_cannot_be_promised(make):
    with Host(16 * MIB, memory_policy=MemoryPolicy(overcommit=0.25)) as host:
        source = paused(host, make, cpu_reservation=30.0)
        with source.checkpoint() as checkpoint:
            text = (
                "guest 'd': a reservation of 30 % of a pCPU cannot be promised: beside 3 guests with reservations "
                "10 % of pCPU 0 is left"
            )
            with refused(AdmissionError, text):
                host.clone_many(checkpoint, ["b", "c", "d"])
            assert list(host.guests) == ["g"]
        source.delete()
        source = paused(host, make, memory=2 * MIB)
        with source.checkpoint() as checkpoint:
            text = (
                "guest 'c': a size of 2 MiB is too much: 2 guests have 4 MiB, and the host's 16 MiB may be "
                "overcommitted 0.25 times, to 4 MiB; 0 B are left"
            )
            with refused(AdmissionError, text):
                host.clone_many(checkpoint, ["b", "c"])
        assert list(host.guests) == ["g"]


def test_a_checkpoint_that_is_closed(host, make):
    source = paused(host, make)
    checkpoint = source.checkpoint()
    checkpoint.close()
    with refused(SnapshotError, "the checkpoint of guest 'g' is closed"):
        host.clone(checkpoint, "clone")
    assert list(host.guests) == ["g"]


def test_a_state_that_does_not_load(host, make):
    source = paused(host, make)
    with source.checkpoint() as checkpoint:
        checkpoint.state["board"]["parts"].pop("speaker")
        with refused(SnapshotError, "isa board: the saved state has no part 'speaker'"):
            host.clone(checkpoint, "clone")
        assert list(host.guests) == ["g"]
        assert len({*source.memory.slots[0].entries >> 24} - {FrameState.ABSENT, FrameState.SHARED}) == 0


def test_a_guest_that_is_off_has_no_clones(host, make):
    off = make(host, "off", guests.HALT)
    with pytest.raises(StateError):
        off.clone("clone")
    assert list(host.guests) == ["off"]


def test_a_host_without_threads(host, make, monkeypatch):
    source = paused(host, make)
    with source.checkpoint() as checkpoint:

        def none(_host):
            raise HostError("the host gives no thread for pcpu0")

        monkeypatch.setattr(Host, "start_threads", none)
        with refused(HostError, "the host gives no thread for pcpu0"):
            host.clone(checkpoint, "clone")
        assert list(host.guests) == ["g"]


def test_python_s_search_for_garbage_is_as_it_was(host, make, monkeypatch):
    calls = []
    monkeypatch.setattr(garbage.gc, "enable", lambda: calls.append("on"))
    monkeypatch.setattr(garbage.gc, "disable", lambda: calls.append("off"))
    source = paused(host, make)
    source.clone("a", running=False)
    monkeypatch.setattr(garbage.gc, "isenabled", lambda: False)
    source.clone("b", running=False)
    assert calls == ["off", "on", "off"]
