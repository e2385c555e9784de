"""The AML encoder: encodings from the specification's tables, and whole blocks through iasl."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iasl import definition_block, disassemble

from emuvisor.errors import UsageError
from emuvisor.machine.tables import aml, resources


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a02"),
        (0xFF, "0aff"),
        (0x100, "0b0001"),
        (0x12345678, "0c78563412"),
        (0x123456789, "0e8967452301000000"),
    ],
)
def test_integers_take_the_shortest_form(value, encoded):
    assert aml.integer(value).hex() == encoded


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("_CRS", b"_CRS"),
        ("A", b"A___"),
        ("\\", b"\\\0"),
        ("^^B", b"^^B___"),
        ("\\_SB.PCI0", b"\\\x2e_SB_PCI0"),
        ("A.B.C", b"\x2f\x03A___B___C___"),
    ],
)
def test_names(path, encoded):
    assert aml.name_string(path) == encoded


def test_eisa_ids():
    assert aml.eisa_id("PNP0501").hex() == "0c41d00501"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: aml.integer(-1), "AML: -1 is not an integer of 64 bits"),
        (lambda: aml.integer(1 << 64), "AML: 18446744073709551616 is not an integer of 64 bits"),
        (
            lambda: aml.name_string("\\_SB.ABCDE"),
            "AML: 'ABCDE' is not a name segment: 1 to 4 of A-Z, 0-9 and '_', not beginning with a digit",
        ),
        (lambda: aml.name_string(".".join(["A"] * 256)), "AML: a path of 256 segments; the limit is 255"),
        (lambda: aml.string("ü"), "AML: 'ü' is not ASCII text without NUL"),
        (lambda: aml.string("a\0"), "AML: 'a\\x00' is not ASCII text without NUL"),
        (
            lambda: aml.eisa_id("PNP05"),
            "AML: 'PNP05' is not an EISA ID: three capital letters and four hexadecimal digits",
        ),
        (lambda: aml.package(*[b"\0"] * 256), "AML: a package of 256 elements; the limit is 255"),
        (lambda: aml.method("M", arguments=8), "AML: method M with 8 arguments; the limit is 7"),
        (
            lambda: aml.field("R", [("F", 1 << 28)]),
            "AML: a field of 268435456 bits; the limit is 268435455",
        ),
        (
            lambda: resources.io(0x10000, 1),
            "resources: 1 ports at 0x10000 are not 1 to 255 ports below 0x10000",
        ),
        (lambda: resources.irq(16), "resources: 16 is not an ISA interrupt, 0 to 15"),
        (lambda: resources.dma(8), "resources: 8 is not a DMA channel, 0 to 7"),
        (
            lambda: resources.memory32_fixed(0xFFFFFFFF, 2),
            "resources: 0x2 bytes at 0xffffffff are not below 4 GiB",
        ),
        (
            lambda: resources.io_window(0, 0xFFFF),
            "resources: 0x0 to 0xffff is not a range whose length is a 16-bit number",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused(call, message):
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value) == message


def test_a_package_beyond_28_bits_is_refused(monkeypatch):
    monkeypatch.setattr(aml, "PKG_LENGTH_LIMITS", (100, 200, 300))
    with pytest.raises(UsageError) as error:
        aml.buffer(bytes(300))
    assert str(error.value) == "AML: a package of 303 bytes; PkgLength ends at 299"


@given(st.integers(0, 5000))
def test_package_lengths_count_themselves(size):
    encoded = aml.scope("A", bytes(size))
    extra = encoded[1] >> 6
    length = encoded[1] & (0x0F if extra else 0x3F)
    length |= int.from_bytes(encoded[2 : 2 + extra], "little") << 4
    assert length == len(encoded) - 1


def test_iasl_reads_every_term(tmp_path):
    block = aml.scope(
        "\\_SB",
        aml.device(
            "DEV0",
            aml.name("_HID", aml.string("QEMU0002")),
            aml.name("_UID", aml.integer(7)),
            aml.name("BUF0", aml.buffer(b"\x01\x02\x03\x04")),
            aml.name("PKG0", aml.package(aml.integer(0x1234), aml.string("x"), aml.name_string("BUF0"))),
            aml.operation_region("REGN", aml.RegionSpace.SYSTEM_IO, 0x100, 16),
            aml.field("REGN", [("FLD0", 8), (None, 72), ("FLD1", 1)]),
            aml.create_dword_field(aml.name_string("BUF0"), 0, "DWRD"),
            aml.method(
                "TEST",
                aml.if_(aml.bit_and(aml.ARG0, aml.integer(1)), aml.return_(aml.integer(2))),
                aml.store(aml.bit_or(aml.ARG0, aml.integer(4)), aml.name_string("FLD0")),
                aml.return_(aml.name_string("DWRD")),
                arguments=1,
            ),
        ),
    )
    source = disassemble(definition_block(block), tmp_path)
    assert (
        'Scope (\\_SB) { Device (DEV0) { Name (_HID, "QEMU0002") Name (_UID, 0x07) '
        "Name (BUF0, Buffer (0x04) { 0x01, 0x02, 0x03, 0x04 }) "
        'Name (PKG0, Package (0x03) { 0x1234, "x", BUF0 }) '
        "OperationRegion (REGN, SystemIO, 0x0100, 0x10) "
        "Field (REGN, ByteAcc, NoLock, Preserve) { FLD0, 8, Offset (0x0A), FLD1, 1 } "
        "CreateDWordField (BUF0, Zero, DWRD) "
        "Method (TEST, 1, NotSerialized) { If ((Arg0 & One)) { Return (0x02) } FLD0 = (Arg0 | 0x04) Return (DWRD) } } }"
    ) in source


def test_iasl_reads_every_resource(tmp_path):
    template = resources.template(
        resources.io(0x3F8, 8),
        resources.irq(4),
        resources.dma(2),
        resources.interrupt(5, 10),
        resources.interrupt(20, edge=True, shared=False),
        resources.memory32_fixed(0xFED00000, 0x400),
        resources.bus_numbers(0, 0xFF),
        resources.io_window(0xD00, 0xFFFF),
        resources.memory_window(0xC0000000, 0xFEBFFFFF),
        resources.memory_window(0xC000000000, 0xFFFFFFFFFF, cacheable=True),
    )
    device = aml.device("DEV0", aml.name("_HID", aml.eisa_id("PNP0A03")), aml.name("_CRS", template))
    source = disassemble(definition_block(aml.scope("\\_SB", device)), tmp_path)
    for expected in (
        "IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08, )",
        "IRQNoFlags () {4}",
        "DMA (Compatibility, NotBusMaster, Transfer8, ) {2}",
        "Interrupt (ResourceConsumer, Level, ActiveHigh, Shared, ,, ) { 0x00000005, 0x0000000A, }",
        "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, ) { 0x00000014, }",
        "Memory32Fixed (ReadWrite, 0xFED00000, 0x00000400, )",
        "WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0x0000, 0x0000, 0x00FF, 0x0000, 0x0100, ,, )",
        "WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, "
        "0x0000, 0x0D00, 0xFFFF, 0x0000, 0xF300,",
        "DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, "
        "0x00000000, 0xC0000000, 0xFEBFFFFF, 0x00000000, 0x3EC00000,",
        "QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite, 0x0000000000000000, "
        "0x000000C000000000, 0x000000FFFFFFFFFF, 0x0000000000000000, 0x0000004000000000,",
    ):
        assert expected in source
