"""Debian's kernel with several processors."""

import hashlib
import re
from typing import Any

import pytest
from compatibility import Compatibility
from guests import BOOTED, command, disk, power_off, reach_shell, see
from virtio_guests import NAMES

from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import BoardName
from emuvisor.machine.config import GuestConfig, KernelConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

BOOT_S = 360
FILES = 4
BLOCKS = 4
"""MiB in each file, behind its name."""
BOARDS: tuple[BoardName, ...] = ("pc", "microvm")
TROUBLE = ("WARNING", "BUG", "stall", "lockup", "unstable", "not responding", "out of sync")
"""What a kernel prints when a processor does not do what it should."""


def create(host: Host, image: Image, board: BoardName, vcpus: int, name: str = "smp", **more: Any) -> Guest:
    kernel = KernelConfig(image.kernel, image.initrd, image.append)
    config = GuestConfig(name=name, board=board, memory=256 * MIB, vcpus=vcpus, kernel=kernel, **more)
    return host.create(config)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("vcpus", [2, 4])
def test_boot_and_work_in_parallel(
    host: Host, debian: Image, board: BoardName, vcpus: int, compatibility: Compatibility
) -> None:
    guest = create(host, debian, board, vcpus)
    guest.start()
    reach_shell(guest)
    assert command(guest, "nproc") == str(vcpus)
    assert command(guest, "cat /sys/devices/system/cpu/online") == f"0-{vcpus - 1}"
    topology = "cat /sys/devices/system/cpu/cpu*/topology/"
    assert command(guest, topology + "core_id").split() == [str(number) for number in range(vcpus)]
    assert command(guest, topology + "physical_package_id").split() == ["0"] * vcpus

    check_sums(guest)
    interrupts = command(guest, "cat /proc/interrupts")
    for source in ("LOC", "CAL"):
        counts = re.search(rf"{source}:((?: +\d+)+)", interrupts)
        assert counts is not None, interrupts
        assert all(int(count) > 0 for count in counts[1].split()), interrupts
    check_messages(guest)
    assert command(guest, "cat /sys/devices/system/clocksource/clocksource0/current_clocksource") == "tsc"
    power_off(guest)
    compatibility.row(
        guest=NAMES["debian"],
        boots=f"directly on {board}, {vcpus} processors",
        checked="nproc; topology; IPIs; four SHA-256 sums in parallel; no complaints; power-off",
    )


def check_sums(guest: Guest) -> None:
    """Of files that are filled and read in parallel."""
    files = " ".join(f"/tmp/{number}" for number in range(FILES))
    fill = f"(echo $f; dd if=/dev/zero bs=1M count={BLOCKS} 2>/dev/null) > $f"
    command(guest, f"for f in {files}; do {fill} & done; wait")
    sums = command(guest, f"for f in {files}; do sha256sum $f & done; wait")
    expected = {
        name: hashlib.sha256(name.encode() + b"\n" + bytes(BLOCKS * MIB)).hexdigest()
        for name in files.split()
    }
    found = {name: digest for digest, name in (line.split() for line in sums.splitlines() if "  /" in line)}
    assert found == expected, sums


def check_messages(guest: Guest) -> None:
    """The kernel complains of nothing."""
    messages = command(guest, "dmesg")
    assert [line for line in messages.splitlines() if any(word in line for word in TROUBLE)] == []


@pytest.mark.parametrize("board", BOARDS)
def test_a_32_bit_kernel(
    host: Host, debian_i386: Image, board: BoardName, compatibility: Compatibility
) -> None:
    guest = create(host, debian_i386, board, 2)
    guest.start()
    reach_shell(guest)
    assert command(guest, "nproc; uname -m").split() == ["2", "i686"]
    check_sums(guest)
    check_messages(guest)
    power_off(guest)
    compatibility.row(
        guest=NAMES["debian-i386"],
        boots=f"directly on {board}, 2 processors",
        checked="nproc; four SHA-256 sums in parallel; no complaints; power-off",
    )


@pytest.mark.parametrize("vcpus", [3, 8])
def test_other_numbers(host: Host, debian: Image, vcpus: int) -> None:
    """One that is no power of two, and the most."""
    guest = create(host, debian, "pc", vcpus)
    guest.start()
    reach_shell(guest)
    assert command(guest, "nproc") == str(vcpus)
    check_sums(guest)
    check_messages(guest)
    power_off(guest)


@pytest.mark.parametrize("board", BOARDS)
def test_a_boot_repeats_exactly(debian: Image, board: BoardName) -> None:
    found = set()
    for pcpus, slice_work in ((1, 10_000_000), (2, 333_333)):
        with Host(512 * MIB, pcpus=pcpus, slice_work=slice_work) as host:
            guest = create(host, debian, board, 4, until=BOOTED)
            guest.start()
            assert guest.wait(BOOT_S), guest.console.text[-2000:]
            machine = guest.machine
            digest = hashlib.sha256("".join(vcpu.digest() for vcpu in machine.vcpus).encode())
            found.add((guest.console.text, digest.hexdigest(), machine.clock.now_ns()))
    assert len(found) == 1


@pytest.mark.parametrize("board", BOARDS)
def test_processors_are_taken_out_and_put_back(host: Host, debian: Image, board: BoardName) -> None:
    """Offline processors halt for good; a new INIT and SIPI start them again, also while the others work."""
    guest = create(host, debian, board, 3)
    guest.start()
    reach_shell(guest)
    switch = "echo {} > /sys/devices/system/cpu/cpu2/online; nproc"
    assert command(guest, switch.format(0)).splitlines()[-1] == "2"
    assert command(guest, switch.format(1)).splitlines()[-1] == "3"
    assert command(guest, "taskset 4 sh -c 'echo $((6 * 7))'") == "42"
    command(guest, "(while :; do :; done) & (while :; do :; done) & true")
    times = "for i in 1 2 3; do echo 0 > {0}; echo 1 > {0}; done; nproc"
    assert command(guest, times.format("/sys/devices/system/cpu/cpu1/online")) == "3"
    check_messages(guest)
    power_off(guest)


@pytest.mark.parametrize("vcpus", [1, 4])
def test_on_the_hosts_clock(host: Host, debian: Image, vcpus: int) -> None:
    guest = create(host, debian, "microvm", vcpus, clock="host")
    guest.start()
    reach_shell(guest)
    assert command(guest, "nproc") == str(vcpus)
    assert command(guest, "for i in 1 2 3 4; do (sleep 0.2; echo -n $i) & wait; done") == "1234"
    power_off(guest)


def test_firmware_counts_them_and_hands_them_over(host: Host, grub: Image) -> None:
    """SeaBIOS starts all processors, and leaves them halted with interrupts disabled."""
    guest = host.create(GuestConfig(firmware="seabios", memory=256 * MIB, vcpus=2, disks=(disk(grub),)))
    guest.start()
    see(guest, r"^ .\*Debian")
    guest.send_keys("ret")
    reach_shell(guest)
    assert "Found 2 cpu(s) max supported 2 cpu(s)" in guest.machine.debug.text
    assert command(guest, "nproc") == "2"
    power_off(guest)


def test_uefi_hands_them_over(host: Host, ovmf: Image, debian_efi: Image) -> None:
    guest = host.create(GuestConfig(firmware="ovmf", memory=256 * MIB, vcpus=2, disks=(disk(debian_efi),)))
    guest.start()
    reach_shell(guest)
    assert command(guest, "nproc") == "2"
    power_off(guest)
