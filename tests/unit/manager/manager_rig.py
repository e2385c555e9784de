"""A manager of small guests in real mode, as those of tests/unit/host: isa boards, flat binaries."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emuvisor.host import Host
from emuvisor.manager import Manager
from emuvisor.store import Store
from emuvisor.units import MIB

ADDRESS = 0x8000
PROGRAMS = {
    "spin": "ebfe",  # jmp $
    "idle": "fb f4 ebfd",  # sti; hlt; jmp $-1
    "off": "ba0406 b80020 ef f4",  # mov dx, 604h; mov ax, 2000h; out dx, ax; hlt
    "crash": "0f011e0090 0f0b",  # lidt [9000h], which is zeros; ud2
    # COM1: 'HI' and a new line, then it counts in memory at 7000h
    "hello": "baf803 b048 ee b049 ee b00a ee 66ff060070 ebf9",
    # COM1 gets DTR and RTS, then every byte received is sent back; '!' switches off
    "echo": "bafc03 b003 ee bafd03 ec a801 74f8 baf803 ec ee 3c21 75ef ba0406 b80020 ef f4",
}


def definition(folder: Path, name: str, program: str = "spin", **keys: Any) -> dict[str, Any]:
    """A guest that runs one of PROGRAMS."""
    path = folder / f"{program}.bin"
    path.write_bytes(bytes.fromhex(PROGRAMS[program]))
    return {
        "name": name,
        "board": "isa",
        "memory": MIB,
        "flat": {"path": str(path), "address": ADDRESS},
        **keys,
    }


@contextmanager
def managed(folder: Path, memory: int = 16 * MIB, **options: Any) -> Iterator[Manager]:
    """A manager of the store in `folder`; what runs in the end is switched off."""
    manager = Manager(Host(memory), Store(folder / "store"), **options)
    try:
        yield manager
    finally:
        manager.close(save=False)


def wait_for(manager: Manager, name: str, state: str) -> None:
    """Return when a guest is in `state`, or fail after half a minute."""
    host = manager.host
    with host.lock:
        assert host.changed.wait_for(lambda: manager.state(name) == state, 30), manager.state(name)
    manager.settle()


def expect(attachment: Any, text: bytes) -> bytes:
    """Read until `text` comes; returns all until then."""
    got = b""
    while text not in got:
        new = attachment.read(30)
        assert new, got
        got += new
    return got
