"""The control queue's commands: virtio 1.2, section 5.1.6.5."""

from collections.abc import Callable
from dataclasses import replace
from struct import Struct
from typing import TYPE_CHECKING, Any

from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.net.features import GUEST_OFFLOADS, NetFeature
from emuvisor.devices.virtio.net.filter import MAC_LENGTH, VLANS, split_addresses
from emuvisor.units import KIB

if TYPE_CHECKING:
    from emuvisor.devices.virtio.net.device import Net

__all__ = ["ERR", "OK", "Control"]

OK = b"\x00"
ERR = b"\x01"
MAX_COMMAND = 64 * KIB
"""Bytes of one command; a MAC table of ten thousand addresses."""
HEADER = 2
"""Class and command."""

# Classes and their commands.
RX = 0
RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST = range(6)
MAC = 1
MAC_TABLE_SET, MAC_ADDR_SET = range(2)
VLAN = 2
VLAN_ADD, VLAN_DEL = range(2)
ANNOUNCE = 3
ANNOUNCE_ACK = 0
MQ = 4
MQ_VQ_PAIRS_SET = 0
GUEST_OFFLOADS_CLASS = 5
GUEST_OFFLOADS_SET = 0

RX_MODES = {
    RX_PROMISC: "promiscuous",
    RX_ALLMULTI: "all_multicast",
    RX_ALLUNI: "all_unicast",
    RX_NOMULTI: "no_multicast",
    RX_NOUNI: "no_unicast",
    RX_NOBCAST: "no_broadcast",
}
"""Command to the filter's attribute."""

_U16 = Struct("<H")
_U32 = Struct("<I")
_U64 = Struct("<Q")


class _Refused(Exception):
    """The command cannot be carried out."""


class Control:
    """Carries the driver's commands out on a `Net`."""

    def __init__(self, net: "Net") -> None:
        self._net = net
        self._commands: dict[tuple[int, int], tuple[NetFeature, Callable[[bytes], None]]] = {
            (MAC, MAC_TABLE_SET): (NetFeature.CTRL_RX, self._set_mac_table),
            (MAC, MAC_ADDR_SET): (NetFeature.CTRL_MAC_ADDR, self._set_mac),
            (VLAN, VLAN_ADD): (NetFeature.CTRL_VLAN, self._add_vlan),
            (VLAN, VLAN_DEL): (NetFeature.CTRL_VLAN, self._delete_vlan),
            (ANNOUNCE, ANNOUNCE_ACK): (NetFeature.GUEST_ANNOUNCE, self._acknowledge_announce),
            (MQ, MQ_VQ_PAIRS_SET): (NetFeature.MQ, self._set_pairs),
            (GUEST_OFFLOADS_CLASS, GUEST_OFFLOADS_SET): (
                NetFeature.CTRL_GUEST_OFFLOADS,
                self._set_guest_offloads,
            ),
        }
        for command, attribute in RX_MODES.items():
            feature = NetFeature.CTRL_RX if command <= RX_ALLMULTI else NetFeature.CTRL_RX_EXTRA
            self._commands[RX, command] = (feature, self._set_mode(attribute))

    def handle(self, chain: Chain) -> int:
        """Carry out one command; its last byte says whether it was."""
        command = chain.read(0, HEADER)
        data = chain.read(HEADER, MAX_COMMAND)
        try:
            if len(command) < HEADER or chain.readable_length > HEADER + MAX_COMMAND:
                raise _Refused
            feature, carry_out = self._commands.get((command[0], command[1]), (None, None))
            if feature is None or carry_out is None or not self._net.has(feature):
                raise _Refused
            carry_out(data)
        except _Refused:
            return chain.write(ERR)
        return chain.write(OK)

    def _set_mode(self, attribute: str) -> Callable[[bytes], None]:
        def carry_out(data: bytes) -> None:
            (value,) = _exactly(data, 1)
            mode: dict[str, Any] = {attribute: bool(value)}
            self._net.set_filter(replace(self._net.filter, **mode))

        return carry_out

    def _set_mac_table(self, data: bytes) -> None:
        unicast, rest = _take_addresses(data)
        multicast, rest = _take_addresses(rest)
        if rest:
            raise _Refused
        self._net.set_filter(self._net.filter.with_tables(unicast, multicast))

    def _set_mac(self, data: bytes) -> None:
        self._net.set_address(_exactly(data, MAC_LENGTH))

    def _add_vlan(self, data: bytes) -> None:
        self._net.set_filter(replace(self._net.filter, vlans=self._net.filter.vlans | {_vlan(data)}))

    def _delete_vlan(self, data: bytes) -> None:
        self._net.set_filter(replace(self._net.filter, vlans=self._net.filter.vlans - {_vlan(data)}))

    def _acknowledge_announce(self, data: bytes) -> None:
        _exactly(data, 0)
        self._net.announcing = False

    def _set_pairs(self, data: bytes) -> None:
        (pairs,) = _U16.unpack(_exactly(data, _U16.size))
        if not 1 <= pairs <= self._net.queue_pairs:
            raise _Refused
        self._net.set_pairs(pairs)

    def _set_guest_offloads(self, data: bytes) -> None:
        (offloads,) = _U64.unpack(_exactly(data, _U64.size))
        if offloads & ~(self._net.negotiated & GUEST_OFFLOADS):
            raise _Refused
        self._net.set_guest_offloads(offloads)


def _exactly(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise _Refused
    return data


def _vlan(data: bytes) -> int:
    (vlan,) = _U16.unpack(_exactly(data, _U16.size))
    if vlan >= VLANS:
        raise _Refused
    return int(vlan)


def _take_addresses(data: bytes) -> tuple[list[bytes], bytes]:
    """A count and so many MAC addresses from the start of `data`, and what is behind them."""
    if len(data) < _U32.size:
        raise _Refused
    (count,) = _U32.unpack_from(data)
    end = _U32.size + count * MAC_LENGTH
    if end > len(data):
        raise _Refused
    return split_addresses(data[_U32.size : end]), data[end:]
