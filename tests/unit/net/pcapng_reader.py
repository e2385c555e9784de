"""Reads as much of pcapng as our own writer uses."""

from dataclasses import dataclass, field
from pathlib import Path
from struct import unpack_from

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6


@dataclass
class Packet:
    interface: str
    time_ns: int
    frame: bytes
    direction: int


@dataclass
class Recording:
    interfaces: list[str] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)


def options(data: bytes, at: int) -> dict[int, bytes]:
    found = {}
    while True:
        code, length = unpack_from("<HH", data, at)
        if code == 0:
            assert at + 4 == len(data)
            return found
        found[code] = data[at + 4 : at + 4 + length]
        at += 4 + (length + 3 & ~3)


def read(path: Path) -> Recording:
    data = path.read_bytes()
    recording = Recording()
    at = 0
    while at < len(data):
        kind, length = unpack_from("<II", data, at)
        body = data[at + 8 : at + length - 4]
        assert length % 4 == 0
        assert unpack_from("<I", data, at + length - 4) == (length,)
        if kind == SECTION:
            assert at == 0
            assert unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
            assert options(body, 16) == {4: b"emuvisor"}
        elif kind == INTERFACE:
            assert unpack_from("<HHI", body) == (1, 0, 0)
            found = options(body, 8)
            assert found[9] == b"\x09"
            recording.interfaces.append(found[2].decode())
        else:
            assert kind == PACKET
            number, high, low, captured, original = unpack_from("<IIIII", body)
            assert captured == original
            found = options(body, 20 + (captured + 3 & ~3))
            recording.packets.append(
                Packet(
                    recording.interfaces[number],
                    high << 32 | low,
                    body[20 : 20 + captured],
                    int.from_bytes(found[2], "little"),
                )
            )
        at += length
    return recording
