"""Feature bits of virtio-net: virtio 1.2, section 5.1.3; the USO bits are of virtio 1.3."""

from enum import IntEnum

from emuvisor.bus.ethernet import CHECKSUM, ECN, TSO4, TSO6, UFO, USO
from emuvisor.devices.virtio.features import mask_of

__all__ = ["DEVICE_FEATURES", "GUEST_OFFLOADS", "NetFeature", "dependencies_hold", "needs_of"]


class NetFeature(IntEnum):
    """By bit number. "Host" is what the device does for the driver, "guest" what the driver takes from the device."""

    CSUM = 0
    GUEST_CSUM = 1
    CTRL_GUEST_OFFLOADS = 2
    MTU = 3
    MAC = 5
    GUEST_TSO4 = 7
    GUEST_TSO6 = 8
    GUEST_ECN = 9
    GUEST_UFO = 10
    HOST_TSO4 = 11
    HOST_TSO6 = 12
    HOST_ECN = 13
    HOST_UFO = 14
    MRG_RXBUF = 15
    STATUS = 16
    CTRL_VQ = 17
    CTRL_RX = 18
    CTRL_VLAN = 19
    CTRL_RX_EXTRA = 20
    GUEST_ANNOUNCE = 21
    MQ = 22
    CTRL_MAC_ADDR = 23
    GUEST_USO4 = 54
    GUEST_USO6 = 55
    HOST_USO = 56
    SPEED_DUPLEX = 63


DEVICE_FEATURES = mask_of(*(feature for feature in NetFeature if feature != NetFeature.MQ))
"""What every device offers; MQ comes with several pairs of queues."""

GUEST_OFFLOADS = mask_of(
    NetFeature.GUEST_CSUM,
    NetFeature.GUEST_TSO4,
    NetFeature.GUEST_TSO6,
    NetFeature.GUEST_ECN,
    NetFeature.GUEST_UFO,
    NetFeature.GUEST_USO4,
    NetFeature.GUEST_USO6,
)
"""What the driver may switch on and off while it runs: section 5.1.6.5.6."""

_REQUIRES: dict[NetFeature, tuple[NetFeature, ...]] = {
    NetFeature.GUEST_TSO4: (NetFeature.GUEST_CSUM,),
    NetFeature.GUEST_TSO6: (NetFeature.GUEST_CSUM,),
    NetFeature.GUEST_ECN: (NetFeature.GUEST_TSO4, NetFeature.GUEST_TSO6),
    NetFeature.GUEST_UFO: (NetFeature.GUEST_CSUM,),
    NetFeature.GUEST_USO4: (NetFeature.GUEST_CSUM,),
    NetFeature.GUEST_USO6: (NetFeature.GUEST_CSUM,),
    NetFeature.HOST_TSO4: (NetFeature.CSUM,),
    NetFeature.HOST_TSO6: (NetFeature.CSUM,),
    NetFeature.HOST_ECN: (NetFeature.HOST_TSO4, NetFeature.HOST_TSO6),
    NetFeature.HOST_UFO: (NetFeature.CSUM,),
    NetFeature.HOST_USO: (NetFeature.CSUM,),
    NetFeature.CTRL_RX: (NetFeature.CTRL_VQ,),
    NetFeature.CTRL_VLAN: (NetFeature.CTRL_VQ,),
    NetFeature.GUEST_ANNOUNCE: (NetFeature.CTRL_VQ,),
    NetFeature.MQ: (NetFeature.CTRL_VQ,),
    NetFeature.CTRL_MAC_ADDR: (NetFeature.CTRL_VQ,),
}
"""Each feature, and those of which it needs one: section 5.1.3.1."""


def dependencies_hold(features: int) -> bool:
    """Whether a choice of features is one that a driver may make."""
    return all(
        not features >> feature & 1 or any(features >> other & 1 for other in others)
        for feature, others in _REQUIRES.items()
    )


def needs_of(features: int) -> int:
    """What may be left to do on the frames for a driver with these guest features: bits of `emuvisor.bus.ethernet`."""
    if not features & mask_of(NetFeature.GUEST_CSUM):
        return 0
    needs = CHECKSUM
    for feature, need in (
        (NetFeature.GUEST_TSO4, TSO4),
        (NetFeature.GUEST_TSO6, TSO6),
        (NetFeature.GUEST_ECN, ECN),
        (NetFeature.GUEST_UFO, UFO),
    ):
        if features >> feature & 1:
            needs |= need
    both = mask_of(NetFeature.GUEST_USO4, NetFeature.GUEST_USO6)
    return needs | (USO if features & both == both else 0)
