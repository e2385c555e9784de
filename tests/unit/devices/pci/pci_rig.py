"""A PCI bus on a bench: buses, memory, and a log of messages and interrupt pins."""

from emuvisor.bus.bus import Bus
from emuvisor.devices.pci.config_mechanism import ConfigAddress, ConfigData
from emuvisor.devices.pci.function import PciFunction
from emuvisor.devices.pci.pci_bus import PciBus
from emuvisor.errors import GuestAddressError

ADDRESS = 0xCF8
DATA = 0xCFC
RAM_SIZE = 0x10000


class Chip:
    """A register file that says what it was asked."""

    def __init__(self, name: str = "chip", size: int = 0x1000) -> None:
        self.name = name
        self.bytes = bytearray(size)
        self.resets = 0

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def write(self, offset: int, value: int, size: int) -> None:
        self.bytes[offset : offset + size] = value.to_bytes(size, "little")

    def reset(self) -> None:
        self.resets += 1


class FakeRegion:
    def __init__(self, length: int) -> None:
        self.length = length
        self.gpa: int | None = None

    def place(self, gpa: int | None) -> None:
        self.gpa = gpa


class FakeMemory:
    def __init__(self) -> None:
        self.ram = bytearray(RAM_SIZE)

    def _check(self, gpa: int, length: int) -> None:
        if gpa + length > RAM_SIZE:
            raise GuestAddressError(f"guest physical address {gpa:#x} is not memory")

    def read(self, gpa: int, length: int) -> bytes:
        self._check(gpa, length)
        return bytes(self.ram[gpa : gpa + length])

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        self._check(gpa, len(data))
        self.ram[gpa : gpa + len(data)] = data


class PciRig:
    """`cfg` and `set` reach configuration space as a guest does, through ports CF8h and CFCh."""

    def __init__(self) -> None:
        self.ports = Bus("port", 1 << 16)
        self.mmio = Bus("memory", 1 << 40)
        self.memory = FakeMemory()
        self.messages: list[tuple[int, int]] = []
        self.pins: list[tuple[int, int, bool]] = []
        self.reset_control = Chip("reset-control", 1)
        self.bus = PciBus(
            ports=self.ports,
            mmio=self.mmio,
            memory=self.memory,
            msi=lambda address, data: self.messages.append((address, data)),
            intx=lambda slot, pin, level: self.pins.append((slot, pin, level)),
        )
        self.address = ConfigAddress(reset_control=self.reset_control)
        self.ports.attach(ADDRESS, 4, self.address, width=4)
        self.ports.attach(DATA, 4, ConfigData(bus=self.bus, address=self.address), width=4)

    def select(self, slot: int, offset: int, number: int = 0) -> None:
        self.ports.write(ADDRESS, 1 << 31 | slot << 11 | number << 8 | offset & 0xFC, 4)

    def cfg(self, slot: int, offset: int, size: int = 4, number: int = 0) -> int:
        self.select(slot, offset, number)
        return self.ports.read(DATA + offset % 4, size)

    def set(self, slot: int, offset: int, value: int, size: int = 4, number: int = 0) -> None:
        self.select(slot, offset, number)
        self.ports.write(DATA + offset % 4, value, size)

    def places(self, function: PciFunction) -> list[tuple[str, int]]:
        """Where the function's devices answer, as (name, address)."""
        devices = {id(bar.device) for bar in function.bars.values()} | {id(function.rom)}
        return [
            (r.device.name, r.start) for b in (self.ports, self.mmio) for r in b if id(r.device) in devices
        ]


def simple(name: str = "simple", pin: int = 1, multifunction: bool = False) -> PciFunction:
    return PciFunction(
        name=name,
        vendor=0x1234,
        device=0x5678,
        class_code=0x0B1234,
        revision=7,
        interrupt_pin=pin,
        multifunction=multifunction,
    )
