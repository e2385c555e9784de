"""A Debian guest that serves a folder of the host's: shared folder, network with a way out, a port forward."""

import sys
from pathlib import Path
from urllib.request import urlopen

from emuvisor.host import Host
from emuvisor.images.cache import find
from emuvisor.machine.config import GuestConfig, KernelConfig, NicConfig, ShareConfig
from emuvisor.units import GIB

image = find("debian")
if image is None:
    sys.exit("first: emuvisor images pull debian")

config = GuestConfig(
    name="web",
    clock="host",  # answers from a network take the host's time
    kernel=KernelConfig(image.kernel, image.initrd, image.append),
    nics=(NicConfig("user", forwards=("tcp:0:80",)),),
    shares=(ShareConfig(Path(__file__).parent, "examples"),),
)
with Host(memory=GIB) as host:
    guest = host.create(config)
    guest.start()
    guest.expect("# ")
    guest.expect(
        "obtained", send="udhcpc -i eth0; mount -t virtiofs examples /mnt; httpd -h /mnt; echo serv''ing\n"
    )
    guest.expect("serving")
    (forward,) = guest.forwards
    with urlopen(f"http://127.0.0.1:{forward.host_port}/README.md") as response:
        print(response.readline().decode().strip())
