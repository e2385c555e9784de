"""virtio-fs: one folder of the host as a file system of the guest.

device.py       the virtio device: tag, queues
server.py       FUSE: a message in, its reply out; INIT and DESTROY
protocol.py     the messages' layouts
request.py      one request, and what an operation says about itself
namespace.py    operations on names        attributes.py   on metadata
files.py        on open files              directories.py  on open directories
inodes.py       what the guest knows: containment in the folder
handles.py      what the guest has open
names.py        checks of names            dirents.py      the host's directories
syscalls.py     Linux calls beyond os      scatter.py      memory in pieces
refusal.py      errors as answers
"""

from emuvisor.devices.virtio.fs.device import Fs

__all__ = ["Fs"]
