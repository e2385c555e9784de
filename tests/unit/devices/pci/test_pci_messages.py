"""MSI and MSI-X."""

import pytest
from pci_rig import PciRig, simple

from emuvisor.devices.pci.function import PciFunction
from emuvisor.errors import UsageError

COMMAND, BAR0, CAP = 0x04, 0x10, 0x40
MEMORY, MASTER = 2, 4
SLOT = 4
ADDRESS = 0xFEE0_1000
TABLE = 0xE000_0000


def plugged(function: PciFunction) -> PciRig:
    rig = PciRig()
    rig.bus.plug(function, SLOT)
    rig.set(SLOT, COMMAND, MEMORY | MASTER, 2)
    return rig


@pytest.mark.parametrize(("wide", "data_at", "control"), [(False, 8, 0x0000), (True, 12, 0x0080)])
def test_msi(wide: bool, data_at: int, control: int) -> None:
    function = simple()
    msi = function.add_msi(1, wide=wide, maskable=False)
    rig = plugged(function)
    assert rig.cfg(SLOT, CAP) == control << 16 | 0x0005
    function.set_intx(True)
    assert not msi.notify()
    rig.set(SLOT, CAP + 4, ADDRESS | 3)
    if wide:
        rig.set(SLOT, CAP + 8, 0x12)
    rig.set(SLOT, CAP + data_at, 0xFFFF_4041)
    rig.set(SLOT, CAP + 2, 1, 2)
    assert rig.pins == [(SLOT, 1, True), (SLOT, 1, False)], "messages replace the pin"
    assert msi.notify()
    assert rig.messages == [(ADDRESS | (0x12 << 32 if wide else 0), 0x4041)]
    rig.set(SLOT, COMMAND, MEMORY, 2)
    assert msi.notify()
    assert len(rig.messages) == 1, "a message is a memory write: it needs bus mastering"


def test_msi_vectors_fold_into_those_allocated() -> None:
    function = simple()
    msi = function.add_msi(8)
    rig = plugged(function)
    rig.set(SLOT, CAP + 4, ADDRESS)
    rig.set(SLOT, CAP + 12, 0x57)
    rig.set(SLOT, CAP + 2, 1 | 2 << 4, 2)
    assert rig.cfg(SLOT, CAP + 2, 2) == 0x0187 & ~6 | 3 << 1 | 2 << 4
    for vector in (0, 3, 6):
        msi.notify(vector)
    assert [data for _, data in rig.messages] == [0x54, 0x57, 0x56]
    rig.set(SLOT, CAP + 2, 1 | 7 << 4, 2)
    assert msi.allocated == 8, "a reserved number is no more than there are"


def test_msi_masked_vectors_wait() -> None:
    function = simple()
    msi = function.add_msi(4)
    rig = plugged(function)
    rig.set(SLOT, CAP + 4, ADDRESS)
    rig.set(SLOT, CAP + 2, 1 | 2 << 4, 2)
    rig.set(SLOT, CAP + 16, 0xFFFF_FFFF)
    assert rig.cfg(SLOT, CAP + 16) == 0xF
    msi.notify(1)
    msi.notify(2)
    rig.set(SLOT, CAP + 20, 0)
    assert rig.cfg(SLOT, CAP + 20) == 0b0110
    assert rig.messages == []
    rig.set(SLOT, CAP + 16, 0b0100)
    assert rig.messages == [(ADDRESS, 1)]
    assert rig.cfg(SLOT, CAP + 20) == 0b0100
    rig.set(SLOT, CAP + 16, 0)
    assert rig.messages == [(ADDRESS, 1), (ADDRESS, 2)]


@pytest.mark.parametrize("vectors", [0, 3, 64])
def test_msi_vector_count(vectors: int) -> None:
    with pytest.raises(UsageError) as caught:
        simple().add_msi(vectors)
    assert str(caught.value) == f"simple: {vectors} MSI vectors; a power of two from 1 to 32"


def msix_rig(vectors: int = 3) -> tuple[PciRig, PciFunction]:
    function = simple()
    msix = function.add_msix(0, vectors)
    rig = plugged(function)
    rig.set(SLOT, BAR0, TABLE)
    for vector in range(vectors):
        rig.mmio.write(TABLE + 16 * vector, ADDRESS | 1 << 32, 8)
        rig.mmio.write(TABLE + 16 * vector + 8, 0x50 + vector, 4)
    assert not msix.notify()
    return rig, function


def test_msix_layout() -> None:
    rig, _ = msix_rig()
    assert rig.cfg(SLOT, CAP) == 0x0002_0011
    assert (rig.cfg(SLOT, CAP + 4), rig.cfg(SLOT, CAP + 8)) == (0, 0x800)
    rig.set(SLOT, CAP, 0xFFFF_FFFF)
    assert rig.cfg(SLOT, CAP) == 0xC002_0011
    assert rig.mmio.read(TABLE + 12, 4) == 1, "masked from reset on"
    rig.mmio.write(TABLE + 12, 0xFFFF_FFFE, 4)
    assert rig.mmio.read(TABLE + 12, 4) == 0
    rig.mmio.write(TABLE, 0xFFFF_FFFF, 4)
    assert rig.mmio.read(TABLE, 4) == 0xFFFF_FFFC
    rig.mmio.write(TABLE + 48, 0xFF, 4)
    assert rig.mmio.read(TABLE + 48, 4) == 0, "behind the table"
    rig.mmio.write(TABLE + 0x800, 0xFF, 8)
    assert rig.mmio.read(TABLE + 0x800, 8) == 0, "pending bits are read-only"
    _, big = msix_rig(2048)
    assert big.bars[0].size == 0x10000


def test_msix_masks() -> None:
    function = simple()
    msix = function.add_msix(0, 3)
    rig = plugged(function)
    rig.set(SLOT, BAR0, TABLE)
    rig.set(SLOT, CAP + 2, 0xC000, 2)
    for vector in range(3):
        rig.mmio.write(TABLE + 16 * vector, ADDRESS, 8)
        rig.mmio.write(TABLE + 16 * vector + 8, 0x50 + vector, 4)
    rig.mmio.write(TABLE + 12, 0, 4)
    function.set_intx(True)
    assert rig.pins == []
    assert msix.notify(0)
    assert msix.notify(2)
    assert rig.messages == []
    assert rig.mmio.read(TABLE + 0x800, 8) == 0b101
    rig.set(SLOT, CAP + 2, 0x8000, 2)
    assert rig.messages == [(ADDRESS, 0x50)]
    rig.mmio.write(TABLE + 16 * 2 + 12, 0, 4)
    assert rig.messages == [(ADDRESS, 0x50), (ADDRESS, 0x52)]
    assert rig.mmio.read(TABLE + 0x800, 8) == 0
    msix.notify(0)
    assert rig.messages[2:] == [(ADDRESS, 0x50)]


@pytest.mark.parametrize("vectors", [0, 2049])
def test_msix_vector_count(vectors: int) -> None:
    with pytest.raises(UsageError) as caught:
        simple().add_msix(0, vectors)
    assert str(caught.value) == f"simple: {vectors} MSI-X vectors; 1 to 2048"
