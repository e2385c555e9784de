"""The page walk on tables made by hand, with known answers."""

import pytest
from cpu_guest import MEMORY_SIZE, FlatMemory, put_number

from emuvisor.cpu.reference.paging import Access, walk
from emuvisor.cpu.registers import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    EFER_NXE,
    FLAG_AC,
)
from emuvisor.cpu.state import CpuState

P, W, U, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63
READ, WRITE, FETCH, USER, IMPLICIT = Access.READ, Access.WRITE, Access.FETCH, Access.USER, Access.IMPLICIT
ROOT, SECOND, THIRD, LAST = 0x1000, 0x2000, 0x3000, 0x4000


def four_level(pml4e=P | W | U, pdpte=P | W | U, pde=P | W | U, pte=P | W | U, frame=0x7000):
    """Tables for address 0x8080604abc: index 1 of the PML4, 2, 3 and 4 of the others."""
    data = bytearray(MEMORY_SIZE)
    put_number(data, ROOT + 8 * 1, SECOND | pml4e, 8)
    put_number(data, SECOND + 8 * 2, (0x40000000 if pdpte & PS else THIRD) | pdpte, 8)
    put_number(data, THIRD + 8 * 3, (0x600000 if pde & PS else LAST) | pde, 8)
    put_number(data, LAST + 8 * 4, frame | pte, 8)
    return data


ADDRESS = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 0xABC


def long(**changes):
    settings = {"cr0": CR0_PE | CR0_PG, "cr3": ROOT, "cr4": CR4_PAE, "efer": EFER_LMA, **changes}
    return CpuState(**settings)


def entries(data):
    return [
        int.from_bytes(data[at : at + 8], "little") for at in (ROOT + 8, SECOND + 16, THIRD + 24, LAST + 32)
    ]


def test_a_4k_page(cpu):
    data = four_level()
    assert cpu.walk(long(), data, ADDRESS, READ) == (0x7ABC, 4096, False, True)
    assert entries(data) == [0x2027, 0x3027, 0x4027, 0x7027]


def test_a_write_sets_the_dirty_bit_of_the_page_only(cpu):
    data = four_level()
    assert cpu.walk(long(), data, ADDRESS, WRITE) == (0x7ABC, 4096, True, True)
    assert entries(data) == [0x2027, 0x3027, 0x4027, 0x7067]


def test_a_dirty_page_is_reported_writable_for_a_read(cpu):
    assert cpu.walk(long(), four_level(pte=P | W | U | D), ADDRESS, READ) == (0x7ABC, 4096, True, True)


def test_a_2m_page(cpu):
    data = four_level(pde=P | W | PS)
    assert cpu.walk(long(), data, ADDRESS, READ) == (0x604ABC, 1 << 21, False, True)


def test_a_1g_page(cpu):
    data = four_level(pdpte=P | W | PS)
    assert cpu.walk(long(), data, ADDRESS, READ) == (0x40604ABC, 1 << 30, False, True)


def test_the_upper_canonical_half_is_walked_and_the_hole_is_not(cpu):
    data = four_level()
    put_number(data, ROOT + 8 * 511, SECOND | P, 8)
    upper = (ADDRESS & (1 << 39) - 1) | (1 << 64) - (1 << 39)
    assert cpu.walk(long(), data, upper, READ) == (0x7ABC, 4096, False, True)
    assert cpu.walk(long(), data, 1 << 47, READ) == "not canonical"
    assert cpu.walk(long(), data, (1 << 64) - (1 << 47) - 1, READ) == "not canonical"


WP, SMEP, SMAP = {"cr0": CR0_PE | CR0_PG | CR0_WP}, {"cr4": CR4_PAE | CR4_SMEP}, {"cr4": CR4_PAE | CR4_SMAP}
NXE = {"efer": EFER_LMA | EFER_NXE}
AC = {"rflags": FLAG_AC | 2}
RIGHTS = [
    # entry that differs, CPU settings, access, page-fault error code or None
    ({"pml4e": 0}, {}, READ, 0),
    ({"pdpte": W}, {}, WRITE, 2),
    ({"pde": W}, {}, READ | USER, 4),
    ({"pte": W | U}, {}, WRITE | USER, 6),
    ({"pte": 0}, {}, FETCH | USER, 4),
    ({"pte": 0}, NXE, FETCH | USER, 0x14),
    ({"pte": 0}, SMEP, FETCH, 0x10),
    ({"pte": P | W}, {}, READ | USER, 5),
    ({"pml4e": P | W}, {}, READ | USER, 5),
    ({"pte": P | U}, {}, WRITE | USER, 7),
    ({"pde": P | U}, {}, WRITE | USER, 7),
    ({"pte": P | U}, {}, WRITE, None),
    ({"pte": P | U}, WP, WRITE, 3),
    ({"pte": P | W | U | NX}, NXE, FETCH | USER, 0x15),
    ({"pml4e": P | W | U | NX}, NXE, FETCH, 0x11),
    ({"pte": P | W | U | NX}, NXE, READ, None),
    ({"pte": P | W | U | NX}, {}, READ, 9),
    ({"pte": P | W | U | NX}, {}, FETCH | USER, 0xD),
    ({}, SMEP, FETCH, 0x11),
    ({}, SMEP, FETCH | USER, None),
    ({"pdpte": P | W}, SMEP, FETCH, None),
    ({}, SMAP, READ, 1),
    ({}, SMAP, WRITE, 3),
    ({}, SMAP, FETCH, None),
    ({}, SMAP | AC, READ, None),
    ({}, SMAP | AC, WRITE, None),
    ({}, SMAP | AC, READ | IMPLICIT, 1),
    ({}, SMAP, READ | USER, None),
    ({"pte": P | W}, SMAP, READ | IMPLICIT, None),
    ({"pml4e": P | W | U | PS}, {}, READ, 9),
    ({"pml4e": P | W | U | 1 << 40}, {}, READ | USER, 0xD),
    ({"pte": P | W | U | 1 << 51}, {}, WRITE, 0xB),
    ({"pte": P | W | U | 1 << 52}, {}, WRITE, None),
    ({"pdpte": P | PS | 1 << 13}, {}, READ, 9),
    ({"pdpte": P | PS | 1 << 12}, {}, READ, None),
    ({"pde": P | PS | 1 << 20}, {}, READ, 9),
    ({"pde": P | PS | 1 << 12}, {}, READ, None),
    ({"pte": P | W | U | PS}, {}, READ, None),
]


@pytest.mark.parametrize(("changes", "settings", "access", "error_code"), RIGHTS)
def test_rights_and_error_codes(cpu, changes, settings, access, error_code):
    data = four_level(**changes)
    before = bytes(data)
    result = cpu.walk(long(**settings), data, ADDRESS, access)
    if error_code is None:
        assert isinstance(result, tuple)
    else:
        assert result == error_code
        assert data == before, "a fault sets neither accessed nor dirty bits"


def test_writable_and_executable_are_those_of_the_accessing_side(cpu):
    data = four_level(pte=P | W | D)
    assert cpu.walk(long(**SMEP), data, ADDRESS, READ) == (0x7ABC, 4096, True, True)
    data = four_level(pte=P | W | U | D)
    assert cpu.walk(long(**SMEP), data, ADDRESS, READ) == (0x7ABC, 4096, True, False)
    assert cpu.walk(long(**SMEP), data, ADDRESS, READ | USER) == (0x7ABC, 4096, True, True)
    data = four_level(pte=P | U | D)
    assert cpu.walk(long(), data, ADDRESS, READ) == (0x7ABC, 4096, True, True)
    assert cpu.walk(long(**WP), data, ADDRESS, READ) == (0x7ABC, 4096, False, True)


def two_level(pde=P | W | U, pte=P | W | U):
    """32-bit tables for address 00c02abc: index 3 of the directory, 2 of the table."""
    data = bytearray(MEMORY_SIZE)
    put_number(data, ROOT + 4 * 3, pde if pde & PS else SECOND | pde, 4)
    put_number(data, SECOND + 4 * 2, 0x7000 | pte, 4)
    return data


def legacy(**changes):
    return CpuState(**{"cr0": CR0_PE | CR0_PG, "cr3": ROOT, **changes})


def test_32_bit_paging(cpu):
    data = two_level()
    assert cpu.walk(legacy(), data, 0x00C02ABC, WRITE) == (0x7ABC, 4096, True, True)
    assert data[ROOT + 12 : ROOT + 16] == (0x2027).to_bytes(4, "little")
    assert data[SECOND + 8 : SECOND + 12] == (0x7067).to_bytes(4, "little")


def test_32_bit_addresses_wrap(cpu):
    assert cpu.walk(legacy(), two_level(), 0x1_00C02ABC, READ) == (0x7ABC, 4096, False, True)


@pytest.mark.parametrize(
    ("pde", "cr4", "result"),
    [
        (0x00800000 | P | PS, CR4_PSE, (0x00802ABC, 1 << 22, False, True)),
        (0x00800000 | 0x1FE000 | P | PS, CR4_PSE, (0xFF_00802ABC, 1 << 22, False, True)),
        (0x00800000 | 1 << 21 | P | PS, CR4_PSE, 9),
        (SECOND | P | PS, 0, (0x7ABC, 4096, False, True)),
    ],
    ids=["4 MiB", "PSE-36", "reserved bit 21", "PS without PSE"],
)
def test_4m_pages(cpu, pde, cr4, result):
    data = two_level(pde=pde)
    assert cpu.walk(legacy(cr4=cr4), data, 0x00C02ABC, READ) == result


def pae(pdpte=P, pde=P | W | U, pte=P | W | U):
    """PAE tables for address c0602abc: index 3, 3 and 2; the pointer table is not page-aligned."""
    data = bytearray(MEMORY_SIZE)
    put_number(data, ROOT + 0x20 + 8 * 3, SECOND | pdpte, 8)
    put_number(data, SECOND + 8 * 3, (0x400000 if pde & PS else THIRD) | pde, 8)
    put_number(data, THIRD + 8 * 2, 0x7000 | pte, 8)
    return data


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({}, (0x7ABC, 4096, True, True)),
        ({"pde": P | W | PS}, (0x402ABC, 1 << 21, True, True)),
        ({"pde": P | W | PS | 1 << 13}, 0xB),
        ({"pdpte": 0}, 2),
        ({"pdpte": P | W}, 0xB),
        ({"pdpte": P | NX}, 0xB),
        ({"pte": P | W | 1 << 62}, 0xB),
        ({"pte": P | W | NX}, 0xB),
    ],
)
def test_pae_paging(cpu, changes, result):
    data = pae(**changes)
    state = legacy(cr3=ROOT + 0x20, cr4=CR4_PAE)
    assert cpu.walk(state, data, 0xC0602ABC, WRITE) == result
    assert not data[ROOT + 0x38] & A, "a pointer entry has no accessed bit"


def test_without_paging_addresses_are_physical_and_wrap_at_4g(cpu):
    assert cpu.walk(CpuState(), bytearray(), 0x1_FFFF_FFF0, WRITE) == (0xFFFFFFF0, 4096, True, True)


def test_the_a20_gate_masks_pages_and_tables(cpu):
    assert cpu.walk(CpuState(a20=False), bytearray(), 0x110000, READ) == (0x10000, 4096, True, True)
    assert cpu.walk(CpuState(), bytearray(), 0x110000, READ) == (0x110000, 4096, True, True)
    data = four_level(frame=0x107000)
    state = long(cr3=ROOT + (1 << 20), a20=False)
    assert cpu.walk(state, data, ADDRESS, READ) == (0x7ABC, 4096, False, True)


def test_tables_in_a_hole_read_as_ones(cpu):
    assert cpu.walk(long(cr3=0x80000000), bytearray(4096), ADDRESS, READ) == 9


def test_a_walk_explains_itself():
    found = walk(long(), FlatMemory(four_level()), ADDRESS, READ)
    assert str(found) == (
        "0000008080604abc by 4-level paging\n"
        "PML4E  at 0000001008 = 0000000000002007  table writable user\n"
        "PDPTE  at 0000002010 = 0000000000003007  table writable user\n"
        "PDE    at 0000003018 = 0000000000004007  table writable user\n"
        "PTE    at 0000004020 = 0000000000007007  page writable user\n"
        "=> 0000007abc, a page of 4 KiB, r-x"
    )


def test_a_page_fault_explains_itself():
    found = walk(long(), FlatMemory(four_level(pdpte=P | W)), ADDRESS, WRITE | USER)
    assert str(found) == (
        "0000008080604abc by 4-level paging\n"
        "PML4E  at 0000001008 = 0000000000002007  table writable user\n"
        "PDPTE  at 0000002010 = 0000000000003003  table writable supervisor\n"
        "PDE    at 0000003018 = 0000000000004007  table writable user\n"
        "PTE    at 0000004020 = 0000000000007007  page writable user\n"
        "=> #PF, error code P|W|U: the access rights do not allow it"
    )
    assert str(walk(long(), FlatMemory(bytearray(8)), 1 << 50, READ)) == "0004000000000000 is not canonical"
