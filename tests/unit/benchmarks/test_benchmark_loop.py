import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import loop
from benchmarks.programs.many import Residence, residence


def test_the_loop_is_what_its_docstring_says(tmp_path: Path) -> None:
    if shutil.which("as") is None or shutil.which("objcopy") is None:
        pytest.skip("not installed: as, objcopy (Debian: binutils)")
    assert loop.__doc__ is not None
    source = loop.__doc__.split("\n\n")[1].replace("TABLE", str(loop.TABLE_ADDRESS)).replace("TURNS", "3")
    (tmp_path / "loop.s").write_text(f".intel_syntax noprefix\n.code64\n{source}\n")
    subprocess.run(["as", "loop.s", "-o", "loop.o"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "loop.o", "loop.bin"], cwd=tmp_path, check=True)
    assert (tmp_path / "loop.bin").read_bytes() == loop.code(3)


def test_emuvisor_computes_the_checksum(tmp_path: Path) -> None:
    from emuvisor.cpu.pcpu import Pcpu
    from emuvisor.machine.config import FlatConfig, GuestConfig
    from emuvisor.machine.machine import Machine
    from emuvisor.memory import FramePool
    from emuvisor.units import MIB

    image = tmp_path / "loop.bin"
    image.write_bytes(loop.code(2000))
    pool = FramePool(32 * MIB)
    machine = Machine(GuestConfig(memory=16 * MIB, flat=FlatConfig(image, loop.CODE_ADDRESS, "long64")), pool)
    machine.boot()
    assert machine.run(Pcpu(pool)) is not None
    assert machine.vcpu.state.rax == loop.checksum(2000)
    machine.close()


def test_resident_memory_is_told_apart() -> None:
    smaps = (
        "10000-20000 rw-p 00000000 00:00 0 \nSize: 64 kB\nRss:  40 kB\nPss: 1 kB\n"
        "20000-30000 rw-p 00000000 00:00 0 \nRss:  30 kB\nVmFlags: rd\n"
        "30000-40000 rwxp 00000000 00:00 0 \nRss:  20 kB\n"
        "40000-50000 r-xp 00001000 fe:00 77   /lib/libc.so\nRss:  10 kB\n"
        "50000-60000 rwxp 00001000 fe:00 77   /lib/odd.so\nRss:  5 kB\n"
    )
    assert residence(smaps, 0x20000) == Residence(other=55 * 1024, translations=20 * 1024)
    assert residence(smaps, 0) == Residence(other=85 * 1024, translations=20 * 1024)
