"""A guest of a few packets: it speaks Ethernet, ARP, neighbour discovery, IP, UDP, ping, DHCP, DNS and a little TCP.

Written apart from the code that it tests, down to the checksum.
"""

import queue
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from emuvisor.bus.ethernet import Offload
from emuvisor.net.network import Network

T = TypeVar("T")
Address = IPv4Address | IPv6Address

PATIENCE = 60  # seconds, for answers that come at once
BROADCAST = b"\xff" * 6
GATEWAY, NAMESERVER = IPv4Address("10.0.2.2"), IPv4Address("10.0.2.3")
GATEWAY6 = IPv6Address("fec0::2")
FIRST_GUEST = IPv4Address("10.0.2.15")
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
UNREACHABLE = 3
MSS = 1440


def internet_checksum(data: bytes) -> int:
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ip_packet(source: Address, destination: Address, protocol: int, payload: bytes) -> bytes:
    if source.version == 6:
        return (
            struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255)
            + source.packed
            + destination.packed
            + payload
        )
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    header += source.packed + destination.packed
    return header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:] + payload


def with_checksum(source: Address, destination: Address, protocol: int, segment: bytes, offset: int) -> bytes:
    pseudo = source.packed + destination.packed + struct.pack("!II", len(segment), protocol)
    value = internet_checksum(pseudo + segment)
    return segment[:offset] + struct.pack("!H", value) + segment[offset + 2 :]


def udp_packet(source: Address, source_port: int, destination: Address, port: int, payload: bytes) -> bytes:
    segment = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload
    return ip_packet(source, destination, UDP, with_checksum(source, destination, UDP, segment, 6))


def ethernet(source: bytes, packet: bytes, destination: bytes = BROADCAST) -> bytes:
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return destination + source + struct.pack("!H", kind) + packet


def dns_query(name: str, kind: int = 1, identifier: int = 0x1234) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return (
        struct.pack("!HHHHHH", identifier, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
    )


def dns_addresses(message: bytes) -> tuple[int, list[Address]]:
    """The response code, and the addresses of all answers."""
    _, flags, _, answers, _, _ = struct.unpack_from("!HHHHHH", message)
    position = message.index(b"\0", 12) + 5
    found: list[Address] = []
    for _ in range(answers):
        pointer, kind, _, _, length = struct.unpack_from("!HHHIH", message, position)
        assert pointer == 0xC00C
        data = message[position + 12 : position + 12 + length]
        found.append(IPv4Address(data) if kind == 1 else IPv6Address(data))
        position += 12 + length
    assert position == len(message)
    return flags & 15, found


def dhcp_message(
    mac: bytes, kind: int, options: bytes = b"", ciaddr: bytes = bytes(4), flags: int = 0
) -> bytes:
    fixed = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0xABCD, 0, flags) + ciaddr + bytes(12) + mac.ljust(16, b"\0")
    return fixed + bytes(192) + b"\x63\x82\x53\x63" + bytes((53, 1, kind)) + options + b"\xff"


def dhcp_options(message: bytes) -> dict[int, bytes]:
    options = {}
    position = 240
    while message[position] != 255:
        code, length = message[position], message[position + 1]
        options[code] = message[position + 2 : position + 2 + length]
        position += 2 + length
    return options


@dataclass
class Packet:
    """An IP packet that came."""

    source: Address
    destination: Address
    protocol: int
    payload: bytes
    source_mac: bytes

    @classmethod
    def parse(cls, frame: bytes) -> "Packet | None":
        kind = frame[12:14]
        if kind == b"\x08\x00":
            header = frame[14:34]
            assert internet_checksum(header) == 0
            (length,) = struct.unpack_from("!H", header, 2)
            source, destination = IPv4Address(header[12:16]), IPv4Address(header[16:20])
            return cls(source, destination, header[9], frame[34 : 14 + length], frame[6:12])
        if kind == b"\x86\xdd":
            (length,) = struct.unpack_from("!H", frame, 18)
            source6, destination6 = IPv6Address(frame[22:38]), IPv6Address(frame[38:54])
            return cls(source6, destination6, frame[20], frame[54 : 54 + length], frame[6:12])
        return None


class Client:
    """A station of `network`. It uses the addresses `ip` and `ip6`, and answers ARP and neighbour solicitations."""

    accepts = 0

    def __init__(self, network: Network, name: str, mac: bytes, ip: Address = FIRST_GUEST) -> None:
        self.mac = mac
        self.ip = ip
        self.ip6 = IPv6Address(
            b"\xfe\xc0" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]
        )
        self.router = BROADCAST
        self.longest = 0
        self.mss = 0  # for the option in a SYN; 0 sends none
        self._frames: queue.Queue[bytes] = queue.Queue()
        self.port = network.port(name, mac)
        self.port.attach(self)

    def receive(self, frame: bytes, offload: Offload | None) -> bool:
        self._frames.put(frame)
        self.longest = max(self.longest, len(frame))
        return True

    def link_changed(self) -> None: ...

    def send(self, packet: bytes) -> None:
        self.port.send(ethernet(self.mac, packet, self.router))

    def expect(self, wanted: Callable[[bytes], T | None], patience: float = PATIENCE) -> T:
        """What `wanted(frame)` makes of the first frame for which it is something; queue.Empty if none comes."""
        while True:
            frame = self._frames.get(timeout=patience)
            self._be_neighbour(frame)
            found = wanted(frame)
            if found is not None:
                return found

    def packet(self, wanted: Callable[[Packet], T | None], patience: float = PATIENCE) -> T:
        def look(frame: bytes) -> T | None:
            packet = Packet.parse(frame)
            return None if packet is None else wanted(packet)

        return self.expect(look, patience)

    def silence(self) -> bool:
        """Whether nothing has come that is still unread; ask after an answer to something sent later has come."""
        return self._frames.empty()

    def _be_neighbour(self, frame: bytes) -> None:
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == self.ip.packed:
            reply = frame[14:20] + b"\0\2" + self.mac + self.ip.packed + frame[22:32]
            self.port.send(frame[6:12] + self.mac + b"\x08\x06" + reply)
        if frame[12:14] == b"\x86\xdd" and frame[20] == ICMPV6 and frame[54] == 135:
            target = IPv6Address(frame[62:78])
            if target == self.ip6:
                asker = IPv6Address(frame[22:38])
                body = struct.pack("!BBHI", 136, 0, 0, 0x6000_0000) + target.packed + b"\2\1" + self.mac
                body = with_checksum(target, asker, ICMPV6, body, 2)
                self.port.send(ethernet(self.mac, ip_packet(target, asker, ICMPV6, body), frame[6:12]))

    def arp(self, target: IPv4Address) -> bytes:
        """The MAC of `target`."""
        body = bytes.fromhex("0001080006040001") + self.mac + self.ip.packed + bytes(6) + target.packed
        self.port.send(BROADCAST + self.mac + b"\x08\x06" + body)

        def reply(frame: bytes) -> bytes | None:
            is_reply = frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2"
            return frame[22:28] if is_reply and frame[28:32] == target.packed else None

        return self.expect(reply)

    def udp(
        self,
        destination: Address,
        port: int,
        payload: bytes,
        *,
        source: Address | None = None,
        source_port: int = 4000,
    ) -> None:
        own = source or (self.ip if destination.version == 4 else self.ip6)
        self.send(udp_packet(own, source_port, destination, port, payload))

    def udp_reply(self, port: int = 4000) -> tuple[Address, int, bytes]:
        """Source address, source port and payload of the next datagram to `port`; its checksum is looked at."""

        def reply(packet: Packet) -> tuple[Address, int, bytes] | None:
            if packet.protocol != UDP:
                return None
            source_port, destination_port, length, _ = struct.unpack_from("!HHHH", packet.payload)
            checked = with_checksum(packet.source, packet.destination, UDP, packet.payload, 6)
            assert checked[6:8] == b"\0\0" or packet.payload[6:8] == b"\xff\xff"
            if destination_port != port:
                return None
            return packet.source, source_port, packet.payload[8:length]

        return self.packet(reply)

    def ping(self, destination: IPv4Address | IPv6Address, patience: float = PATIENCE) -> bytes:
        """The data of the answer."""
        if destination.version == 4:
            body = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + b"echo"
            body = body[:2] + struct.pack("!H", internet_checksum(body)) + body[4:]
            self.send(ip_packet(self.ip, destination, ICMP, body))
            answer = (ICMP, 0)
        else:
            body = with_checksum(
                self.ip6, destination, ICMPV6, struct.pack("!BBHHH", 128, 0, 0, 1, 1) + b"echo", 2
            )
            self.send(ip_packet(self.ip6, destination, ICMPV6, body))
            answer = (ICMPV6, 129)

        def reply(packet: Packet) -> bytes | None:
            return packet.payload[8:] if (packet.protocol, packet.payload[0]) == answer else None

        return self.packet(reply, patience)

    def dhcp(self, kind: int, options: bytes = b"", **fields: int | bytes) -> tuple[IPv4Address, bytes]:
        """The address in the answer, and the answer."""
        message = dhcp_message(self.mac, kind, options, **fields)  # type: ignore[arg-type]
        packet = udp_packet(IPv4Address(0), 68, IPv4Address("255.255.255.255"), 67, message)
        self.port.send(ethernet(self.mac, packet))
        _, source_port, answer = self.udp_reply(68)
        assert source_port == 67
        return IPv4Address(answer[16:20]), answer

    def resolve(self, name: str, kind: int = 1, server: Address = NAMESERVER) -> tuple[int, list[Address]]:
        self.udp(server, 53, dns_query(name, kind))
        source, source_port, answer = self.udp_reply()
        assert (source, source_port) == (server, 53)
        assert answer[:2] == b"\x12\x34"
        return dns_addresses(answer)

    def connect(self, destination: Address, port: int, source_port: int = 5000) -> "Connection":
        """A TCP connection. Raises ConnectionRefusedError, ConnectionError if an ICMP error says "unreachable"."""
        connection = Connection(self, destination, port, source_port)
        connection.transmit(SYN)
        segment = connection.await_segment()
        if segment.flags & RST:
            raise ConnectionRefusedError
        assert segment.flags == SYN | ACK
        connection.received = segment.sequence + 1
        connection.sent += 1
        connection.transmit(ACK)
        return connection

    def accept(self, port: int) -> "Connection":
        """The next TCP connection to `port`."""

        def is_syn(packet: Packet) -> Connection | None:
            if packet.protocol != TCP:
                return None
            segment = Segment.parse(packet.payload)
            if segment.flags != SYN or segment.port != port:
                return None
            connection = Connection(self, packet.source, segment.source_port, port)
            connection.received = segment.sequence + 1
            return connection

        connection = self.packet(is_syn)
        connection.transmit(SYN | ACK)
        connection.sent += 1
        return connection


@dataclass
class Segment:
    source_port: int
    port: int
    sequence: int
    acknowledged: int
    flags: int
    window: int
    data: bytes

    @classmethod
    def parse(cls, payload: bytes) -> "Segment":
        source_port, port, sequence, acknowledged, offset, flags, window = struct.unpack_from(
            "!HHIIBBH", payload
        )
        return cls(source_port, port, sequence, acknowledged, flags, window, payload[(offset >> 4) * 4 :])


class Connection:
    """One TCP connection on a wire that loses nothing: everything is in order, nothing is sent twice."""

    def __init__(self, client: Client, peer: Address, peer_port: int, port: int) -> None:
        self.client = client
        self.peer = peer
        self.peer_port = peer_port
        self.port = port
        self.sent = 1000
        self.received = 0
        self.acknowledged = 1000
        self.window = MSS

    def transmit(self, flags: int, data: bytes = b"") -> None:
        own = self.client.ip if self.peer.version == 4 else self.client.ip6
        numbers = (self.port, self.peer_port, self.sent & 0xFFFF_FFFF, self.received & 0xFFFF_FFFF)
        options = struct.pack("!BBH", 2, 4, self.client.mss) if flags & SYN and self.client.mss else b""
        offset = (20 + len(options)) // 4 << 4
        segment = struct.pack("!HHIIBBHHH", *numbers, offset, flags, 0xFFFF, 0, 0) + options + data
        segment = with_checksum(own, self.peer, TCP, segment, 16)
        self.client.send(ip_packet(own, self.peer, TCP, segment))

    def await_segment(self) -> Segment:
        def ours(packet: Packet) -> Segment | None:
            if packet.protocol == ICMP and packet.payload[0] == UNREACHABLE:
                raise ConnectionError("unreachable")
            if packet.protocol != TCP or packet.source != self.peer:
                return None
            segment = Segment.parse(packet.payload)
            if (segment.source_port, segment.port) != (self.peer_port, self.port):
                return None
            if segment.flags & ACK:
                self.acknowledged = segment.acknowledged
                self.window = segment.window
            return segment

        return self.client.packet(ours)

    def send(self, data: bytes) -> None:
        """All of it, as the peer's window lets."""
        for start in range(0, len(data), MSS):
            chunk = data[start : start + MSS]
            while self.sent - self.acknowledged + len(chunk) > self.window:
                self.await_segment()
            self.transmit(PSH | ACK, chunk)
            self.sent += len(chunk)

    def receive(self, length: int) -> bytes:
        """So many bytes, or what comes until the peer says that it is done."""
        data = b""
        while len(data) < length:
            segment = self.await_segment()
            if segment.sequence != self.received & 0xFFFF_FFFF:
                continue
            data += segment.data
            self.received += len(segment.data) + (segment.flags & FIN)
            if segment.data or segment.flags & FIN:
                self.transmit(ACK)
            if segment.flags & FIN:
                break
        return data

    def close(self) -> None:
        self.transmit(FIN | ACK)
        self.sent += 1
