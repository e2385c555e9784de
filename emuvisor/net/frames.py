"""Where the headers of an Ethernet frame are: the numbers of the protocols, and how to skip VLAN tags."""

__all__ = [
    "ETHERNET_HEADER",
    "ETHERTYPE_ARP",
    "ETHERTYPE_IPV4",
    "ETHERTYPE_IPV6",
    "IPV4_HEADER",
    "IPV6_HEADER",
    "MAC_LENGTH",
    "MAX_VLAN_TAGS",
    "PROTOCOL_ICMPV6",
    "PROTOCOL_TCP",
    "PROTOCOL_UDP",
    "TCP_HEADER",
    "UDP_HEADER",
    "VLAN_TAG",
    "network_header",
    "word",
]

MAC_LENGTH = 6
ETHERNET_HEADER = 14
ETHERTYPE_OFFSET = 12
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_VLAN = 0x8100
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_SERVICE_VLAN = 0x88A8
VLAN_TAG = 4
MAX_VLAN_TAGS = 2
"""IEEE 802.1ad: a service tag and a customer's."""

IPV4_HEADER = 20
IPV6_HEADER = 40
TCP_HEADER = 20
UDP_HEADER = 8
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_ICMPV6 = 58


def word(frame: bytes, offset: int) -> int:
    """The big-endian 16-bit number at `offset`."""
    return frame[offset] << 8 | frame[offset + 1]


def network_header(frame: bytes) -> tuple[int, int] | None:
    """The EtherType behind any VLAN tags of a frame of at least 14 bytes, and where its header begins.

    None for more tags than two, and for a tag that the frame ends in.
    """
    offset = ETHERTYPE_OFFSET
    ethertype = frame[offset] << 8 | frame[offset + 1]
    while ethertype in (ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN):
        offset += VLAN_TAG
        if offset > ETHERTYPE_OFFSET + MAX_VLAN_TAGS * VLAN_TAG or offset + 2 > len(frame):
            return None
        ethertype = word(frame, offset)
    return ethertype, offset + 2
