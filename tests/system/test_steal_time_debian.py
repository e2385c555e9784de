"""Debian's kernels account for the time that their host gives to others."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from guests import command, power_off, reach_shell

from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import ClockMode
from emuvisor.machine.config import FlatConfig, GuestConfig, KernelConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

TICK_NS = 10_000_000
"""/proc/stat counts in 100ths of a second."""
TICKS = 20
READ_STEAL = "read -r cpu user nice system idle iowait irq softirq steal rest < /proc/stat"
SPIN = bytes.fromhex("ebfe")
"""a: jmp a"""


def create(host: Host, image: Image, vcpus: int = 1, clock: ClockMode = "host") -> Guest:
    kernel = KernelConfig(image.kernel, image.initrd, image.append)
    config = GuestConfig(name="guest", memory=256 * MIB, vcpus=vcpus, kernel=kernel, clock=clock)
    guest = host.create(config)
    guest.start()
    reach_shell(guest)
    return guest


def stolen_ns(guest: Guest) -> int:
    """What the guest says."""
    return int(command(guest, READ_STEAL + "; echo $steal")) * TICK_NS


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(1024 * MIB) as host:
        yield host


@pytest.fixture
def neighbour(host: Host, tmp_path: Path) -> Guest:
    """It wants the pCPU all the time, once it is started."""
    path = tmp_path / "spin.bin"
    path.write_bytes(SPIN)
    return host.create(GuestConfig(name="neighbour", memory=MIB, flat=FlatConfig(path, 0x8000), clock="host"))


@pytest.mark.parametrize("image", ["debian", "debian_i386"])
def test_beside_a_busy_neighbour(
    host: Host, neighbour: Guest, image: str, request: pytest.FixtureRequest
) -> None:
    guest = create(host, request.getfixturevalue(image))
    assert "Hypervisor detected: KVM" in command(guest, "dmesg")
    before = stolen_ns(guest)
    assert before <= guest.statistics().stolen_ns
    neighbour.start()
    least = before // TICK_NS + TICKS
    command(guest, f"{READ_STEAL}; while [ $steal -lt {least} ]; do {READ_STEAL}; done")
    assert before + TICKS * TICK_NS <= stolen_ns(guest) <= guest.statistics().stolen_ns
    power_off(guest)


def test_processors_share_a_pcpu(host: Host, debian: Image) -> None:
    """Alone on the host: what each has not, the other one has. One that was taken out goes on where it was."""
    guest = create(host, debian, vcpus=2)
    least = stolen_ns(guest) // TICK_NS + TICKS
    loop = f"{READ_STEAL}; while [ $steal -lt {least} ]; do {READ_STEAL}; done"
    command(guest, f"({loop}) & {loop}; wait")
    online = "/sys/devices/system/cpu/cpu1/online"
    command(guest, f"echo 0 > {online}; echo 1 > {online}; taskset 2 sh -c 'echo $((6 * 7))'")
    stolen = stolen_ns(guest)
    power_off(guest)
    statistics = guest.statistics()
    assert least * TICK_NS <= stolen <= statistics.cpu_ns + 2 * statistics.stolen_ns


def test_on_the_virtual_clock_nothing_is_stolen(host: Host, debian: Image, neighbour: Guest) -> None:
    neighbour.start()
    guest = create(host, debian, clock="virtual")
    assert guest.statistics().stolen_ns > 0
    assert stolen_ns(guest) == 0
    power_off(guest)
