"""Several guests share one pCPU."""

import tempfile
from pathlib import Path

from emuvisor import firmware
from emuvisor.host import Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB

with tempfile.TemporaryDirectory() as folder, Host(memory=256 * MIB, pcpus=1) as host:
    host.listeners.append(lambda event: print(f"{event.guest}: {event.old} -> {event.new} ({event.reason})"))
    guests = []
    for name in ("hello", "ring", "memtouch", "halt"):
        path = Path(folder) / f"{name}.bin"
        path.write_bytes(firmware.image(name))
        config = GuestConfig(name=name, memory=32 * MIB, flat=FlatConfig(path, firmware.FLAT_ADDRESS))
        guests.append(host.create(config))
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait()
        used = guest.statistics()
        print(f"{guest.name}: {used.slices} slices, {used.cpu_ns / 1e6:.1f} ms, {used.last_line!r}")
