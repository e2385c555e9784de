"""Build the firmware images: python firmware/build.py [NAME...]

Sources are `firmware/NAME/NAME.S` (GNU as), images `emuvisor/firmware/NAME.bin`. The same sources give the
same bytes, whichever the folder.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

FIRMWARE = Path(__file__).resolve().parent
PACKAGE = FIRMWARE.parent / "emuvisor" / "firmware"

FLAT_ADDRESS = 0x8000
ADDRESS = {
    "bios": 0,  # an offset in segment F000
    "boot": 0x7C00,
    "hello": FLAT_ADDRESS,
    "ring": FLAT_ADDRESS,
    "memtouch": FLAT_ADDRESS,
    "spin": FLAT_ADDRESS,
    "halt": FLAT_ADDRESS,
    "vmexit": FLAT_ADDRESS,
    "bioscheck": FLAT_ADDRESS,
    "vbe": FLAT_ADDRESS,
    "balloon": FLAT_ADDRESS,
    "smp": FLAT_ADDRESS,
    "dice": FLAT_ADDRESS,
}
TOOLS = ("as", "ld", "objcopy")


def build(name: str, out: Path) -> Path:
    """Assemble and link `name` into `out`; returns the image's path."""
    target = out / f"{name}.bin"
    folder = FIRMWARE / name
    with tempfile.TemporaryDirectory() as work:
        elf, obj = Path(work, "linked"), Path(work, "object")
        includes: list[str | Path] = ["-I", FIRMWARE / "include", "-I", folder]
        layout: list[str | Path] = [
            "-T",
            FIRMWARE / "flat.ld",
            f"--defsym=BASE={ADDRESS[name]:#x}",
            "-e",
            "BASE",
        ]
        commands: list[list[str | Path]] = [
            ["as", "--64", *includes, "-o", obj, folder / f"{name}.S"],
            ["ld", "-m", "elf_x86_64", "--build-id=none", *layout, "-o", elf, obj],
            ["objcopy", "-O", "binary", elf, target],
        ]
        for command in commands:
            subprocess.run(command, check=True)
    return target


def main() -> int:
    """Build what the command line names, or everything."""
    parser = argparse.ArgumentParser(description="Build emuvisor's firmware images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ADDRESS)} (default: all)")
    parser.add_argument("--out", type=Path, default=PACKAGE, help="folder for the images")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in ADDRESS]:
        parser.error(f"no firmware of the name {', '.join(unknown)}")
    for name in args.names or ADDRESS:
        target = build(name, args.out)
        print(f"{target.name}: {target.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
