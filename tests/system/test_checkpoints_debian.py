"""Whole systems that go back to a checkpoint, or go on in a second machine: the same happens again, bit for bit."""

import hashlib
from dataclasses import replace

import pytest
from guests import BOOT_S, disk, reach_shell

from emuvisor.cpu.pcpu import Pcpu
from emuvisor.host import Guest, GuestState, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import BoardName, FirmwareName
from emuvisor.machine.config import GuestConfig, KernelConfig
from emuvisor.machine.machine import Machine
from emuvisor.machine.machine_state import load_machine, save_machine
from emuvisor.memory import FramePool
from emuvisor.units import MIB, PAGE_SIZE

pytestmark = pytest.mark.system

DONE = "REPEATED-IT"
WORK = f"date +%N; for i in 1 2; do head -c 300000 /dev/urandom | md5sum; done; sleep 1; echo {DONE[:4]}''{DONE[4:]}\n"


def fingerprint(machine: Machine) -> tuple[str, str, str]:
    memory = hashlib.sha256()
    for gfn in machine.memory.written_pages():
        page = machine.memory.read(gfn * PAGE_SIZE, PAGE_SIZE)
        if any(page):
            memory.update(gfn.to_bytes(8, "little") + page)
    return machine.console.text, "".join(vcpu.digest() for vcpu in machine.vcpus), memory.hexdigest()


def run_to_the_end(guest: Guest) -> tuple[str, str, str]:
    guest.resume()
    assert guest.wait(BOOT_S)
    assert (guest.state, guest.reason) == (GuestState.PAUSED, "until"), guest.console.text[-500:]
    return fingerprint(guest.machine)


@pytest.mark.parametrize(("board", "vcpus"), [("microvm", 2), ("pc", 1)])
def test_debian_goes_back(host: Host, debian: Image, board: BoardName, vcpus: int) -> None:
    kernel = KernelConfig(debian.kernel, debian.initrd, debian.append)
    config = GuestConfig(board=board, vcpus=vcpus, kernel=kernel, rng=True, until=DONE)
    guest = host.create(config)
    guest.start()
    reach_shell(guest)
    guest.pause()
    guest.type(WORK)
    ends = []
    with guest.checkpoint() as start:
        for _ in range(2):
            ends.append(run_to_the_end(guest))
            guest.reset_to(start)
            guest.pause()
            guest.reset_to(start)
        other = host.create(replace(config, name="other", identity="guest"))
        other.reset_to(start)
        other.pause()
        other.reset_to(start)
        ends.append(run_to_the_end(other))
    assert ends[1:] == ends[:1] * 2


@pytest.mark.parametrize(("firmware", "work"), [("seabios", 20_000_000), ("ovmf", 300_000_000)])
def test_firmware_goes_on_in_another_machine(
    request: pytest.FixtureRequest, firmware: FirmwareName, work: int
) -> None:
    request.getfixturevalue(firmware)
    image: Image = request.getfixturevalue("debian_efi" if firmware == "ovmf" else "debian_system")
    pool = FramePool(600 * MIB)
    pcpu = Pcpu(pool)
    config = GuestConfig(board="pc", firmware=firmware, memory=128 * MIB, disks=(disk(image),))
    machine = Machine(config, pool)
    machine.boot()
    for part in range(3):
        while machine.spent < work * (part + 1):
            machine.run_slice(pcpu, 1_000_000)
        other = Machine(config, pool)
        other.memory.take_over(machine.memory)
        state = save_machine(machine)
        load_machine(other, state)
        assert save_machine(other) == state
        for one in (machine, other):
            for _ in range(5):
                one.run_slice(pcpu, 1_000_000)
        assert fingerprint(other) == fingerprint(machine)
        machine.close()
        machine = other
    machine.close()
    assert pool.used == 0
