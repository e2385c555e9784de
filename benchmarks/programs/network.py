"""Two Debian guests on virtual networks of one host: python -m benchmarks.programs.network CONFIGURATION (as JSON)

pcpus      how many threads run guests
networks   what NetworkConfig takes, for each network
server     a guest, at whose shell `serve` is typed, which prints `serving` when it is ready
client     another, booted then, with its console on standard input and output
"""

import json
import sys

from benchmarks.harness import BenchmarkError
from benchmarks.programs.console import HOST_RESERVE, run_on_stdio
from emuvisor.host import Guest, Host
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.machine.config_file import from_mapping
from emuvisor.net.config import NetworkConfig

BOOT_TIMEOUT_S = 120
SERVE_TIMEOUT_S = 30


def _expect(guest: Guest, text: str, timeout_s: float, send: str = "") -> None:
    if not guest.expect(text, timeout_s, send):
        raise BenchmarkError(f"no {text!r} from {guest.name}; it printed {guest.console.text[-300:]!r}")


def main() -> int:
    """Run until the client ends; 0 when it switched itself off."""
    data = json.loads(sys.argv[1])
    server, client = (from_mapping(data[name], f"the {name}") for name in ("server", "client"))
    with Host(server.memory + client.memory + HOST_RESERVE, pcpus=data["pcpus"]) as host:
        for network in data["networks"]:
            host.add_network(NetworkConfig(**network))
        guest = host.create(server)
        guest.start()
        _expect(guest, BOOT_MARKER, BOOT_TIMEOUT_S)
        _expect(guest, "# ", BOOT_TIMEOUT_S)
        _expect(guest, data["serving"], SERVE_TIMEOUT_S, f"{data['serve']}\n")
        return run_on_stdio(host.create(client))


if __name__ == "__main__":
    sys.exit(main())
