"""Running firmware guests to their end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool
from emuvisor.units import MIB

MEMORY = 64 * MIB
POOL = 128 * MIB
PATIENCE_S = 180


@dataclass(frozen=True)
class Result:
    """`output` is what COM1 printed, `debug` what went to the debug console; `exit` says how the run ended,
    `code` with which code of a debug exit."""

    output: str
    debug: bytes
    exit: str
    code: int


@pytest.fixture
def run_firmware(tmp_path: Path) -> Callable[..., Result]:
    """run_firmware(name, params=b"", *, memory=64 MiB, disk=None, typed=b"", keys=""): the guest's Result.

    "bios" starts from reset, with `disk` as its first hard disk; all others are flat guests. `typed` is typed
    at the console, and `keys` on the keyboard, when the BIOS says that it boots.
    """

    def run(
        name: str,
        params: bytes = b"",
        *,
        memory: int = MEMORY,
        disk: bytes | None = None,
        typed: bytes = b"",
        keys: str = "",
    ) -> Result:
        image = tmp_path / f"{name}.bin"
        image.write_bytes(firmware.image(name))
        disks: tuple[DiskConfig, ...] = ()
        if disk is not None:
            (tmp_path / "disk.img").write_bytes(disk)
            disks = (DiskConfig(tmp_path / "disk.img"),)
        if name == "bios":
            # On the pc board a BIOS has to program the chipset; ours leaves that to the host.
            config = GuestConfig(board="isa", memory=memory, firmware=image, disks=disks)
        else:
            config = GuestConfig(memory=memory, flat=FlatConfig(image, firmware.FLAT_ADDRESS), disks=disks)
        pool = FramePool(POOL)
        machine = Machine(config, pool)
        try:
            output, debug = bytearray(), bytearray()
            machine.console.listeners.append(output.extend)
            machine.debug.listeners.append(debug.extend)
            machine.boot()
            if params:
                machine.memory.write(firmware.PARAMETERS, params)

            def type_it() -> None:
                machine.console.feed(typed)
                machine.board.keyboard.type_text(keys)

            machine.console.watch("Booting", type_it)
            outcome = machine.run(Pcpu(pool, machine.model), seconds=PATIENCE_S)
        finally:
            machine.close()
        assert outcome is not None, f"{name} did not end; it printed:\n{output.decode(errors='replace')}"
        text = output.decode("latin-1").replace("\r\n", "\n")
        return Result(text, bytes(debug), str(outcome.ending), outcome.code)

    return run
