import pytest
from display_rig import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def text_bench() -> Bench:
    """In text mode 3 with an empty screen and no cursor."""
    bench = Bench()
    bench.vga.set_text_mode()
    bench.set(0x3D4, 0x0A, 0x20)
    return bench
