from pathlib import Path

import pytest

from benchmarks import guest_programs
from benchmarks.guest_programs import compiled, with_programs
from benchmarks.harness import BenchmarkError, Context, Settings
from emuvisor.images.cache import Image


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of cc, which writes its arguments to what is after -o."""
    fake = tmp_path / "cc"
    fake.write_text('#!/bin/sh\necho "$@" > "$4"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(guest_programs, "COMPILER", str(fake))
    return fake


def test_programs_are_compiled_without_libraries(compiler: Path, tmp_path: Path) -> None:
    program = compiled(Context(Settings()), "aio", tmp_path, "disk")
    assert program == tmp_path / "aio"
    source = guest_programs.SOURCES / "aio.c"
    assert source.exists()
    assert program.read_text() == f"-O2 -static -o {program} {source}\n"


def test_what_the_compiler_says_is_shown(compiler: Path, tmp_path: Path) -> None:
    compiler.write_text("#!/bin/sh\necho no libc.a >&2; exit 1\n")
    with pytest.raises(BenchmarkError) as error:
        compiled(Context(Settings()), "aio", tmp_path, "disk")
    assert str(error.value) == "aio.c cannot be compiled: no libc.a"


def test_programs_come_behind_the_initramfs(tmp_path: Path) -> None:
    (tmp_path / "aio").write_bytes(b"ELF")
    (tmp_path / "initrd.cpio").write_bytes(b"the image's")
    image = Image("debian", tmp_path, tmp_path / "vmlinuz", tmp_path / "initrd.cpio", "", {}, 0)
    changed = with_programs(image, {"aio": tmp_path / "aio"}, tmp_path)
    assert changed.initrd is not None
    data = changed.initrd.read_bytes()
    assert data.startswith(b"the image's070701")
    assert b"bin/aio\0" in data
    assert (tmp_path / "initrd.cpio").read_bytes() == b"the image's"
    assert changed.kernel == image.kernel
