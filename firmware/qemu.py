"""Run a flat guest on QEMU, to compare: python firmware/qemu.py NAME [PARAMETER...]

The guest starts from a disk, by QEMU's own BIOS. Prints the guest's serial output; the exit code is QEMU's: 0
after a power-off, (v << 1) | 1 after the guest wrote v to the debug-exit port.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from emuvisor.firmware import FLAT, boot_disk

OPTIONS = """
    -accel tcg -cpu max -m 256 -nodefaults -no-reboot -vga std -display none -monitor none -serial stdio
    -device isa-debug-exit,iobase=0xf4,iosize=0x04
"""


def run(name: str, parameters: list[int], timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run flat guest `name` with 64-bit `parameters`; raises TimeoutExpired after `timeout_s`."""
    block = b"".join(value.to_bytes(8, "little") for value in parameters)
    with tempfile.TemporaryDirectory() as work:
        disk = Path(work, "disk.img")
        disk.write_bytes(boot_disk(name, block))
        drive = ["-drive", f"file={disk},format=raw"]
        return subprocess.run(
            ["qemu-system-x86_64", *OPTIONS.split(), *drive],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description="Run a flat guest on QEMU.")
    parser.add_argument("name", choices=FLAT)
    parser.add_argument("parameters", nargs="*", type=lambda text: int(text, 0), metavar="PARAMETER")
    args = parser.parse_args()
    result = run(args.name, args.parameters)
    print(result.stdout, end="")
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
