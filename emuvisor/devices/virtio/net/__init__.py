"""virtio-net, a network card: virtio 1.2, section 5.1.

features   feature bits, and which need which
header     what stands before each frame: checksums and segments that are left to do
filter     which frames the driver wants
steering   which of several queues a frame is for
inbox      frames on their way to the driver, from any thread
meter      its limits and its numbers
control    the control queue's commands
device     Net: the device and its queues
"""

from emuvisor.devices.virtio.net.device import Net

__all__ = ["Net"]
