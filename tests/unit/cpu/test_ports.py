"""Permission to use I/O ports: IOPL, then the TSS's bitmap."""

import pytest
from cpu_guest import TABLES, TSS, identity_map, long, protected, put_number, tables, vm86

from emuvisor.cpu.state import CpuState, Segment

GP_FAULT = (13, 0, 0)
WITH_MAP = Segment(0x40, TSS, 0x68 + 0x2000, 0x8B00)


def memory(*denied):
    """The map begins at offset 68h of the TSS; a set bit denies."""
    data = tables()
    put_number(data, TSS + 0x66, 0x68, 2)
    for port in denied:
        data[TSS + 0x68 + port // 8] |= 1 << port % 8
    return data


@pytest.mark.parametrize(
    "state",
    [CpuState(), protected(), protected(cpl=3, rflags=0x3002)],
    ids=["real mode", "ring 0", "IOPL 3"],
)
def test_privileged_code_needs_no_map(cpu, state):
    assert cpu.port_fault(state, bytearray(), 0x60, 1) is None


@pytest.mark.parametrize(
    ("denied", "access", "fault"),
    [
        (0x61, (0x60, 1), None),
        (0x61, (0x61, 1), GP_FAULT),
        (0x61, (0x60, 2), GP_FAULT),
        (0x61, (0x62, 2), None),
        (0x68, (0x67, 2), GP_FAULT),
        (0x6A, (0x67, 4), GP_FAULT),
        (0x6B, (0x67, 4), None),
    ],
)
@pytest.mark.parametrize("state", [protected(cpl=3), vm86(rflags=0x23202), long(cpl=3)])
def test_the_map_decides_for_others(cpu, state, denied, access, fault):
    state.tr = WITH_MAP
    assert cpu.port_fault(state, identity_map(memory(denied)), *access) == fault


@pytest.mark.parametrize(
    ("tss", "fault"),
    [
        (Segment(0x40, TSS, 0x68 + 0xD, 0x8B00), None),
        (Segment(0x40, TSS, 0x68 + 0xC, 0x8B00), GP_FAULT),
        (Segment(0x40, TSS, 0x66, 0x8B00), GP_FAULT),
        (Segment(0x40, TSS, 0x2000, 0x8300), GP_FAULT),
    ],
    ids=["both bytes inside", "second byte outside", "short TSS", "16-bit TSS"],
)
def test_what_the_tss_does_not_hold_is_denied(cpu, tss, fault):
    assert cpu.port_fault(protected(cpl=3, tr=tss), memory(), 0x60, 1) == fault


def test_a_page_fault_while_the_map_is_read(cpu):
    data = identity_map(memory())
    put_number(data, TABLES + 0x3000 + 8 * (TSS >> 12), 0, 8)
    assert cpu.port_fault(long(cpl=3, tr=WITH_MAP), data, 0x60, 1) == (14, 0, TSS + 0x66)
