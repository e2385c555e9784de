"""virtio 1.2 devices, modern only, and the two transports that show them to a guest.

Source: OASIS Virtual I/O Device (VIRTIO) Version 1.2; docstrings name its sections.

features.py          status bits, feature bits, device types
chain.py             Chain: what the driver made available, as the device reads and writes it
queue.py             VirtQueue: what both kinds of ring have in common; the limits that hostile rings meet
split.py packed.py   the two kinds
device.py            VirtioDevice: status, negotiation, serving queues; subclass it for a type of device
throttled.py         requests that wait because of a device's limits
mmio.py pci.py       the transports

blk.py               block device: section 5.2
net/                 network card: 5.1
console.py           console with several ports: 5.3
rng.py               entropy: 5.4
balloon.py           traditional memory balloon: 5.5
input.py evdev.py    keyboard, mouse, tablet: 5.8
vsock/               sockets between guest and host: 5.10
fs/                  a folder of the host: 5.11
mem.py               memory that is plugged and unplugged: 5.15
"""
