"""Debian's own drivers with every virtio device at once, on both transports and with both layouts of rings."""

import hashlib
import random
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest
from compatibility import Compatibility
from conftest import pulled
from guests import command, power_off, reach_shell
from virtio_guests import NAMES, TRANSPORTS, check_health, kernel, until

from emuvisor.devices.storage.qcow2 import check as qcow2_check
from emuvisor.devices.storage.qcow2 import create as qcow2_create
from emuvisor.devices.virtio import evdev
from emuvisor.devices.virtio.input import Input
from emuvisor.host import Guest, Host
from emuvisor.machine.config import DiskConfig, GuestConfig, NicConfig, ShareConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB, PAGE_SIZE

pytestmark = pytest.mark.system

DRIVERS = [
    "0x0002 virtio_blk",
    "0x0002 virtio_blk",
    "0x0001 virtio_net",
    "0x0003 virtio_console",
    "0x0004 virtio_rng",
    "0x0005 virtio_balloon",
    "0x0013 vmw_vsock_virtio_transport",
    "0x001a virtiofs",
    *["0x0012 virtio_input"] * 3,
]
"""Device ID and Linux's driver, in the order in which the board has them."""
DISK_SIZE = 16 * MIB
BALLOON = 64 * MIB
STREAM = random.Random("a console port").randbytes(1 * MIB)
MAC = "52:54:00:12:34:56"


@dataclass(frozen=True)
class Place:
    """What the devices are tried in."""

    image: str
    board: str
    ring: str

    @property
    def boots(self) -> str:
        return f"directly on {self.board}, virtio on {TRANSPORTS[self.board]} with {self.ring} rings"

    @property
    def long(self) -> int:
        """Bytes of the guest's long."""
        return 4 if self.image == "debian-i386" else 8


PLACES = (
    Place("debian", "pc", "split"),
    Place("debian", "pc", "packed"),
    Place("debian", "microvm", "split"),
    Place("debian", "microvm", "packed"),
    Place("debian-i386", "pc", "split"),
)


@dataclass
class Rig:
    """A running guest with every device."""

    place: Place
    guest: Guest
    heard: bytearray = field(default_factory=bytearray)
    """What came out of the port "data"."""

    def run(self, line: str) -> str:
        return command(self.guest, line)


@pytest.fixture(scope="module", params=PLACES, ids=lambda place: f"{place.image}-{place.board}-{place.ring}")
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Booted once for all the tests; switched off by its own command at the end."""
    place: Place = request.param
    image = pulled(place.image)
    folder = tmp_path_factory.mktemp("devices")
    share = folder / "share"
    share.mkdir()
    (share / "greeting").write_text("from the host\n")
    raw, qcow2 = folder / "disk.img", folder / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(DISK_SIZE)
    qcow2_create.create(qcow2, DISK_SIZE)
    with Host(512 * MIB, pcpus=1) as host:
        host.add_network(NetworkConfig("lan"))
        guest = host.create(
            GuestConfig(
                board=place.board,  # type: ignore[arg-type]
                ring=place.ring,  # type: ignore[arg-type]
                clock="host",
                memory=256 * MIB,
                kernel=kernel(image, "console=hvc0 console=ttyS0"),
                disks=(DiskConfig(raw, bus="virtio"), DiskConfig(qcow2, bus="virtio", queues=2)),
                nics=(NicConfig("lan", mac=MAC),),
                shares=(ShareConfig(share, "share", readonly=False),),
                rng=True,
                balloon=True,
                vsock=3,
                console_ports=("terminal", "data"),
                input=("keyboard", "mouse", "tablet"),
            )
        )
        guest.start()
        reach_shell(guest)
        made = Rig(place, guest)
        guest.port("data").listeners.append(made.heard.extend)
        yield made
        power_off(guest)
    assert qcow2_check.check(qcow2).clean


def check_drivers(rig: Rig) -> None:
    """Every device has its driver, and the interrupts of its own that it should have."""
    drivers = rig.run(
        "cd /sys/bus/virtio/devices; for n in $(seq 0 $(($(ls | wc -l) - 1))); do "
        "echo $(cat virtio$n/device) $(basename $(readlink virtio$n/driver)); done; cd"
    )
    assert drivers.splitlines() == DRIVERS
    check_health(rig.guest)
    interrupts = rig.run("grep virtio /proc/interrupts")
    for number in range(len(DRIVERS)):
        lines = re.findall(rf"^ *\d+: .*\bvirtio{number}\b.*", interrupts, re.MULTILINE)
        kind = "PCI-MSI" if rig.place.board == "pc" else "IO-APIC"
        assert lines, f"virtio{number}: {interrupts}"
        assert all(kind in line for line in lines), interrupts


def check_disks(rig: Rig) -> None:
    """What is written to a raw and to a qcow2 disk is read back."""
    rig.run("dd if=/dev/urandom of=/tmp/written bs=64k count=64 2>/dev/null")
    for disk in ("vda", "vdb"):
        rig.run(f"dd if=/tmp/written of=/dev/{disk} bs=256k seek=16 conv=fsync 2>/dev/null")
        rig.run("echo 3 > /proc/sys/vm/drop_caches")
        rig.run(f"dd if=/dev/{disk} of=/tmp/{disk} bs=256k skip=16 count=16 2>/dev/null")
    assert rig.run("cmp /tmp/written /tmp/vda; cmp /tmp/written /tmp/vdb; ls /tmp; rm /tmp/*") == (
        "vda      vdb      written"
    )


def check_nic(rig: Rig) -> None:
    """The card has its address, and frames get out of it."""
    assert rig.run("cat /sys/class/net/eth0/address") == MAC
    (port,) = rig.guest.nics
    sent = port.statistics.sent_frames
    rig.run("ifconfig eth0 10.1.2.3 up; (ping -c 1 -W 1 10.1.2.4 > /dev/null &)")
    until(rig.guest, lambda: port.statistics.sent_frames > sent, "frame from the guest")
    rig.run("ifconfig eth0 down")


def check_rng(rig: Rig) -> None:
    """The kernel's random number generator is the device, and gives other bytes each time."""
    assert rig.run("cat /sys/class/misc/hw_random/rng_current") == "virtio_rng.0"
    first, second = rig.run("for i in 1 2; do head -c 64 /dev/hwrng | sha256sum; done").splitlines()
    assert first != second
    assert rig.run("head -c 100000 /dev/hwrng | gzip | wc -c | cut -c1-3") == "100"


def port_path(rig: Rig, name: str) -> str:
    """The guest's device file of the port `name`, as udev would find it."""
    return rig.run(
        f"grep -lx {name} /sys/class/virtio-ports/*/name | sed 's:/sys/class/virtio-ports/:/dev/:; s:/name::'"
    )


def check_console(rig: Rig) -> None:
    """A terminal, the kernel's messages on it, and a port that carries a mebibyte each way."""
    guest = rig.guest
    rig.run("(setsid sh -c 'sh < /dev/hvc0 > /dev/hvc0 2>&1' &)")
    assert guest.expect("hvc=42", send="echo hvc=$((6 * 7))\n", port="terminal")
    guest.type("exit\n", port="terminal")
    rig.run("echo '<0>a message' > /dev/kmsg")  # an emergency: every console shows it
    assert guest.expect("a message", port="terminal")
    path = port_path(rig, "data")

    checksum = hashlib.sha256(STREAM).hexdigest()
    rig.run(f"(head -c {len(STREAM)} {path} | sha256sum > /tmp/sum) & reader=$!")
    guest.type(STREAM, port="data")
    assert rig.run("wait $reader; cat /tmp/sum") == f"{checksum}  -"

    rig.heard.clear()
    checksum = rig.run(f"head -c {len(STREAM)} /dev/urandom > /tmp/stream; sha256sum < /tmp/stream")
    rig.run(f"cat /tmp/stream > {path}; rm /tmp/stream")
    until(guest, lambda: len(rig.heard) == len(STREAM), "stream from the guest")
    assert f"{hashlib.sha256(rig.heard).hexdigest()}  -" == checksum

    rig.run(f'(read -r line < {path}; echo "<$line>" > {path}) & reader=$!')
    assert guest.expect("<a word>", send="a word\n", port="data")


def event_file(rig: Rig, name: str) -> str:
    """The device file /dev/input/eventN of the input device `name`."""
    handlers = rig.run(f"grep -A 4 'Name=\"{name}\"' /proc/bus/input/devices")
    found = re.search(r"event\d+", handlers)
    assert found, handlers
    return f"/dev/input/{found[0]}"


def read_events(rig: Rig, count: int) -> list[tuple[int, int, int]]:
    """The next `count` events (type, code, value) at the shell's file descriptor 3."""
    size = 2 * rig.place.long + 8
    lines = rig.run(f'dd bs={size} count={count} <&3 2>/dev/null | hexdump -ve \'{size}/1 "%02x" "\\n"\'')
    return [struct.unpack("<HHi", bytes.fromhex(line)[-8:]) for line in lines.splitlines()]


def lit(keyboard: Input, light: str | None) -> bool:
    """Whether just this light is on."""
    return keyboard.leds == frozenset({light} - {None})


def check_input(rig: Rig) -> None:
    """Keyboard, mouse and tablet report what people do; the guest switches the keyboard's lights."""
    guest = rig.guest
    report = (evdev.EV_SYN, evdev.SYN_REPORT, 0)
    rig.run(f"exec 3< {event_file(rig, 'emuvisor keyboard')}")
    keyboard = guest.input("keyboard")
    for down in (True, False):
        keyboard.key("KeyA", down)
    key = evdev.KEYS["KeyA"]
    assert read_events(rig, 4) == [(evdev.EV_KEY, key, 1), report, (evdev.EV_KEY, key, 0), report]
    device = event_file(rig, "emuvisor keyboard").removeprefix("/dev/input/")
    for value, light in ((1, "CapsLock"), (0, None)):
        rig.run(f"for l in /sys/class/input/{device}/device/*capslock; do echo {value} > $l/brightness; done")
        until(guest, partial(lit, keyboard, light), f"light {light}")

    rig.run(f"exec 3< {event_file(rig, 'emuvisor mouse')}")
    mouse = guest.input("mouse")
    mouse.move(5, -3)
    mouse.button(1, True)
    mouse.button(1, False)
    mouse.wheel(1)
    assert read_events(rig, 9) == [
        (evdev.EV_REL, evdev.REL_X, 5),
        (evdev.EV_REL, evdev.REL_Y, -3),
        report,
        (evdev.EV_KEY, evdev.BUTTONS[1], 1),
        report,
        (evdev.EV_KEY, evdev.BUTTONS[1], 0),
        report,
        (evdev.EV_REL, evdev.REL_WHEEL, -1),
        report,
    ]

    rig.run(f"exec 3< {event_file(rig, 'emuvisor tablet')}")
    guest.input("tablet").position(0x1234, 0x5678)
    assert read_events(rig, 3) == [
        (evdev.EV_ABS, evdev.ABS_X, 0x1234),
        (evdev.EV_ABS, evdev.ABS_Y, 0x5678),
        report,
    ]
    guest.input("tablet").position(0, 0)
    rig.run("exec 3<&-")


def check_abilities(rig: Rig) -> None:
    """The guest knows which events each device has."""
    found = {
        block.split("\n", 1)[0]: dict(re.findall(r"^B: (\w+)=(.*)", block, re.MULTILINE))
        for block in rig.run("cat /proc/bus/input/devices").split('N: Name="')
    }
    shown = {
        name: {kind: bits.split()[-1] for kind, bits in found[f'emuvisor {name}"'].items()}
        for name in ("keyboard", "mouse", "tablet")
    }
    assert (shown["keyboard"]["EV"], shown["keyboard"]["LED"]) == ("120003", "7")
    assert (shown["mouse"]["PROP"], shown["mouse"]["EV"], shown["mouse"]["REL"]) == ("1", "7", "143")
    assert (shown["tablet"]["PROP"], shown["tablet"]["EV"], shown["tablet"]["ABS"]) == ("1", "f", "3")


def check_share(rig: Rig) -> None:
    """Files of the host's are read, and written."""
    rig.run("mkdir -p /tmp/share; mount -t virtiofs share /tmp/share")
    assert rig.run("cat /tmp/share/greeting") == "from the host"
    rig.run("echo from the guest > /tmp/share/answer; umount /tmp/share; rmdir /tmp/share")
    answer = rig.guest.config.shares[0].path / "answer"
    assert answer.read_text() == "from the guest\n"
    answer.unlink()


def check_balloon(rig: Rig) -> None:
    """Memory goes to the host and comes back."""
    guest = rig.guest
    rig.run("dd if=/dev/zero of=/tmp/full bs=64k count=1536 2>/dev/null; rm /tmp/full")  # pages get frames
    before = guest.host.pool.used
    guest.set_balloon(BALLOON)
    until(guest, lambda: guest.balloon.actual_pages == BALLOON // PAGE_SIZE, "full balloon")
    assert guest.balloon.ballooned_pages - BALLOON // PAGE_SIZE in (0, 1)  # one may be on the move
    assert guest.host.pool.used < before - BALLOON // PAGE_SIZE // 2
    guest.set_balloon(0)
    until(guest, lambda: guest.balloon.actual_pages == 0, "empty balloon")
    assert guest.balloon.ballooned_pages == 0


def check_vsock(rig: Rig) -> None:
    """The guest has a transport to the host, and refuses who asks for a port where nobody listens."""
    assert rig.run("ls /dev/vsock") == "/dev/vsock"
    with pytest.raises(ConnectionRefusedError):
        rig.guest.vsock.connect(1234, timeout=240)


CHECKS = (
    check_drivers,
    check_disks,
    check_nic,
    check_rng,
    check_console,
    check_abilities,
    check_input,
    check_share,
    check_balloon,
    check_vsock,
)
CHECKED = (
    "a driver and interrupts for each of raw and qcow2 disk, network card, shared folder, rng, balloon, vsock, console "
    "ports, keyboard, mouse, tablet; each used; the same after a reset; power-off"
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_device(rig: Rig, check: Callable[[Rig], None]) -> None:
    check(rig)
    check_health(rig.guest)


def test_all_work_again_after_a_reset(rig: Rig, compatibility: Compatibility) -> None:
    rig.guest.reset()
    reach_shell(rig.guest)
    for check in CHECKS:
        check(rig)
    check_health(rig.guest)
    compatibility.row(guest=NAMES[rig.place.image], boots=rig.place.boots, checked=CHECKED)
