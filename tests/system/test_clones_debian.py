"""Clones of Debian guests: no mix-up, a new identity, and only pages that differ are paid for."""

import pytest
from clone_guests import booted, check_clones, own
from guests import command, reach_shell
from network_guests import answers, boot, create, is_silent, lease, set_address

from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import BoardName
from emuvisor.machine.config import GuestConfig, KernelConfig, NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.net.statistics import Drop
from emuvisor.units import MIB

pytestmark = pytest.mark.system

CLONES = 6
MOST_FRAMES = 4000
"""That a clone may have written after some commands and programs: 16 MiB of its 128."""
SOURCE, FIRST, SECOND = "192.0.2.1", "192.0.2.2", "192.0.2.3"
REBIND = """cd /sys/bus/virtio/drivers/virtio_net; d=$(ls | grep ^virtio); echo $d > unbind; echo $d > bind; cd /"""
ADDRESS = "cat /sys/class/net/eth0/address"
FORKED = "crng reseeded due to virtual machine fork"


@pytest.mark.parametrize("board", ["microvm", "pc"])
def test_each_clone_writes_its_own_number(host: Host, debian: Image, board: BoardName) -> None:
    with booted(host, debian, board) as source:
        with source.checkpoint() as checkpoint:
            before = host.pool.used
            clones = host.clone_many(checkpoint, [f"c{number}" for number in range(CLONES)])
            clones.append(clones[0].clone("of-a-clone"))
            check_clones(clones)
            assert (host.pool.used - before) / len(clones) < MOST_FRAMES
        first, *others = clones
        source.pause()
        twin = source.clone("of-a-paused-one")
        source.resume()
        assert own(twin) == "source source 1024"
        assert first.delete() > 0
        assert own(others[-1]) == "of-a-clone of-a-clone 1024"
        for clone in others:
            clone.delete()


@pytest.mark.parametrize("board", ["pc", "microvm"])
def test_a_clone_s_kernel_makes_its_random_numbers_anew(
    host: Host, debian_i386: Image, board: BoardName
) -> None:
    assert debian_i386.kernel is not None
    kernel = KernelConfig(debian_i386.kernel, debian_i386.initrd, debian_i386.append)
    source = host.create(
        GuestConfig(name="source", board=board, clock="host", memory=128 * MIB, kernel=kernel)
    )
    source.start()
    reach_shell(source)
    command(source, "head -c 1 /dev/random | wc -c")  # only a generator that is ready is made ready anew
    with source.checkpoint() as checkpoint:
        clones = host.clone_many(checkpoint, ["a", "b"])
        twin = host.clone(checkpoint, "twin", same_identity=True)
    numbers = [command(guest, "head -c 16 /dev/urandom | od -An -tx1") for guest in (source, *clones)]
    assert len(set(numbers)) == 3
    again = clones[0].clone("again")
    forks = [command(guest, f"dmesg | grep -c '{FORKED}'") for guest in (source, *clones, twin, again)]
    assert forks == ["0", "1", "1", "0", "2"]


def test_a_clone_speaks_on_its_source_s_network_when_it_takes_its_address(host: Host, debian: Image) -> None:
    host.add_network(NetworkConfig("lan"))
    source = create(host, debian, "source", NicConfig("lan"))
    boot(source)
    set_address(source, SOURCE)
    old = source.nics[0].mac.hex(":")
    with source.checkpoint() as checkpoint:
        first, second = host.clone_many(checkpoint, ["first", "second"])
    assert [command(guest, ADDRESS) for guest in (source, first, second)] == [old] * 3
    assert is_silent(first, FIRST)
    assert is_silent(first, "192.0.2.9")
    assert first.nics[0].statistics.sent_dropped[Drop.SOURCE_MAC] > 0
    new = first.nics[0].mac.hex(":")
    command(first, f"ip link set eth0 down; ip link set eth0 address {new}")
    command(second, REBIND)
    assert command(second, ADDRESS) == second.nics[0].mac.hex(":") != old
    set_address(first, FIRST)
    set_address(second, SECOND)
    for guest, others in ((source, (FIRST, SECOND)), (first, (SOURCE, SECOND)), (second, (SOURCE, FIRST))):
        assert all(answers(guest, other) for other in others), guest.name


def test_a_clone_on_a_user_network_goes_on_as_it_is(host: Host, debian: Image) -> None:
    source = create(host, debian, "source", NicConfig("user"), board="microvm")
    boot(source)
    assert lease(source) == lease(source)
    clone = source.clone("clone")
    assert command(clone, ADDRESS) == source.nics[0].mac.hex(":") != clone.nics[0].mac.hex(":")
    assert lease(clone).startswith("10.0.2.")
    command(clone, REBIND)
    assert command(clone, ADDRESS) == clone.nics[0].mac.hex(":")
    assert lease(clone).startswith("10.0.2.")
