"""struct virtio_net_hdr, which stands before each frame in a queue: virtio 1.2, section 5.1.6."""

from struct import Struct

from emuvisor.bus.ethernet import CHECKSUM, ECN, TSO4, TSO6, UFO, USO, Offload
from emuvisor.devices.virtio.features import mask_of
from emuvisor.devices.virtio.net.features import NetFeature

__all__ = ["HEADER_SIZE", "BadHeader", "make_header", "parse_header"]

_HEADER = Struct("<BBHHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers (always there since virtio 1.0)."""
HEADER_SIZE = _HEADER.size

# Flags.
NEEDS_CSUM = 1
DATA_VALID = 2

# gso_type.
GSO_NONE = 0
GSO_TCPV4 = 1
GSO_UDP = 3
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80

_NEED_OF_TYPE = {
    GSO_TCPV4: (TSO4, NetFeature.HOST_TSO4),
    GSO_TCPV6: (TSO6, NetFeature.HOST_TSO6),
    GSO_UDP: (UFO, NetFeature.HOST_UFO),
    GSO_UDP_L4: (USO, NetFeature.HOST_USO),
}
_TYPE_OF_NEED = {need: gso_type for gso_type, (need, _) in _NEED_OF_TYPE.items()}
_CSUM = mask_of(NetFeature.CSUM)
_HOST_ECN = mask_of(NetFeature.HOST_ECN)

TCP_DATA_OFFSET = 12
UDP_HEADER = 8

_PLAIN = _HEADER.pack(0, GSO_NONE, 0, 0, 0, 0, 1)
_VALID = _HEADER.pack(DATA_VALID, GSO_NONE, 0, 0, 0, 0, 1)


class BadHeader(Exception):
    """A header that no honest driver writes with the features that it has negotiated."""


def parse_header(data: bytes, features: int) -> Offload | None:
    """What the driver leaves to the device, from the header at the start of `data`; None if nothing.

    `hdr_len` is a hint and is not looked at. The offsets may be wild: who uses them checks. Raises BadHeader.
    """
    flags, gso_type, _, gso_size, start, offset, _ = _HEADER.unpack_from(data)
    if gso_type == GSO_NONE:
        if not flags & NEEDS_CSUM:
            return None
        if not features & _CSUM:
            raise BadHeader
        return Offload(CHECKSUM, start, offset)
    need, feature = _NEED_OF_TYPE.get(gso_type & ~GSO_ECN, (0, 0))
    if not need or not features >> feature & 1 or not flags & NEEDS_CSUM:
        raise BadHeader
    if gso_type & GSO_ECN:
        if not features & _HOST_ECN:
            raise BadHeader
        need |= ECN
    return Offload(need | CHECKSUM, start, offset, gso_size)


def make_header(frame: bytes, offload: Offload | None, *, knows_checksums: bool, buffers: int) -> bytes:
    """The header of a received frame that lies in `buffers` buffers. A driver without GUEST_CSUM is told nothing."""
    if offload is None or not knows_checksums:
        return _PLAIN if buffers == 1 else _HEADER.pack(0, GSO_NONE, 0, 0, 0, 0, buffers)
    needs, start, offset, size = offload
    if not needs:
        return _VALID if buffers == 1 else _HEADER.pack(DATA_VALID, GSO_NONE, 0, 0, 0, 0, buffers)
    kind = needs & ~(CHECKSUM | ECN)
    if not kind:
        return _HEADER.pack(NEEDS_CSUM, GSO_NONE, 0, 0, start, offset, buffers)
    gso_type = _TYPE_OF_NEED[kind] | (GSO_ECN if needs & ECN else 0)
    transport = (frame[start + TCP_DATA_OFFSET] >> 4) * 4 if kind & (TSO4 | TSO6) else UDP_HEADER
    return _HEADER.pack(NEEDS_CSUM, gso_type, start + transport, size, start, offset, buffers)
