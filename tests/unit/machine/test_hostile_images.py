"""Whatever the bytes, a loader returns a Boot inside the guest's RAM or raises ImageError."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_images import PACKERS, bzimage, elf32, elf64, multiboot, vmlinux

from emuvisor.errors import ImageError
from emuvisor.machine.loaders.detect import load
from emuvisor.machine.loaders.zero_page import Extras
from emuvisor.machine.memory_map import MemoryMap

MEMORY = MemoryMap.for_ram(64 << 20)
EXTRAS = Extras(initrd=b"initrd", cmdline="console=ttyS0")
IMAGES = {
    **{name: bzimage(pack(vmlinux())) for name, pack in PACKERS.items()},
    "elf64": elf64([(0x200000, b"\xf4" * 64, 128), (0x300000, b"data", 8192)], 0x200000),
    "elf32": elf32([(0x200000, b"\xf4" * 64, 128)], 0x200000),
    "multiboot": multiboot(),
}
relaxed = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def check(image: bytes, decompressor="host") -> None:
    with suppress(ImageError):
        boot = load("image", image, MEMORY, EXTRAS, decompressor)
        assert all(MEMORY.is_ram(p.gpa, p.size) for p in boot.pieces)
        assert sum(len(p.data) for p in boot.pieces) <= MEMORY.size


@given(st.binary(max_size=1024), st.sampled_from([b"", b"\x7fELF\x02\x01", b"\x7fELF\x01\x01"]))
@relaxed
def test_random_bytes(data, start):
    check(start + data)
    check(bytes(0x202) + b"HdrS" + data)


@pytest.mark.parametrize("name", IMAGES)
@given(data=st.data())
@relaxed
def test_truncated(name, data):
    image = IMAGES[name]
    check(image[: data.draw(st.integers(0, len(image) - 1))])


@pytest.mark.parametrize("name", IMAGES)
@given(data=st.data())
@relaxed
def test_flipped(name, data):
    image = bytearray(IMAGES[name])
    places = st.one_of(st.integers(0, len(image) - 1), st.integers(0x1F1, 0x264), st.integers(0, 160))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        image[place % len(image)] = value
    check(bytes(image))
    check(bytes(image), "guest")
