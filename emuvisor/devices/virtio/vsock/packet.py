"""Packets of the socket device: a header, and for RW a payload behind it (virtio 1.2, 5.10.6)."""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

__all__ = [
    "COUNTER_MASK",
    "HEADER_SIZE",
    "HOST_CID",
    "MAX_PAYLOAD",
    "SEQ_EOM",
    "SHUTDOWN_BOTH",
    "SHUTDOWN_RECEIVE",
    "SHUTDOWN_SEND",
    "TYPE_SEQPACKET",
    "TYPE_STREAM",
    "Op",
    "Packet",
]

HOST_CID = 2
"""VMADDR_CID_HOST."""
TYPE_STREAM = 1
TYPE_SEQPACKET = 2

SHUTDOWN_RECEIVE = 1
"""The sender of the packet takes no more data."""
SHUTDOWN_SEND = 2
"""The sender of the packet sends no more data."""
SHUTDOWN_BOTH = SHUTDOWN_RECEIVE | SHUTDOWN_SEND
SEQ_EOM = 1
"""The last packet of a message."""

COUNTER_MASK = 0xFFFF_FFFF
"""Byte counters run freely in 32 bits."""
MAX_PAYLOAD = 64 * 1024
"""Bytes of one packet that a driver may send; Linux sends no more either."""

_HEADER = Struct("<QQIIIHHIII")
HEADER_SIZE = _HEADER.size


class Op(IntEnum):
    """`op`: what a packet is for."""

    INVALID = 0
    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class Packet(NamedTuple):
    """struct virtio_vsock_hdr: who, to whom, how many payload bytes, and how much the sender can take."""

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    length: int
    type: int
    op: int
    flags: int = 0
    buf_alloc: int = 0
    fwd_cnt: int = 0

    @classmethod
    def unpack(cls, data: bytes) -> "Packet":
        """The header that `data`, `HEADER_SIZE` bytes, holds."""
        return cls(*_HEADER.unpack(data))

    def pack(self) -> bytes:
        """`HEADER_SIZE` bytes."""
        return _HEADER.pack(*self)
