"""Names and numbers that all virtio devices share: virtio 1.2, sections 2.1 (status), 5 (device types) and 6 (feature
bits that are not a device type's own)."""

from enum import IntEnum, IntFlag

__all__ = ["DeviceType", "Feature", "Status", "mask_of"]


class Status(IntFlag):
    """The device status field, section 2.1."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class Feature(IntEnum):
    """Reserved feature bits, section 6, by bit number."""

    INDIRECT_DESC = 28
    EVENT_IDX = 29
    VERSION_1 = 32
    ACCESS_PLATFORM = 33
    RING_PACKED = 34
    IN_ORDER = 35
    ORDER_PLATFORM = 36
    SR_IOV = 37
    NOTIFICATION_DATA = 38
    NOTIF_CONFIG_DATA = 39
    RING_RESET = 40


class DeviceType(IntEnum):
    """Device IDs, section 5."""

    NETWORK = 1
    BLOCK = 2
    CONSOLE = 3
    ENTROPY = 4
    BALLOON = 5
    INPUT = 18
    SOCKET = 19
    MEMORY = 24
    FILE_SYSTEM = 26


def mask_of(*bits: int) -> int:
    """The feature mask with these bits set."""
    return sum(1 << bit for bit in set(bits))
