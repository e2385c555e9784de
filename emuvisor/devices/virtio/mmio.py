"""virtio over MMIO, version 2: virtio 1.2, section 4.2."""

from collections.abc import Callable

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import Fields, Number, load_fields, save_fields, saved_part
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.features import Feature
from emuvisor.devices.virtio.queue import VirtQueue
from emuvisor.memory import DmaMemory

__all__ = ["MMIO_SIZE", "VirtioMmio"]

MMIO_SIZE = 0x200
"""Bytes of address space: the registers, and 256 bytes of configuration space."""
REGISTER_SIZE = 4

# Registers, section 4.2.2.
MAGIC_VALUE = 0x000
VERSION = 0x004
DEVICE_ID = 0x008
VENDOR_ID = 0x00C
DEVICE_FEATURES = 0x010
DEVICE_FEATURES_SEL = 0x014
DRIVER_FEATURES = 0x020
DRIVER_FEATURES_SEL = 0x024
QUEUE_SEL = 0x030
QUEUE_NUM_MAX = 0x034
QUEUE_NUM = 0x038
QUEUE_READY = 0x044
QUEUE_NOTIFY = 0x050
INTERRUPT_STATUS = 0x060
INTERRUPT_ACK = 0x064
STATUS = 0x070
QUEUE_DESC_LOW = 0x080
QUEUE_DESC_HIGH = 0x084
QUEUE_DRIVER_LOW = 0x090
QUEUE_DRIVER_HIGH = 0x094
QUEUE_DEVICE_LOW = 0x0A0
QUEUE_DEVICE_HIGH = 0x0A4
SHM_SEL = 0x0AC
SHM_LEN_LOW = 0x0B0
SHM_LEN_HIGH = 0x0B4
SHM_BASE_LOW = 0x0B8
SHM_BASE_HIGH = 0x0BC
QUEUE_RESET = 0x0C0
CONFIG_GENERATION = 0x0FC
CONFIG = 0x100

MAGIC = int.from_bytes(b"virt", "little")
MODERN = 2
VENDOR = int.from_bytes(b"EMUV", "little")
USED_BUFFER = 1
CONFIG_CHANGE = 2
"""Bits of INTERRUPT_STATUS."""
DWORD = 0xFFFF_FFFF
NO_SHARED_MEMORY = DWORD
"""Length and base of a shared memory region that does not exist have all bits set."""

AREA_OF = {
    QUEUE_DESC_LOW: ("descriptor_area", 0),
    QUEUE_DESC_HIGH: ("descriptor_area", 32),
    QUEUE_DRIVER_LOW: ("driver_area", 0),
    QUEUE_DRIVER_HIGH: ("driver_area", 32),
    QUEUE_DEVICE_LOW: ("device_area", 0),
    QUEUE_DEVICE_HIGH: ("device_area", 32),
}
"""Register to the queue's attribute, and the first of its bits in it."""

_DEVICE = "virtio-mmio"
_VERSION = 1
_FIELDS = Fields(
    {
        "device_features_sel": Number(DWORD),
        "driver_features_sel": Number(DWORD),
        "driver_features": Number((1 << 64) - 1),
        "queue_sel": Number(DWORD),
        "interrupt_status": Number(USED_BUFFER | CONFIG_CHANGE),
    }
)


class VirtioMmio:
    """The registers of `device`, which interrupts by `irq`: `MMIO_SIZE` bytes for the bus, of width 4.

    `on_suspend(reason)` pauses the guest.
    """

    def __init__(
        self,
        *,
        device: VirtioDevice,
        memory: DmaMemory,
        clock: Clock,
        irq: InterruptLine,
        on_suspend: Callable[[str], None],
    ) -> None:
        self.name = f"{device.name} (virtio-mmio)"
        self.device = device
        self.memory = memory
        self.clock = clock
        self.dma = True
        self.on_suspend = on_suspend
        self._irq = irq
        self._clear()
        device.connect(self)
        self._readers: dict[int, Callable[[], int]] = {
            MAGIC_VALUE: lambda: MAGIC,
            VERSION: lambda: MODERN,
            DEVICE_ID: lambda: device.device_id,
            VENDOR_ID: lambda: VENDOR,
            DEVICE_FEATURES: self._device_features,
            QUEUE_NUM_MAX: lambda: self._queue.max_size if self._queue else 0,
            QUEUE_READY: lambda: int(self._queue.ready) if self._queue else 0,
            INTERRUPT_STATUS: lambda: self.interrupt_status,
            STATUS: lambda: device.status,
            SHM_LEN_LOW: lambda: NO_SHARED_MEMORY,
            SHM_LEN_HIGH: lambda: NO_SHARED_MEMORY,
            SHM_BASE_LOW: lambda: NO_SHARED_MEMORY,
            SHM_BASE_HIGH: lambda: NO_SHARED_MEMORY,
            CONFIG_GENERATION: lambda: device.generation,
        }
        self._writers: dict[int, Callable[[int], None]] = {
            DEVICE_FEATURES_SEL: self._select_device_features,
            DRIVER_FEATURES: self._set_driver_features,
            DRIVER_FEATURES_SEL: self._select_driver_features,
            QUEUE_SEL: self._select_queue,
            QUEUE_NUM: self._set_queue_size,
            QUEUE_READY: self._set_queue_ready,
            QUEUE_NOTIFY: device.kick,
            INTERRUPT_ACK: self._acknowledge,
            STATUS: self._set_status,
            QUEUE_RESET: self._reset_queue,
        }

    def _clear(self) -> None:
        self.device_features_sel = 0
        self.driver_features_sel = 0
        self.driver_features = 0
        self.queue_sel = 0
        self._set_interrupt(0)

    # ---- what the device asks for ----

    def interrupt_queue(self, index: int) -> None:
        """A used buffer notification."""
        self._set_interrupt(self.interrupt_status | USED_BUFFER)

    def interrupt_config(self) -> None:
        """A configuration change notification."""
        self._set_interrupt(self.interrupt_status | CONFIG_CHANGE)

    def _set_interrupt(self, status: int) -> None:
        self.interrupt_status = status
        self._irq.set(status != 0)

    # ---- registers ----

    def read(self, offset: int, size: int) -> int:
        """A register, as a double word; or 1, 2 or 4 bytes of configuration space. The rest reads as 0."""
        if offset >= CONFIG:
            return int.from_bytes(self.device.config()[offset - CONFIG : offset - CONFIG + size], "little")
        reader = self._readers.get(offset)
        return reader() if reader is not None and size == REGISTER_SIZE else 0

    def write(self, offset: int, value: int, size: int) -> None:
        """Write a register, as a double word; or 1, 2 or 4 bytes inside configuration space."""
        if offset >= CONFIG:
            if offset - CONFIG + size <= len(self.device.config()):
                self.device.write_config(offset - CONFIG, value.to_bytes(size, "little"))
        elif size == REGISTER_SIZE:
            writer = self._writers.get(offset)
            if writer is not None:
                writer(value)
            elif offset in AREA_OF:
                self._set_area(*AREA_OF[offset], value)

    def _device_features(self) -> int:
        return (
            self.device.offered >> 32 * self.device_features_sel & DWORD
            if self.device_features_sel < 2
            else 0
        )

    def _select_device_features(self, value: int) -> None:
        self.device_features_sel = value

    def _select_driver_features(self, value: int) -> None:
        self.driver_features_sel = value

    def _set_driver_features(self, value: int) -> None:
        if self.driver_features_sel < 2:
            shift = 32 * self.driver_features_sel
            self.driver_features = self.driver_features & ~(DWORD << shift) | value << shift

    @property
    def _queue(self) -> VirtQueue | None:
        """The queue selected."""
        queues = self.device.queues
        return queues[self.queue_sel] if self.queue_sel < len(queues) else None

    def _select_queue(self, value: int) -> None:
        self.queue_sel = value

    def _set_queue_size(self, value: int) -> None:
        if self._queue is not None and not self._queue.ready:
            self._queue.size = value & 0xFFFF

    def _set_area(self, area: str, shift: int, value: int) -> None:
        queue = self._queue
        if queue is not None and not queue.ready:
            setattr(queue, area, getattr(queue, area) & ~(DWORD << shift) | value << shift)

    def _set_queue_ready(self, value: int) -> None:
        if self._queue is None:
            return
        if not value & 1:
            self.device.reset_queue(self.queue_sel)
        elif not self._queue.ready:
            self.device.enable_queue(self.queue_sel)

    def _reset_queue(self, value: int) -> None:
        if value & 1 and self._queue is not None and self.device.has(Feature.RING_RESET):
            self.device.reset_queue(self.queue_sel)

    def _acknowledge(self, value: int) -> None:
        self._set_interrupt(self.interrupt_status & ~value)

    def _set_status(self, value: int) -> None:
        if value & 0xFF:
            self.device.set_status(value & 0xFF, self.driver_features)
        else:
            self.reset()

    def reset(self) -> None:
        """As after power-on, the device too."""
        self._clear()
        self.device.reset()

    # ---- saved state ----

    def save(self) -> SavedState:
        """Registers and device as plain data. The level of the line follows from them."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS) | {"chip": self.device.save()}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave; the wiring stays. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        self.device.load(saved_part(state, _DEVICE, "chip"))
        self._irq.set(self.interrupt_status != 0)
