"""Debian's kernels on both boards, with interrupt controllers and ACPI as they like them and without."""

import re
from dataclasses import dataclass

import pytest
from compatibility import Compatibility
from guests import command, power_off, reach_shell

from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import BoardName, GuestConfig, KernelConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system


@dataclass(frozen=True)
class Kernel:
    title: str
    fixture: str
    suffix: str
    release: str
    machine: str
    reads_mp_tables: bool = True


CLOUD = Kernel("Debian cloud kernel (amd64)", "debian", "", r"[\d.]+-\d+-cloud-amd64", "x86_64", False)
I686 = Kernel("Debian 686 kernel (i386)", "debian_i386", "", r"[\d.]+-\d+-686", "i686")
I686_PAE = Kernel("Debian 686-pae kernel (i386)", "debian_i386", "-pae", r"[\d.]+-\d+-686-pae", "i686")

ACPI_OFF = "acpi=off"
APIC_OFF = "noapic nolapic"


@dataclass(frozen=True)
class Case:
    kernel: Kernel
    board: BoardName
    options: str = ""

    def __str__(self) -> str:
        kernel = self.kernel.release.rpartition("d+-")[2]
        return f"{kernel}-{self.board}-{self.options.replace(' ', '+') or 'all-on'}"


CASES = [
    *(
        Case(kernel, board, options)
        for kernel in (CLOUD, I686, I686_PAE)
        for board in ("pc", "microvm")
        for options in ("", f"{APIC_OFF} {ACPI_OFF}")
    ),
    # Without ACPI the MP tables describe the APICs, to kernels that read them.
    *(Case(kernel, "pc", options) for kernel in (CLOUD, I686, I686_PAE) for options in (ACPI_OFF, APIC_OFF)),
    Case(I686, "microvm", ACPI_OFF),
    Case(I686_PAE, "microvm", ACPI_OFF),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shell(host: Host, case: Case, request: pytest.FixtureRequest, compatibility: Compatibility) -> None:
    kernel, board, options = case.kernel, case.board, case.options
    image: Image = request.getfixturevalue(kernel.fixture)
    boots = KernelConfig(
        image.path / f"vmlinuz{kernel.suffix}",
        image.path / f"initrd{kernel.suffix}.cpio",
        f"console=ttyS0 {options}".rstrip(),
    )
    guest = host.create(GuestConfig(board=board, memory=128 * MIB, kernel=boots))
    guest.start()
    reach_shell(guest)
    assert re.fullmatch(f"{kernel.release} {kernel.machine}", command(guest, "uname -rm"))
    described = ACPI_OFF not in options or kernel.reads_mp_tables
    controller = "IO-APIC" if described and APIC_OFF not in options else "XT-PIC"
    interrupts = command(guest, "cat /proc/interrupts")
    assert re.search(rf"^ *\d+: +\d+ +{controller} .*\bttyS0$", interrupts, re.MULTILINE), interrupts
    tables = command(guest, "ls /sys/firmware/acpi/tables 2>/dev/null").split()
    assert ("DSDT" in tables) == (ACPI_OFF not in options)
    assert command(guest, "seq 5000 | sort -r | tail -n 1; (exit 3); echo $?") == "1\n3"
    power_off(guest)
    off = ", ".join(
        f"{what} off" for what, option in (("APIC", APIC_OFF), ("ACPI", ACPI_OFF)) if option in options
    )
    compatibility.row(
        guest=kernel.title,
        boots=f"directly on {board}, {off or 'APIC and ACPI on'}",
        checked=f"shell; interrupts by {controller}; processes; power-off",
    )
