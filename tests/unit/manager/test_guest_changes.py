"""`set`: what can be changed of a guest, when."""

from dataclasses import fields

import pytest
from manager_rig import definition, managed

from emuvisor.errors import ConfigError, HostError, UsageError
from emuvisor.host import Host
from emuvisor.machine.config import GuestConfig
from emuvisor.manager import changes
from emuvisor.units import KIB, MIB


def kept(manager, name="web"):
    return manager.info(name)["definition"]


def test_claims_of_a_guest_that_runs(manager, define):
    manager.create(define("web"))
    manager.start("web")
    manager.set("web", {"cpu_weight": 300, "cpu_cap": 50, "cpu_affinity": [0], "cpu_limit": "10M"})
    manager.set("web", {"memory_shares": 7, "memory_limit": 512 * KIB, "memory_reservation": 4096})
    guest = manager.guest("web")
    claim = guest.cpu_claim
    assert (claim.weight, claim.cap, claim.affinity, claim.limit) == (300, 50, frozenset({0}), 10 * MIB)
    assert (guest.contract.shares, guest.contract.limit, guest.contract.reservation) == (7, 512 * KIB, 4096)
    assert kept(manager)["cpu_weight"] == 300
    manager.set("web", {"cpu_cap": None, "cpu_affinity": None, "cpu_limit": None, "memory_limit": None})
    claim = guest.cpu_claim
    assert (claim.cap, claim.affinity, claim.limit) == (None, None, None)
    assert guest.contract.limit == MIB
    assert "cpu_cap" not in kept(manager)
    assert manager.events()[-1].details == {"keys": ["cpu_affinity", "cpu_cap", "cpu_limit", "memory_limit"]}


def test_what_the_host_refuses_is_not_kept(manager, define):
    manager.create(define("web", memory=8 * MIB))
    manager.create(define("other", memory=16 * MIB))
    manager.start("web")
    manager.start("other")
    manager.set("other", {"memory_reservation": 12 * MIB})
    with pytest.raises(UsageError):
        manager.set("web", {"memory_reservation": 8 * MIB})
    assert "memory_reservation" not in kept(manager)


def test_nothing_is_changed_when_one_change_is_refused(manager, define):
    manager.create(define("web"))
    manager.start("web")
    manager.set("web", {"memory_shares": 7, "cpu_cap": 60})
    with pytest.raises(UsageError):
        manager.set("web", {"memory_shares": 9, "cpu_cap": None, "cpu_weight": 300, "balloon_size": MIB})
    guest = manager.guest("web")
    assert (guest.contract.shares, guest.contract.limit) == (7, None)
    assert (guest.cpu_claim.cap, guest.cpu_claim.weight) == (60, 100)
    assert (kept(manager)["memory_shares"], kept(manager)["cpu_cap"]) == (7, 60)


def test_nothing_is_changed_when_the_disk_is_full(manager, define, monkeypatch):
    manager.create(define("web"))
    manager.start("web")

    def full(*_args, **_options):
        raise HostError("no space left")

    monkeypatch.setattr(manager.store, "define", full)
    with pytest.raises(HostError, match=r"^no space left$"):
        manager.set("web", {"cpu_weight": 300})
    assert manager.guest("web").cpu_claim.weight == 100
    assert "cpu_weight" not in kept(manager)


def test_all_else_of_a_guest_that_is_off(manager, define):
    manager.create(define("web"))
    manager.set("web", {"memory": "2M", "cpu_weight": 7, "seed": 3, "until": "login:"})
    assert (kept(manager)["memory"], kept(manager)["seed"], kept(manager)["until"]) == (2 * MIB, 3, "login:")
    manager.set("web", {"until": None})
    assert "until" not in kept(manager)
    with pytest.raises(ConfigError) as error:
        manager.set("web", {"seed": 4, "vcpus": 99})
    assert str(error.value) == "guest 'web': vcpus: 99 is outside 1 to 8"
    assert kept(manager)["seed"] == 3


@pytest.mark.parametrize(
    ("key", "live", "message"),
    [
        ("cpu_wieght", False, "'cpu_wieght' cannot be set; did you mean 'cpu_weight'?"),
        ("disks.0.read_byte", True, "'disks.0.read_byte' cannot be set; did you mean 'disks.0.read_bytes'?"),
        ("name", True, "name: 'rename' gives a guest another one"),
        ("vcpus", True, "vcpus cannot be changed while the guest is on; stop it first"),
        ("balloon_size", False, "balloon_size is of a guest that runs; this one is off"),
        ("disks.0.shares", False, "disks.0.shares: the guest has 0 disks, counted from 0"),
        ("nics.7.in_bytes", True, "nics.7.in_bytes: the guest has 0 nics, counted from 0"),
    ],
)
def test_what_cannot_be_set(manager, define, key, live, message):
    manager.create(define("web"))
    if live:
        manager.start("web")
    with pytest.raises(UsageError) as error:
        manager.set("web", {key: 1})
    assert str(error.value) == message


@pytest.mark.parametrize("key", ["disks", "disks.x.shares", "disks.00000.shares", "kernel", "!", "flat.path"])
def test_keys_that_are_near_to_nothing(manager, define, key):
    manager.create(define("web"))
    with pytest.raises(UsageError, match=f"^{key!r} cannot be set; "):
        manager.set("web", {key: 1})


@pytest.fixture
def pc(tmp_path):
    """A PC with all that can be set."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(MIB))
    with managed(tmp_path, 512 * MIB) as manager:
        manager.create(
            definition(
                tmp_path,
                "pc",
                board="pc",
                memory=64 * MIB,
                memory_max=128 * MIB,
                clock="host",
                balloon=True,
                disks=[{"path": str(image)}],
                nics=[{"network": "lan"}],
            )
        )
        yield manager


def test_limits_of_disks_and_cards(pc):
    pc.start("pc")
    pc.set("pc", {"disks.0.read_bytes": "10M:64M", "disks.0.shares": 5, "nics.0.in_bytes": 1000})
    guest = pc.guest("pc")
    assert guest.machine.drives[0].meter.throttle.limits.read_bytes.per_second == 10 * MIB
    assert guest.machine.virtio.nics[0].meter.throttle.limits.in_bytes.per_second == 1000
    definition = kept(pc, "pc")
    assert (definition["disks"][0]["read_bytes"], definition["disks"][0]["shares"]) == (
        f"{10 * MIB}:{64 * MIB}",
        5,
    )
    pc.set("pc", {"disks.0.read_bytes": None})
    assert guest.machine.drives[0].meter.throttle.limits.read_bytes is None
    assert "read_bytes" not in kept(pc, "pc")["disks"][0]


def test_its_size(pc):
    pc.start("pc")
    pc.set("pc", {"memory": "96M"})
    assert pc.guest("pc").memory_device.requested_size == 32 * MIB
    assert kept(pc, "pc")["current_memory"] == 96 * MIB
    assert pc.guests()[0].memory == 96 * MIB
    pc.stop("pc")
    pc.start("pc")
    assert pc.guest("pc").memory_device.requested_size == 32 * MIB
    pc.set("pc", {"memory": 64 * MIB})
    assert "current_memory" not in kept(pc, "pc")
    assert pc.guest("pc").memory_device.requested_size == 0
    with pytest.raises(ConfigError) as error:
        pc.set("pc", {"memory": "256M"})
    assert str(error.value) == "guest 'pc': current_memory: 268435456 is not between memory and memory_max"


def test_its_balloon(pc):
    pc.start("pc")
    pc.set("pc", {"balloon_size": "16M"})
    pc.set("pc", {"balloon_size": 0})
    assert "balloon_size" not in kept(pc, "pc")
    with pytest.raises(ConfigError) as error:
        pc.set("pc", {"balloon_size": True})
    assert (
        str(error.value)
        == "guest 'pc': balloon_size: True is not a size, such as \"64M\" or a number of bytes"
    )


def test_every_key_is_known_to_the_configuration():
    known = {*changes.CLAIMS, *changes.OFF_ONLY, "memory", *changes.FIXED}
    assert known == {field.name for field in fields(GuestConfig)}


def test_a_host_is_not_touched_for_a_guest_that_is_off(tmp_path, monkeypatch):
    with managed(tmp_path) as manager:
        manager.create(definition(tmp_path, "web"))
        monkeypatch.setattr(Host, "create", None)
        manager.set("web", {"cpu_cap": 5})
        assert kept(manager)["cpu_cap"] == 5
