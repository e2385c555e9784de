"""The virtio devices of a guest, in the order in which a board gives them places: disks first, so that the order of the
boot disks is that of the configuration."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from emuvisor.bus.clock import Clock, VirtualClock
from emuvisor.bus.ethernet import Link
from emuvisor.devices.virtio.balloon import Balloon
from emuvisor.devices.virtio.blk import Blk
from emuvisor.devices.virtio.console import Console as VirtioConsole
from emuvisor.devices.virtio.console import ConsolePort
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.fs import Fs
from emuvisor.devices.virtio.input import Input
from emuvisor.devices.virtio.mem import Mem
from emuvisor.devices.virtio.net import Net
from emuvisor.devices.virtio.rng import Rng
from emuvisor.devices.virtio.vsock import Vsock
from emuvisor.machine.boards.wiring import Drive
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.console import Console
from emuvisor.machine.memory_map import PLUG_BLOCK
from emuvisor.memory import GuestMemory

__all__ = ["VirtioDevices", "make_virtio"]

DISK_SERIAL = "EMUVISOR-VD{}"
"""Serial numbers by which guests tell their disks apart."""
RNG_SEED = "emuvisor"
"""On a virtual clock every run is the same, its random numbers too."""


@dataclass(slots=True)
class VirtioDevices:
    """A guest's devices, all in `devices`, and by what they are."""

    devices: list[VirtioDevice] = field(default_factory=list)
    disks: list[Blk] = field(default_factory=list)
    nics: list[Net] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    ports: dict[str, Console] = field(default_factory=dict)
    """The host's side of each port of the virtio console, by the port's name."""
    balloon: Balloon | None = None
    mem: Mem | None = None
    vsock: Vsock | None = None


def make_virtio(
    config: GuestConfig,
    *,
    drives: Sequence[Drive],
    links: Sequence[Link],
    memory: GuestMemory,
    clock: Clock,
    call_soon: Callable[[Callable[[], None]], None],
) -> VirtioDevices:
    """The devices that `config` asks for. `drives` are its disks at virtio, with their images, `links` the other ends
    of its network cards' cables, both in its order.

    Raises ConfigError for a shared folder that cannot be opened.
    """
    made = VirtioDevices()
    for number, (disk, drive) in enumerate(zip(config.virtio_disks, drives, strict=True)):
        assert drive.image is not None, "only drives of other kinds can be without a medium"
        made.disks.append(
            Blk(
                drive.image,
                name=f"virtio-blk {number}",
                serial=DISK_SERIAL.format(number),
                queues=disk.queues,
                meter=drive.meter,
            )
        )
    for number, (nic, link) in enumerate(zip(config.nics, links, strict=True)):
        mac = nic.address(config.known_as, number)
        made.nics.append(
            Net(
                name=f"virtio-net {number}",
                mac=mac,
                link=link,
                queue_pairs=nic.queues,
                limits=nic.limits,
                call_soon=call_soon,
            )
        )
    made.devices += [*made.disks, *made.nics]
    if config.console_ports:
        made.devices.append(_console(config, made.ports, call_soon))
    if config.rng:
        source = None if isinstance(clock, VirtualClock) else os.urandom
        seed = f"{RNG_SEED}/{config.known_as}"
        if config.seed:
            seed += f"/{config.seed}"
        made.devices.append(Rng(name="virtio-rng", source=source, seed=seed))
    if config.balloon:
        made.balloon = Balloon(name="virtio-balloon", memory=memory)
        made.devices.append(made.balloon)
    place = config.memory_map.pluggable
    if place is not None:
        ram = memory.add_pluggable(*place, PLUG_BLOCK)
        made.mem = Mem(name="virtio-mem", ram=ram, limit=config.plug_limit)
        made.devices.append(made.mem)
    if config.vsock is not None:
        made.vsock = Vsock(name="virtio-vsock", cid=config.vsock, call_soon=call_soon)
        made.devices.append(made.vsock)
    made.devices += [
        Fs(name=f"virtio-fs {share.tag}", tag=share.tag, root=share.path, read_only=share.readonly)
        for share in config.shares
    ]
    made.inputs = [Input(name=f"virtio-{kind}", kind=kind, call_soon=call_soon) for kind in config.input]
    made.devices += made.inputs
    for device in made.devices:
        device.packed = config.ring == "packed"
    return made


def _console(
    config: GuestConfig, ports: dict[str, Console], call_soon: Callable[[Callable[[], None]], None]
) -> VirtioConsole:
    """One port for each name; the first is a console to the guest's kernel, the others are plain ports."""
    made = []
    for number, name in enumerate(config.console_ports):
        console = ports[name] = Console()
        port = ConsolePort(name, console.write, console=number == 0)
        _connect(console, port, call_soon)
        made.append(port)
    return VirtioConsole(name="virtio-console", ports=made, call_soon=call_soon)


def _connect(console: Console, port: ConsolePort, call_soon: Callable[[Callable[[], None]], None]) -> None:
    """What is typed waits in `console` until `port` has room for it."""

    def pump() -> None:
        console.pump(port.feed)

    port.on_room = pump
    console.on_input = lambda: call_soon(pump)
