"""Automatic receive steering: a flow comes in on the pair of queues that it last went out on.

Source: virtio 1.2, section 5.1.6.5.5.
"""

__all__ = ["Steering"]

ETHERTYPE = slice(12, 14)
IPV4 = b"\x08\x00"
IPV6 = b"\x86\xdd"
IP = 14
IPV4_HEADER = 20
IPV6_HEADER = 40
IPV4_PROTOCOL = 9
IPV6_NEXT = 6
PORTED = (6, 17)
"""TCP and UDP, whose headers begin with the two ports."""
PORTS = 4
BUCKETS = 256
MIX = 0x9E37_79B1
"""Spreads neighbouring sums over all buckets: 2^32 divided by the golden ratio."""


def bucket_of(frame: bytes) -> int:
    """A number from 0 to 255 that both directions of a flow have in common."""
    if frame[ETHERTYPE] == IPV4:
        addresses, end, protocol = (
            IP + 12,
            IP + IPV4_HEADER,
            frame[IP + IPV4_PROTOCOL : IP + IPV4_PROTOCOL + 1],
        )
        half = 4
    elif frame[ETHERTYPE] == IPV6:
        addresses, end, protocol = IP + 8, IP + IPV6_HEADER, frame[IP + IPV6_NEXT : IP + IPV6_NEXT + 1]
        half = 16
    else:
        return 0
    middle = addresses + half
    total = int.from_bytes(frame[addresses:middle], "big") + int.from_bytes(
        frame[middle : middle + half], "big"
    )
    if protocol and protocol[0] in PORTED:
        ports = frame[end : end + PORTS]
        total += int.from_bytes(ports[:2], "big") + int.from_bytes(ports[2:], "big")
    return (total * MIX >> 24) % BUCKETS


class Steering:
    """Remembers for each of 256 classes of flows which pair its last sent frame used.

    Written in the guest's thread, read from any.
    """

    def __init__(self) -> None:
        self._pair_of = bytearray(BUCKETS)

    def sent(self, frame: bytes, pair: int) -> None:
        """A frame of at least 14 bytes has left through `pair`, 0 to 255."""
        self._pair_of[bucket_of(frame)] = pair

    def pair_for(self, frame: bytes) -> int:
        """The pair that a received frame of at least 14 bytes belongs to."""
        return self._pair_of[bucket_of(frame)]

    def reset(self) -> None:
        """Forget all flows."""
        self._pair_of[:] = bytes(BUCKETS)
