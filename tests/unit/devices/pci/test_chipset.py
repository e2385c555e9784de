"""The pc board's chip set: host bridge, ISA bridge, power management."""

import pytest
from loading import loaded
from pci_rig import Chip, PciRig, simple

from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.pci.i440fx import I440FX, pieces
from emuvisor.devices.pci.piix3 import PIIX3, pirq_of
from emuvisor.devices.pci.piix4_pm import PIIX4PowerManagement

KIB = 1024


class FakeShadow:
    """Keeps what each KiB from C0000h was last set to: (reads go to RAM, writes go to RAM)."""

    def __init__(self) -> None:
        self.kib = [(False, False)] * 256
        self.calls = 0

    def set(self, gpa: int, length: int, *, read_ram: bool, write_ram: bool) -> None:
        self.calls += 1
        first = (gpa - 0xC0000) // KIB
        self.kib[first : first + length // KIB] = [(read_ram, write_ram)] * (length // KIB)

    def at(self, gpa: int) -> tuple[bool, bool]:
        return self.kib[(gpa - 0xC0000) // KIB]


class HostBridgeRig(PciRig):
    def __init__(self) -> None:
        super().__init__()
        self.shadow = FakeShadow()
        self.bridge = I440FX(shadow=self.shadow)
        self.bus.plug(self.bridge, 0)


def test_host_bridge_header() -> None:
    rig = HostBridgeRig()
    assert rig.cfg(0, 0x00) == 0x1237_8086
    assert rig.cfg(0, 0x08) == 0x0600_0002
    assert rig.cfg(0, 0x2C) == 0x1100_1AF4
    rig.set(0, 0x04, 0, 2)
    assert rig.cfg(0, 0x04, 2) == 0x0006, "memory and bus mastering are always on"


def test_attribute_map() -> None:
    rig = HostBridgeRig()
    rig.set(0, 0x59, 0xFF, 1)
    assert rig.cfg(0, 0x59, 1) == 0x30
    assert rig.shadow.at(0xF0000) == rig.shadow.at(0xFFFFF) == (True, True)
    assert rig.shadow.at(0xEFFFF) == (False, False)
    rig.set(0, 0x59, 0x10, 1)
    assert rig.shadow.at(0xFFFFF) == (True, False)
    rig.set(0, 0x5A, 0x21, 1)
    assert [rig.shadow.at(a) for a in (0xC0000, 0xC3FFF, 0xC4000, 0xC8000)] == [
        (True, False),
        (True, False),
        (False, True),
        (False, False),
    ]
    rig.set(0, 0x5C, 0x3333_3333)
    assert all(rig.shadow.at(a) == (True, True) for a in range(0xD0000, 0xF0000, KIB))
    calls = rig.shadow.calls
    rig.set(0, 0x5C, 0x3333_3333)
    assert rig.shadow.calls == calls, "what stays as it is costs nothing"
    rig.bus.reset()
    assert set(rig.shadow.kib) == {(False, False)}


def test_pieces_of_the_attribute_map_cover_all_once() -> None:
    covered = sorted((base, length) for _, _, base, length in pieces())
    assert [base for base, _ in covered] == [0xC0000 + i * 16 * KIB for i in range(13)]
    assert sum(length for _, length in covered) == 256 * KIB


def test_attribute_map_is_restored() -> None:
    rig = HostBridgeRig()
    rig.set(0, 0x59, 0x30, 1)
    shadow = FakeShadow()
    again = loaded(I440FX(shadow=shadow), rig.bridge.save())
    assert shadow.at(0xF0000) == (True, True)
    assert again.save() == rig.bridge.save()


def test_show_ram() -> None:
    rig = HostBridgeRig()
    rig.bridge.show_ram(0xC0000, 0x30000)
    assert rig.shadow.at(0xC0000) == rig.shadow.at(0xEFFFF) == (True, True)
    assert rig.shadow.at(0xF0000) == (False, False)


# ---- PIIX3 ----


class IsaBridgeRig(PciRig):
    def __init__(self) -> None:
        super().__init__()
        self.levels: dict[int, bool] = {}
        irqs = [InterruptLine(self._sink(irq), f"irq{irq}") for irq in range(16)]
        self.bridge = PIIX3(irqs=irqs)
        self.bus.plug(self.bridge, 1)

    def _sink(self, irq: int):  # type: ignore[no-untyped-def]
        return lambda level: self.levels.__setitem__(irq, level)

    @property
    def high(self) -> list[int]:
        return sorted(irq for irq, level in self.levels.items() if level)


def test_isa_bridge_header() -> None:
    rig = IsaBridgeRig()
    assert rig.cfg(1, 0x00) == 0x7000_8086
    assert rig.cfg(1, 0x08) == 0x0601_0000
    assert rig.cfg(1, 0x0C) == 0x0080_0000
    assert rig.cfg(1, 0x60) == 0x8080_8080
    rig.set(1, 0x60, 0xFFFF_FFFF)
    assert rig.cfg(1, 0x60) == 0x8F8F_8F8F


@pytest.mark.parametrize(
    ("slot", "pin", "pirq"), [(1, 1, 0), (2, 1, 1), (3, 1, 2), (3, 4, 1), (4, 1, 3), (0, 1, 3)]
)
def test_pirq_of(slot: int, pin: int, pirq: int) -> None:
    assert pirq_of(slot, pin) == pirq


def test_pirq_routing() -> None:
    rig = IsaBridgeRig()
    rig.bridge.set_pin(3, 1, True)
    assert rig.high == []
    rig.set(1, 0x62, 11, 1)
    assert (rig.high, rig.bridge.routed_to(2)) == ([11], 11)
    rig.set(1, 0x62, 5, 1)
    assert rig.high == [5]
    for value in (0x80 | 5, 0, 1, 2, 8, 13):
        rig.set(1, 0x62, value, 1)
        assert rig.high == []


def test_pirqs_that_share_a_line() -> None:
    rig = IsaBridgeRig()
    rig.set(1, 0x60, 0x0A0A_0A0A)
    rig.bridge.set_pin(2, 1, True)
    rig.bridge.set_pin(3, 1, True)
    rig.bridge.set_pin(3, 1, True)
    rig.bridge.set_pin(2, 1, False)
    assert rig.high == [10]
    rig.bridge.set_pin(3, 1, False)
    assert rig.high == []


def test_isa_bridge_reset_and_restore() -> None:
    rig = IsaBridgeRig()
    rig.set(1, 0x60, 0x0B0B_0A0A)
    rig.bridge.set_pin(3, 1, True)
    levels: set[int] = set()
    irqs = [InterruptLine(lambda level, irq=irq: levels.add(irq) if level else None) for irq in range(16)]  # type: ignore[misc]
    again = loaded(PIIX3(irqs=irqs), rig.bridge.save())
    assert levels == {11}
    assert again.save() == rig.bridge.save()
    rig.bus.reset()
    assert rig.high == []
    rig.set(1, 0x62, 9, 1)
    assert rig.high == [9], "the pin is still high: only its function lowers it"


# ---- PIIX4 power management ----


@pytest.fixture
def power() -> PciRig:
    rig = PciRig()
    rig.bus.plug(simple(multifunction=True), 1)
    rig.bus.plug(PIIX4PowerManagement(registers=Chip("acpi", 64)), 1, 3)
    return rig


def places(rig: PciRig) -> list[int]:
    return [r.start for r in rig.ports if r.device.name == "acpi"]


def test_power_management_header(power: PciRig) -> None:
    assert power.cfg(1, 0x00, number=3) == 0x7113_8086
    assert power.cfg(1, 0x08, number=3) == 0x0680_0003
    assert power.cfg(1, 0x3C, 2, number=3) == 0x0109
    assert power.cfg(1, 0x58, number=3) == 0x0200_0000


def test_power_management_base(power: PciRig) -> None:
    power.set(1, 0x40, 0xFFFF_FFFF, number=3)
    assert power.cfg(1, 0x40, number=3) == 0xFFC1
    power.set(1, 0x40, 0x601, number=3)
    assert places(power) == []
    power.set(1, 0x80, 0xFF, 1, number=3)
    assert power.cfg(1, 0x80, 1, number=3) == 1
    assert places(power) == [0x600]
    power.set(1, 0x40, 0xB000, number=3)
    assert places(power) == [0xB000]
    power.set(1, 0x40, 0, number=3)
    assert places(power) == []
    power.set(1, 0x40, 0xCC0, number=3)
    assert places(power) == [], "the configuration ports are there"


def test_power_management_reset_hides_the_registers(power: PciRig) -> None:
    power.set(1, 0x40, 0x600, number=3)
    power.set(1, 0x80, 1, 1, number=3)
    power.bus.reset()
    assert places(power) == []


def test_smbus_base_is_kept(power: PciRig) -> None:
    power.set(1, 0x90, 0x701, number=3)
    power.set(1, 0xD2, 0x09, 1, number=3)
    assert (power.cfg(1, 0x90, number=3), power.cfg(1, 0xD2, 1, number=3)) == (0x701, 9)
