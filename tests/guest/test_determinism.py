"""On the virtual clock a guest's run depends on nothing but the guest: the same output and the same final state,
whatever else the host does."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from emuvisor import firmware
from emuvisor.host import Guest, Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB, PAGE_SIZE

PATIENCE_S = 180
TIMES = 10
SLICES = (40_000, 100_003, 1_000_000)

COMPUTE = bytes.fromhex(
    "31c0 8ed8 8ec0 dbe3 66b9 00200000"  # xor ax, ax; mov ds, ax; mov es, ax; fninit; mov ecx, 2000h
    "66bb 78563412"  # mov ebx, 12345678h
    "6669db 0d661900"  # step: imul ebx, ebx, 19660Dh
    "6681c3 5ff36e3c"  # add ebx, 3C6EF35Fh
    "6653 665f 6681e7 fc0f0000"  # push ebx; pop edi; and edi, 0FFCh
    "66119d 0070"  # adc [di+7000h], ebx
    "d9e8 d80600 60 d91e0060"  # fld1; fadd dword [6000h]; fstp dword [6000h]
    "0f31 6601060464"  # rdtsc; add [6404h], eax
    "6649 75cd"  # dec ecx; jnz step
    "ba f803 88d8 ee"  # mov dx, 3f8h; mov al, bl; out dx, al
    "ba 0406 b80020 ef f4"  # mov dx, 604h; mov ax, 2000h; out dx, ax; hlt
)
"""Sums of random numbers with carries from turn to turn, in memory and in the FPU, and of the time stamps."""


def fingerprint(guest: Guest) -> tuple[str, str, str, str]:
    """Output, outcome, registers and memory at the end."""
    memory = hashlib.sha256()
    for gfn in guest.machine.memory.written_pages():
        memory.update(gfn.to_bytes(8, "little") + guest.machine.memory.read(gfn * PAGE_SIZE, PAGE_SIZE))
    return guest.console.text, str(guest.outcome), guest.machine.vcpu.digest(), memory.hexdigest()


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., GuestConfig]:
    def make(program: str, name: str = "") -> GuestConfig:
        path = tmp_path / f"{program}.bin"
        path.write_bytes(COMPUTE if program == "compute" else firmware.image(program))
        return GuestConfig(
            name=name or program,
            memory=8 * MIB,
            flat=FlatConfig(path, firmware.FLAT_ADDRESS),
            clock="virtual",
        )

    return make


@pytest.mark.parametrize("program", ["compute", "ring", "halt", "hello"])
def test_ten_runs_alone_and_in_company(config: Callable[..., GuestConfig], program: str) -> None:
    others = [name for name in ("compute", "ring", "spin", "halt", "memtouch") if name != program][:3]
    found: dict[tuple[str, str, str, str], str] = {}
    for pcpus in (1, 2):
        for company in ([], others):
            for time in range(TIMES):
                with Host(64 * MIB, pcpus=pcpus, slice_work=SLICES[time % len(SLICES)]) as host:
                    crowd = [host.create(config(name, f"other-{name}")) for name in company]
                    guest = host.create(config(program))
                    for other in crowd:
                        other.start()
                    guest.start()
                    assert guest.wait(PATIENCE_S)
                    situation = f"run {time} on {pcpus} pCPUs beside {len(company)}"
                    found.setdefault(fingerprint(guest), situation)
    assert len(found) == 1, found
    ((output, outcome, _, _),) = found
    assert outcome == "power-off"
    assert output
