"""vsock: sockets between a guest and its host, without a network (virtio 1.2, 5.10).

packet.py      the header of each packet, operations and flags by the specification's names
connection.py  one connection: its state, credit in both directions, what is to be said next; no queues, no threads
buffer.py      bytes on their way, with the ends of messages
stream.py      Stream: the host's end as a blocking socket, for any thread
service.py     Service, Handler: the host's end as callbacks in the guest's own thread, the same in every run
host.py        VsockHost: listening, connecting, serving
device.py      Vsock: the device, its queues and all of its connections
"""

from emuvisor.devices.virtio.vsock.device import Vsock
from emuvisor.devices.virtio.vsock.host import Listener, VsockHost
from emuvisor.devices.virtio.vsock.service import Channel, Handler, Service
from emuvisor.devices.virtio.vsock.stream import Stream

__all__ = ["Channel", "Handler", "Listener", "Service", "Stream", "Vsock", "VsockHost"]
