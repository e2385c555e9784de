"""A DHCP server (RFC 2131, options of RFC 2132): it answers messages, and keeps no state but the plan of addresses.

libslirp has one, but it gives addresses out in the order of asking, to 16 clients, and knows no client by its name.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

from emuvisor.net.frames import MAC_LENGTH
from emuvisor.net.user.datagram import BROADCAST_MAC, Datagram, router_mac
from emuvisor.net.user.plan import Plan

__all__ = ["CLIENT_PORT", "SERVER_PORT", "DhcpServer", "MessageType", "Option"]

SERVER_PORT, CLIENT_PORT = 67, 68
BROADCAST = IPv4Address("255.255.255.255")
UNSPECIFIED = IPv4Address(0)

# The fixed part: op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie.
_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
BOOTREQUEST, BOOTREPLY = 1, 2
ETHERNET = 1
FLAG_BROADCAST = 0x8000
MAGIC_COOKIE = bytes((99, 130, 83, 99))
MINIMUM_LENGTH = 300
"""What BOOTP relays and old clients expect (RFC 1542, section 2.1)."""

LEASE_SECONDS = 86400
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class MessageType(IntEnum):
    """Option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """Option codes (RFC 2132)."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    NAME_SERVER = 6
    HOST_NAME = 12
    DOMAIN_NAME = 15
    INTERFACE_MTU = 26
    BROADCAST_ADDRESS = 28
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    MESSAGE_TYPE = 53
    SERVER_IDENTIFIER = 54
    TFTP_SERVER_NAME = 66
    BOOTFILE_NAME = 67
    END = 255


@dataclass(frozen=True, slots=True)
class DhcpServer:
    """Answers for the network `domain`; `bootfile` is what clients that boot from the network load, a URL for iPXE.

    `strangers`: also MACs that nobody announced get an address.
    """

    plan: Plan
    domain: str
    mtu: int
    bootfile: str | None = None
    strangers: bool = False

    def answer(self, request: Datagram) -> Datagram | None:
        """The reply to a datagram that came to SERVER_PORT; None for what needs or deserves none."""
        message = request.payload
        if len(message) < _FIXED.size:
            return None
        op, htype, hlen, _, xid, _, flags, ciaddr, _, _, giaddr, chaddr, _, _, cookie = _FIXED.unpack_from(
            message
        )
        mac = chaddr[:MAC_LENGTH]
        if (op, htype, hlen, cookie) != (BOOTREQUEST, ETHERNET, MAC_LENGTH, MAGIC_COOKIE):
            return None
        if mac != request.source_mac or any(giaddr):
            return None  # for somebody else, or through a relay: there are none here
        options = dict(_options(message))
        address = self.plan.lease(mac, strangers=self.strangers)
        kind = self._kind(options, IPv4Address(ciaddr), address)
        if kind is None or address is None:
            return None
        informed = options.get(Option.MESSAGE_TYPE) == bytes((MessageType.INFORM,))
        yours = UNSPECIFIED if informed or kind is MessageType.NAK else address
        header = _FIXED.pack(
            BOOTREPLY, ETHERNET, MAC_LENGTH, 0, xid, 0, flags, ciaddr, yours.packed,
            self.plan.gateway.packed, bytes(4), chaddr, b"", (self.bootfile or "").encode(), MAGIC_COOKIE,
        )  # fmt: skip
        body = b"".join(
            bytes((code, len(value))) + value for code, value in self._reply_options(kind, address, informed)
        )
        if kind is MessageType.NAK or flags & FLAG_BROADCAST:
            destination, destination_mac = BROADCAST, BROADCAST_MAC
        else:
            destination, destination_mac = (IPv4Address(ciaddr) if any(ciaddr) else address), mac
        return Datagram(
            source_mac=router_mac(self.plan.gateway),
            destination_mac=destination_mac,
            source=self.plan.gateway,
            source_port=SERVER_PORT,
            destination=destination,
            destination_port=CLIENT_PORT,
            payload=(header + body + bytes((Option.END,))).ljust(MINIMUM_LENGTH, b"\0"),
        )

    def _kind(
        self, options: dict[int, bytes], client: IPv4Address, address: IPv4Address | None
    ) -> MessageType | None:
        """What to answer (RFC 2131, section 4.3)."""
        asked = options.get(Option.MESSAGE_TYPE)
        if asked == bytes((MessageType.DISCOVER,)):
            return MessageType.OFFER
        if asked == bytes((MessageType.INFORM,)):
            return MessageType.ACK
        if asked != bytes((MessageType.REQUEST,)):
            return None
        if options.get(Option.SERVER_IDENTIFIER, self.plan.gateway.packed) != self.plan.gateway.packed:
            return None  # the client chose another server
        wanted = options.get(Option.REQUESTED_ADDRESS, client.packed)
        return MessageType.ACK if address is not None and wanted == address.packed else MessageType.NAK

    def _reply_options(
        self, kind: MessageType, address: IPv4Address, informed: bool
    ) -> Iterator[tuple[Option, bytes]]:
        plan = self.plan
        yield Option.MESSAGE_TYPE, bytes((kind,))
        yield Option.SERVER_IDENTIFIER, plan.gateway.packed
        if kind is MessageType.NAK:
            return
        if not informed:
            yield Option.LEASE_TIME, LEASE_SECONDS.to_bytes(4, "big")
        yield Option.SUBNET_MASK, plan.subnet.netmask.packed
        yield Option.BROADCAST_ADDRESS, plan.subnet.broadcast_address.packed
        yield Option.ROUTER, plan.gateway.packed
        yield Option.NAME_SERVER, plan.nameserver.packed
        yield Option.DOMAIN_NAME, self.domain.encode()
        yield Option.INTERFACE_MTU, self.mtu.to_bytes(2, "big")
        name = plan.name_of(address)
        if name is not None and _LABEL.fullmatch(name):
            yield Option.HOST_NAME, name.encode()
        if self.bootfile is not None:
            yield Option.TFTP_SERVER_NAME, str(plan.gateway).encode()
            yield Option.BOOTFILE_NAME, self.bootfile.encode()


def _options(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Code and value of each option that is whole; of options that are given twice, the last one counts."""
    position = _FIXED.size
    while position < len(message) and message[position] != Option.END:
        if message[position] == Option.PAD:
            position += 1
            continue
        if position + 2 > len(message):
            return
        code, length = message[position], message[position + 1]
        position += 2
        if position + length > len(message):
            return
        yield code, message[position : position + length]
        position += length
