"""Boot the Debian image (`emuvisor images pull debian`) and talk to its shell."""

import sys

from emuvisor.host import Host
from emuvisor.images.cache import find
from emuvisor.machine.config import GuestConfig, KernelConfig
from emuvisor.units import GIB

image = find("debian")
if image is None:
    sys.exit("first: emuvisor images pull debian")

with Host(memory=GIB) as host:
    guest = host.create(
        GuestConfig(name="debian", kernel=KernelConfig(image.kernel, image.initrd, image.append))
    )
    guest.start()
    guest.expect("# ")
    guest.expect("# ", send="uname -a; cat /proc/interrupts\n")
    guest.type("poweroff\n")
    guest.wait()
    print(guest.console.text[guest.console.text.index("uname -a") :])
    print(guest.outcome)
