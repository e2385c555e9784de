r"""The DSDT of a platform: devices that cannot be found by looking, PCI interrupt routing, and how to switch off.

    \_S5                      sleep type
    \_SB
        PCI0                  windows (_CRS), interrupt routing (_PRT)
            ISA               PIIX3 with its routing registers; the ISA devices
        LNKA .. LNKD          PIRQA to PIRQD
        HPET
        VR00 ..               virtio devices by memory-mapped I/O
        VGEN                  VM generation ID
        GED                   generic event device: tells VGEN's driver of changes
        user devices

Without PCI the ISA devices are in \_SB.
"""

from functools import lru_cache

from emuvisor.machine.tables import resources
from emuvisor.machine.tables.aml import (
    ARG0,
    RegionSpace,
    bit_and,
    bit_or,
    create_dword_field,
    device,
    eisa_id,
    field,
    if_,
    integer,
    method,
    name,
    name_string,
    notify,
    operation_region,
    package,
    return_,
    scope,
    store,
    string,
)
from emuvisor.machine.tables.platform import GenerationId, IsaDevice, Pci, Platform, VirtioMmioPlace

__all__ = ["dsdt"]

PCI_ROOT = "PNP0A03"
PCI_LINK = "PNP0C0F"
HPET = "PNP0103"
VIRTIO_MMIO = "LNRO0005"
GENERIC_EVENT_DEVICE = "ACPI0013"
GENERATION_ID = "EMUV0001"
GENERATION_ID_KIND = "VM_Gen_Counter"
"""The compatible ID and name that guests look for."""
GENERATION_ID_CHANGED = 0x80
EISA_ID_LENGTH = 7

CONFIG_MECHANISM = (0xCF8, 8)
BEFORE_CONFIG = (0, 0xCF7)
BEHIND_CONFIG = (0xD00, 0xFFFF)
ISA_BRIDGE_ADDRESS = 1 << 16
"""_ADR: slot 1, function 0."""
PIRQ_ROUTE_CONTROL = 0x60
"""PIRQRC[A:D] of PIIX3 (290550, section 2.2.10)."""
PIRQ_DISABLED = 0x80
PIRQ_IRQ_MASK = 0x0F
LINKS = "ABCD"
SLOTS = 32
PINS = 4
ANY_FUNCTION = 0xFFFF

# _STA
PRESENT, ENABLED, SHOWN, FUNCTIONING = 1, 2, 4, 8
STA_ON = PRESENT | ENABLED | FUNCTIONING
STA_SHOWN_ON = STA_ON | SHOWN
STA_OFF = PRESENT | FUNCTIONING

HPET_SIZE = 0x400
INTERRUPT_NUMBER_OFFSET = 5
"""Where an Extended Interrupt descriptor has its first interrupt number."""


@lru_cache(maxsize=32)
def dsdt(platform: Platform) -> bytes:
    """The definition block: everything behind the table's header. Guests that are alike share it: it is half of what
    making a board takes."""
    isa = b"".join(_isa_device(d) for d in platform.isa)
    root = isa if platform.pci is None else _pci_root(platform.pci, isa) + _links(platform.pci)
    hpet = b"" if platform.hpet is None else _hpet(platform.hpet)
    sleep_type = integer(platform.power.s5)
    s5 = name("_S5", package(sleep_type, sleep_type, integer(0), integer(0)))
    virtio = b"".join(_virtio(number, place) for number, place in enumerate(platform.virtio))
    generation = b"" if platform.generation_id is None else _generation_id(platform.generation_id)
    return scope("\\_SB", root, hpet, virtio, generation, platform.devices) + s5


def _isa_device(isa: IsaDevice) -> bytes:
    """A device with fixed resources."""
    descriptors = [resources.io(*ports) for ports in isa.ports]
    if isa.irq is not None:
        descriptors.append(resources.irq(isa.irq))
    if isa.dma is not None:
        descriptors.append(resources.dma(isa.dma))
    hid = eisa_id(isa.hid) if len(isa.hid) == EISA_ID_LENGTH else string(isa.hid)
    return device(
        isa.name,
        name("_HID", hid),
        name("_UID", integer(isa.uid)),
        name("_STA", integer(STA_SHOWN_ON)),
        name("_CRS", resources.template(*descriptors)),
    )


def _hpet(address: int) -> bytes:
    return device(
        "HPET",
        name("_HID", eisa_id(HPET)),
        name("_UID", integer(0)),
        name("_CRS", resources.template(resources.memory32_fixed(address, HPET_SIZE))),
    )


def _virtio(number: int, place: VirtioMmioPlace) -> bytes:
    """A virtio device that no bus announces; the identifier is what Linux and QEMU agreed on."""
    return device(
        f"VR{number:02X}",
        name("_HID", string(VIRTIO_MMIO)),
        name("_UID", integer(number)),
        name(
            "_CRS",
            resources.template(
                resources.memory32_fixed(place.address, place.length), resources.interrupt(place.pin)
            ),
        ),
    )


def _generation_id(generation: GenerationId) -> bytes:
    """The VM generation ID, and who tells of its changes: hardware-reduced ACPI has no general-purpose event registers,
    so all boards have the generic event device (ACPI 6.4, section 5.6.9)."""
    low, high = generation.address & 0xFFFF_FFFF, generation.address >> 32
    identifier = device(
        "VGEN",
        name("_HID", string(GENERATION_ID)),
        name("_CID", string(GENERATION_ID_KIND)),
        name("_DDN", string(GENERATION_ID_KIND)),
        name("ADDR", package(integer(low), integer(high))),
    )
    events = device(
        "GED_",
        name("_HID", string(GENERIC_EVENT_DEVICE)),
        name("_UID", integer(0)),
        name("_CRS", resources.template(resources.interrupt(generation.irq, edge=True, shared=False))),
        method("_EVT", notify("\\_SB.VGEN", GENERATION_ID_CHANGED), arguments=1, serialized=True),
    )
    return identifier + events


def _pci_root(pci: Pci, isa: bytes) -> bytes:
    windows = resources.template(
        resources.bus_numbers(0, 0xFF),
        resources.io(*CONFIG_MECHANISM),
        resources.io_window(*BEFORE_CONFIG),
        resources.io_window(*BEHIND_CONFIG),
        *(resources.memory_window(first, last) for first, last in pci.memory),
    )
    bridge = device(
        "ISA",
        name("_ADR", integer(ISA_BRIDGE_ADDRESS)),
        operation_region("PIRQ", RegionSpace.PCI_CONFIG, PIRQ_ROUTE_CONTROL, len(LINKS)),
        field("PIRQ", [(f"PRQ{letter}", 8) for letter in LINKS]),
        isa,
    )
    return device(
        "PCI0",
        name("_HID", eisa_id(PCI_ROOT)),
        name("_UID", integer(0)),
        name("_CRS", windows),
        method("_PRT", return_(_routing(pci))),
        bridge,
    )


def _routing(pci: Pci) -> bytes:
    """_PRT: for each slot and pin the link device that it is wired to. Slot 0 is the host bridge."""
    return package(
        *(
            package(
                integer(slot << 16 | ANY_FUNCTION),
                integer(pin - 1),
                name_string(f"\\_SB.LNK{LINKS[pci.pirq_of(slot, pin)]}"),
                integer(0),
            )
            for slot in range(1, SLOTS)
            for pin in range(1, PINS + 1)
        )
    )


def _links(pci: Pci) -> bytes:
    """The four interrupt links, over PIIX3's routing registers."""
    return b"".join(_link(number, letter, pci) for number, letter in enumerate(LINKS))


def _link(number: int, letter: str, pci: Pci) -> bytes:
    register = name_string(f"\\_SB.PCI0.ISA.PRQ{letter}")
    disabled = integer(PIRQ_DISABLED)
    return device(
        f"LNK{letter}",
        name("_HID", eisa_id(PCI_LINK)),
        name("_UID", integer(number)),
        name("_PRS", resources.template(resources.interrupt(*pci.choices))),
        method(
            "_STA",
            if_(bit_and(register, disabled), return_(integer(STA_OFF))),
            return_(integer(STA_ON)),
        ),
        method("_DIS", store(bit_or(register, disabled), register)),
        name("ROUT", resources.template(resources.interrupt(0))),
        method(
            "_CRS",
            create_dword_field(name_string("ROUT"), INTERRUPT_NUMBER_OFFSET, "IRQ"),
            store(bit_and(register, integer(PIRQ_IRQ_MASK)), name_string("IRQ")),
            return_(name_string("ROUT")),
            serialized=True,
        ),
        method(
            "_SRS",
            create_dword_field(ARG0, INTERRUPT_NUMBER_OFFSET, "WANT"),
            store(name_string("WANT"), register),
            arguments=1,
            serialized=True,
        ),
    )
