"""A stock Debian kernel boots to a shell that works."""

import hashlib
import re
from collections.abc import Iterator

import pytest

from emuvisor.host import Guest, GuestState, Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import GuestConfig, KernelConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import GIB, MIB

pytestmark = pytest.mark.system

BOOT_S = 360
COMMAND_S = 180
BOOTED = "EMUVISOR-BOOT-OK"


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(512 * MIB, pcpus=2) as host:
        yield host


def create(host: Host, image: Image, name: str = "debian", memory: int = 256 * MIB, **kernel: str) -> Guest:
    config = KernelConfig(image.kernel, image.initrd, image.append, **kernel)  # type: ignore[arg-type]
    return host.create(GuestConfig(name=name, memory=memory, kernel=config))


def boot(*guests: Guest) -> None:
    for guest in guests:
        guest.start()
    for guest in guests:
        assert BOOTED in guest.console.text or guest.expect(BOOTED, BOOT_S), guest.console.text[-3000:]


def command(guest: Guest, line: str) -> str:
    """What `line` prints in the guest's shell."""
    start = guest.console.written
    # The shell echoes the line: the marks in it are not those that it prints.
    assert guest.expect("<end>", COMMAND_S, send=f"echo '<be''gin>'; {line}; echo '<e''nd>'\n"), (
        guest.console.text[-2000:]
    )
    assert guest.console.written > start
    output = guest.console.text.replace("\r", "").rpartition("<begin>\n")[2]
    return output.partition("<end>")[0].strip()


def power_off(guest: Guest) -> None:
    guest.type("poweroff\n")
    assert guest.wait(COMMAND_S), guest.console.text[-2000:]
    assert guest.outcome is not None
    assert (guest.outcome.ending, guest.state) == (Ending.POWER_OFF, GuestState.DEFINED)


def test_boot_commands_and_power_off(host: Host, debian: Image) -> None:
    guest = create(host, debian)
    boot(guest)
    assert re.fullmatch(
        r"Linux .* \d+\.\d+\.\d+-\d+-cloud-amd64 .* x86_64 GNU/Linux", command(guest, "uname -a")
    )
    interrupts = command(guest, "cat /proc/interrupts")
    assert re.search(r"^ *LOC: +[1-9]\d* +Local timer interrupts$", interrupts, re.MULTILINE), interrupts
    assert re.search(r"^ *4: +\d+ +IO-APIC +4-edge +ttyS0$", interrupts, re.MULTILINE), interrupts
    assert command(guest, "echo $((123456789 * 987 % 1000003)) $(( (1 << 40) - 7 ))") == (
        f"{123456789 * 987 % 1000003} {(1 << 40) - 7}"
    )
    numbers = "".join(f"{i}\n" for i in range(1, 20001)).encode()
    assert command(guest, "seq 20000 | cat | sha256sum") == f"{hashlib.sha256(numbers).hexdigest()}  -"
    assert command(guest, "for i in 1 2 3; do (exit $i) & wait $!; echo $?; done") == "1\n2\n3"
    assert command(guest, "grep -c processor /proc/cpuinfo") == "1"
    power_off(guest)


def test_bzimages_own_decompressor(host: Host, debian: Image) -> None:
    guest = create(host, debian, decompressor="guest")
    boot(guest)
    assert command(guest, "echo $((6 * 7))") == "42"
    power_off(guest)


def test_4_gib_of_memory_in_a_pool_of_512_mib(host: Host, debian: Image) -> None:
    guest = create(host, debian, memory=4 * GIB)
    boot(guest)
    total = int(command(guest, "awk '/MemTotal/ { print $2 }' /proc/meminfo"))
    assert 3_900_000 < total < 4_194_304
    assert host.pool.used * 4096 < 400 * MIB
    power_off(guest)


def test_two_at_once(host: Host, debian: Image) -> None:
    guests = [create(host, debian, name, 128 * MIB) for name in ("one", "two")]
    boot(*guests)
    for number, guest in enumerate(guests):
        guest.type(f"echo sum $(( {number} + 2000 ))\n")
    for number, guest in enumerate(guests):
        assert command(guest, f"echo $(( {number} * 3 ))") == str(3 * number)
        assert f"sum {2000 + number}" in guest.console.text
    for guest in guests:
        power_off(guest)
    outputs = [re.sub(r".*" + BOOTED, "", guest.console.text, flags=re.DOTALL) for guest in guests]
    assert outputs[0] != outputs[1]


def test_the_same_boot_twice(host: Host, debian: Image) -> None:
    """On the virtual clock two boots side by side print the same, time stamps included."""
    guests = [create(host, debian, name, 128 * MIB) for name in ("one", "two")]
    boot(*guests)
    printed = [guest.console.text.partition(BOOTED)[0] for guest in guests]
    assert printed[0] == printed[1]


def test_the_same_boot_twice_to_the_last_page(host: Host, debian: Image) -> None:
    """Until the first user-space line: console, registers, work and every page are the same."""
    runs = []
    for name in ("first", "second"):
        kernel = KernelConfig(debian.kernel, debian.initrd, debian.append)
        guest = host.create(GuestConfig(name=name, memory=128 * MIB, kernel=kernel, until=BOOTED))
        guest.start()
        assert guest.wait(BOOT_S), guest.console.text[-2000:]
        memory = hashlib.sha256()
        for gfn in guest.machine.memory.written_pages():
            memory.update(gfn.to_bytes(8, "little") + guest.machine.memory.read(gfn * 4096, 4096))
        runs.append((guest.console.text, guest.machine.vcpu.digest(), memory.hexdigest()))
        guest.delete()
    assert runs[0] == runs[1]
