"""virtio over PCI, without the legacy interface: virtio 1.2, section 4.1.

All structures lie in one BAR, one page each; vendor-specific capabilities say where. A second BAR holds the MSI-X
table.
"""

from collections.abc import Callable
from struct import Struct

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Number, Numbers, load_fields, save_fields, saved_part
from emuvisor.devices.pci.bar import Bar
from emuvisor.devices.pci.capabilities.msix import Msix
from emuvisor.devices.pci.function import PciFunction
from emuvisor.devices.pci.registers import CAP_VENDOR_SPECIFIC
from emuvisor.devices.virtio.device import MAX_QUEUES, VirtioDevice
from emuvisor.devices.virtio.features import DeviceType, Feature
from emuvisor.devices.virtio.queue import VirtQueue
from emuvisor.errors import SnapshotError
from emuvisor.memory import DmaMemory
from emuvisor.units import PAGE_SIZE

__all__ = ["VirtioPci"]

# Section 4.1.2.
VENDOR = 0x1AF4
MODERN_DEVICE = 0x1040
"""PCI device ID of device type 0."""
SUBSYSTEM = (VENDOR, 0x1100)
REVISION = 1
INTA = 1

CLASS_OTHER = 0x00FF00
CLASSES: dict[int, int] = {
    DeviceType.NETWORK: 0x020000,
    DeviceType.BLOCK: 0x010000,
    DeviceType.CONSOLE: 0x078000,
    DeviceType.INPUT: 0x090000,
    DeviceType.SOCKET: 0x078000,
    DeviceType.FILE_SYSTEM: 0x018000,
}
"""Class codes; the specification leaves them to the device, guests and people like fitting ones."""

MSIX_BAR = 1
BAR_INDEX = 4
BAR_SIZE = 4 * PAGE_SIZE
COMMON = 0 * PAGE_SIZE
ISR = 1 * PAGE_SIZE
DEVICE = 2 * PAGE_SIZE
NOTIFY = 3 * PAGE_SIZE
"""Where in the BAR the structures begin."""
NOTIFY_MULTIPLIER = 4

# Capabilities, section 4.1.4.
CAP_COMMON = 1
CAP_NOTIFY = 2
CAP_ISR = 3
CAP_DEVICE = 4
CAP_PCI = 5
CAP_HEADER = 2
"""Identifier and next pointer."""
CAP_BODY = Struct("<BBBBHII")
"""cap_len, cfg_type, bar, id, padding, offset, length."""
CAP_PCI_BAR = 4
CAP_PCI_OFFSET = 8
CAP_PCI_LENGTH = 12
CAP_PCI_DATA = 16
"""Fields of the PCI configuration access capability, section 4.1.4.9."""
DATA_SIZE = 4
WIDTHS = (1, 2, 4)

# The common configuration structure, section 4.1.4.3.
COMMON_CONFIG = Struct("<IIIIHHBBHHHHHQQQHH")
DEVICE_FEATURE_SELECT = 0x00
DRIVER_FEATURE_SELECT = 0x08
DRIVER_FEATURE = 0x0C
CONFIG_MSIX_VECTOR = 0x10
DEVICE_STATUS = 0x14
QUEUE_SELECT = 0x16
QUEUE_SIZE = 0x18
QUEUE_MSIX_VECTOR = 0x1A
QUEUE_ENABLE = 0x1C
QUEUE_DESC = 0x20
QUEUE_DRIVER = 0x28
QUEUE_DEVICE = 0x30
QUEUE_RESET = 0x3A

NO_VECTOR = 0xFFFF
ISR_QUEUE = 1
ISR_CONFIG = 2
DWORD = 0xFFFF_FFFF

AREA_OF = {QUEUE_DESC: "descriptor_area", QUEUE_DRIVER: "driver_area", QUEUE_DEVICE: "device_area"}

_PART = "virtio"
_VERSION = 1
_FIELDS = Fields(
    {
        "device_feature_select": Number(DWORD),
        "driver_feature_select": Number(DWORD),
        "driver_features": Number((1 << 64) - 1),
        "queue_select": Number(0xFFFF),
        "isr": Number(ISR_QUEUE | ISR_CONFIG),
        "config_vector": Number(NO_VECTOR),
        "queue_vectors": Numbers(MAX_QUEUES, NO_VECTOR),
    }
)


def _capability(kind: int, offset: int, length: int, more: bytes = b"") -> bytes:
    """The body of a capability that says where structure `kind` lies."""
    cap_length = CAP_HEADER + CAP_BODY.size + len(more)
    return CAP_BODY.pack(cap_length, kind, BAR_INDEX, 0, 0, offset, length) + more


class VirtioPci(PciFunction):
    """`device` as a PCI function: 1AF4:1040h + its type. `on_suspend(reason)` pauses the guest.

    `vectors` MSI-X vectors, by default one for each queue and one for the configuration; 0: only INTA#. The device
    touches memory only while the guest lets it master the bus.
    """

    def __init__(
        self,
        *,
        device: VirtioDevice,
        memory: DmaMemory,
        clock: Clock,
        on_suspend: Callable[[str], None],
        vectors: int | None = None,
    ) -> None:
        super().__init__(
            name=device.name,
            vendor=VENDOR,
            device=MODERN_DEVICE + device.device_id,
            class_code=CLASSES.get(device.device_id, CLASS_OTHER),
            revision=REVISION,
            subsystem=SUBSYSTEM,
            interrupt_pin=INTA,
        )
        self.device = device
        self.memory = memory
        self.clock = clock
        self.on_suspend = on_suspend
        self.dma = False
        self._vectors = len(device.queue_sizes) + 1 if vectors is None else vectors
        self._msix: Msix | None = self.add_msix(MSIX_BAR, self._vectors) if self._vectors else None
        structures = _Structures(self)
        self.add_bar(BAR_INDEX, Bar(size=BAR_SIZE, space="memory", device=structures, width=8))
        self._add_structure(CAP_COMMON, COMMON, COMMON_CONFIG.size)
        multiplier = NOTIFY_MULTIPLIER.to_bytes(4, "little")
        self._add_structure(CAP_NOTIFY, NOTIFY, NOTIFY_MULTIPLIER * len(device.queue_sizes), multiplier)
        self._add_structure(CAP_ISR, ISR, 1)
        self._add_structure(CAP_DEVICE, DEVICE, PAGE_SIZE)
        self._access = self._add_structure(CAP_PCI, 0, 0, bytes(DATA_SIZE))
        self.allow(self._access + CAP_PCI_BAR, 0xFF, 1)
        self.allow(self._access + CAP_PCI_OFFSET, DWORD, 4)
        self.allow(self._access + CAP_PCI_LENGTH, DWORD, 4)
        self._writers: dict[tuple[int, int], Callable[[int], None]] = {
            (DEVICE_FEATURE_SELECT, 4): self._select_device_features,
            (DRIVER_FEATURE_SELECT, 4): self._select_driver_features,
            (DRIVER_FEATURE, 4): self._set_driver_features,
            (CONFIG_MSIX_VECTOR, 2): self._set_config_vector,
            (DEVICE_STATUS, 1): self._set_status,
            (QUEUE_SELECT, 2): self._select_queue,
            (QUEUE_SIZE, 2): self._set_queue_size,
            (QUEUE_MSIX_VECTOR, 2): self._set_queue_vector,
            (QUEUE_ENABLE, 2): self._enable_queue,
            (QUEUE_RESET, 2): self._reset_queue,
        }
        """Registers of the common configuration by offset and size: they take writes of their own size only."""
        self._clear()
        device.connect(self)

    def _add_structure(self, kind: int, offset: int, length: int, more: bytes = b"") -> int:
        body = _capability(kind, offset, length, more)
        return self.add_capability(CAP_VENDOR_SPECIFIC, body, bytes(len(body)))

    def _clear(self) -> None:
        self.device_feature_select = 0
        self.driver_feature_select = 0
        self.driver_features = 0
        self.queue_select = 0
        self.isr = 0
        self.config_vector = NO_VECTOR
        self.queue_vectors = [NO_VECTOR] * len(self.device.queue_sizes)

    # ---- what the device asks for ----

    def interrupt_queue(self, index: int) -> None:
        """A used buffer notification: section 4.1.5.3."""
        self._interrupt(self.queue_vectors[index], ISR_QUEUE)

    def interrupt_config(self) -> None:
        """A configuration change notification: section 4.1.5.4."""
        self._interrupt(self.config_vector, ISR_CONFIG)

    def _interrupt(self, vector: int, isr: int) -> None:
        if self._msix is not None and self._msix.enabled:
            if vector != NO_VECTOR:
                self._msix.notify(vector)
        else:
            self.isr |= isr
            self.set_intx(True)

    # ---- the BAR's structures ----

    def read_structure(self, offset: int, size: int) -> int:
        """A read of the BAR."""
        if offset < ISR:
            return int.from_bytes(self._common()[offset : offset + size], "little")
        if offset < DEVICE:
            return self._take_isr() if offset == ISR else 0
        if offset < NOTIFY:
            return int.from_bytes(self.device.config()[offset - DEVICE : offset - DEVICE + size], "little")
        return 0

    def write_structure(self, offset: int, value: int, size: int) -> None:
        """A write to the BAR."""
        if offset >= NOTIFY:
            self.device.kick((offset - NOTIFY) // NOTIFY_MULTIPLIER)
        elif offset < ISR:
            writer = self._writers.get((offset, size))
            if writer is not None:
                writer(value)
            else:
                self._write_area(offset, value, size)
        elif offset >= DEVICE and offset - DEVICE + size <= len(self.device.config()):
            self.device.write_config(offset - DEVICE, value.to_bytes(size, "little"))

    def _take_isr(self) -> int:
        """Reading the ISR status (section 4.1.4.5) clears it and lowers the pin."""
        isr, self.isr = self.isr, 0
        self.set_intx(False)
        return isr

    @property
    def _queue(self) -> VirtQueue | None:
        """The queue selected."""
        queues = self.device.queues
        return queues[self.queue_select] if self.queue_select < len(queues) else None

    def _common(self) -> bytes:
        device, queue = self.device, self._queue
        features = 0
        if self.device_feature_select < 2:
            features = device.offered >> 32 * self.device_feature_select & DWORD
        chosen = 0
        if self.driver_feature_select < 2:
            chosen = self.driver_features >> 32 * self.driver_feature_select & DWORD
        of_queue = (0, NO_VECTOR, 0, 0, 0, 0, 0, 0, 0)
        if queue is not None:
            of_queue = (
                queue.size,
                self.queue_vectors[queue.index],
                int(queue.ready),
                queue.index,
                queue.descriptor_area,
                queue.driver_area,
                queue.device_area,
                0,  # queue_notify_data, for a feature that is not offered
                0,  # queue_reset: a reset is over at once
            )
        return COMMON_CONFIG.pack(
            self.device_feature_select,
            features,
            self.driver_feature_select,
            chosen,
            self.config_vector,
            len(device.queues),
            device.status,
            device.generation,
            self.queue_select,
            *of_queue,
        )

    def _select_device_features(self, value: int) -> None:
        self.device_feature_select = value

    def _select_driver_features(self, value: int) -> None:
        self.driver_feature_select = value

    def _set_driver_features(self, value: int) -> None:
        if self.driver_feature_select < 2:
            shift = 32 * self.driver_feature_select
            self.driver_features = self.driver_features & ~(DWORD << shift) | value << shift

    def _vector(self, value: int) -> int:
        """What a vector register holds after a write of `value`: NO_VECTOR when there is no such vector."""
        return value if value < self._vectors else NO_VECTOR

    def _set_config_vector(self, value: int) -> None:
        self.config_vector = self._vector(value)

    def _set_queue_vector(self, value: int) -> None:
        if self._queue is not None:
            self.queue_vectors[self.queue_select] = self._vector(value)

    def _set_status(self, value: int) -> None:
        if value:
            self.device.set_status(value, self.driver_features)
        else:
            self._reset_device()

    def _select_queue(self, value: int) -> None:
        self.queue_select = value

    def _set_queue_size(self, value: int) -> None:
        if self._queue is not None and not self._queue.ready:
            self._queue.size = value

    def _enable_queue(self, value: int) -> None:
        """The driver must not write 0; a queue is stopped by resetting it."""
        if value & 1 and self._queue is not None and not self._queue.ready:
            self.device.enable_queue(self.queue_select)

    def _reset_queue(self, value: int) -> None:
        if value & 1 and self._queue is not None and self.device.has(Feature.RING_RESET):
            self.device.reset_queue(self.queue_select)

    def _set_area(self, area: str, mask: int, value: int) -> None:
        queue = self._queue
        if queue is not None and not queue.ready:
            setattr(queue, area, getattr(queue, area) & ~mask | value)

    def _write_area(self, offset: int, value: int, size: int) -> None:
        """The addresses of a queue's areas are written whole, or as two double words."""
        area = AREA_OF.get(offset & ~7)
        if area is not None and (size == 8 or (size == 4 and offset % 4 == 0)) and offset % size == 0:
            shift = 8 * (offset % 8)
            self._set_area(area, ((1 << 8 * size) - 1) << shift, value << shift)

    # ---- PCI ----

    def config_read(self, offset: int, size: int) -> int:
        """Configuration space, and behind pci_cfg_data the BAR: section 4.1.4.9."""
        if offset & ~3 == self._access + CAP_PCI_DATA and (window := self._window()) is not None:
            value = self.read_structure(*window)
            self._put(self._access + CAP_PCI_DATA, value & (1 << 8 * window[1]) - 1, DATA_SIZE)
        return super().config_read(offset, size)

    def config_write(self, offset: int, value: int, size: int) -> None:
        """Configuration space; a write to pci_cfg_data goes to the BAR."""
        if offset & ~3 == self._access + CAP_PCI_DATA:
            if (window := self._window()) is not None:
                at, width = window
                self.write_structure(at, value & (1 << 8 * width) - 1, width)
            return
        super().config_write(offset, value, size)
        self._follow_bus_master()

    def _window(self) -> tuple[int, int] | None:
        """Offset and size in the BAR to which pci_cfg_data leads; None unless it is an aligned access inside it."""
        bar = self.config[self._access + CAP_PCI_BAR]
        offset = self._get(self._access + CAP_PCI_OFFSET, 4)
        length = self._get(self._access + CAP_PCI_LENGTH, 4)
        if bar != BAR_INDEX or length not in WIDTHS or offset % length or offset + length > BAR_SIZE:
            return None
        return offset, length

    def _follow_bus_master(self) -> None:
        """Without bus mastering there is no DMA."""
        if self.bus_master != self.dma:
            self.dma = self.bus_master
            self.device.restart_queues()

    def _reset_device(self) -> None:
        self._clear()
        self.set_intx(False)
        self.device.reset()

    def reset(self) -> None:
        """RST#."""
        super().reset()
        self.dma = False
        self._reset_device()

    # ---- saved state ----

    def save(self) -> SavedState:
        """The function, the transport's registers and the device as plain data."""
        own = save_fields(self, _PART, _VERSION, _FIELDS)
        return super().save() | {_PART: own, "chip": self.device.save()}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave; the wiring stays. Raises SnapshotError."""
        super().load(state)
        load_fields(self, saved_part(state, self.name, _PART), _PART, _VERSION, _FIELDS)
        vectors = [self.config_vector, *self.queue_vectors]
        if len(vectors) != len(self.device.queue_sizes) + 1 or vectors != [self._vector(v) for v in vectors]:
            raise SnapshotError(
                f"{self.name}: the saved interrupt vectors {vectors} are not those of this device"
            )
        self.dma = self.bus_master
        self.device.load(saved_part(state, self.name, "chip"))


class _Structures:
    """What is behind the BAR."""

    def __init__(self, function: VirtioPci) -> None:
        self.name = f"{function.name} (virtio-pci)"
        self.read = function.read_structure
        self.write = function.write_structure

    def reset(self) -> None:
        """The function resets itself."""
