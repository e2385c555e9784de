"""A host that has been closed, and that somebody still refers to."""

from emuvisor.host import Host
from emuvisor.units import MIB, PAGE_SIZE


class Advised:
    """In place of the pool's memory: writes down what the operating system can have back."""

    def __init__(self):
        self.ranges = []

    def madvise(self, advice, start, length):
        self.ranges.append((start // PAGE_SIZE, length // PAGE_SIZE))


def test_it_keeps_no_memory():
    with Host(MIB) as host:
        host.pool.memory = Advised()
        first, *others = frames = [host.pool.take() for _ in range(100)]
        for frame in [first, *reversed(others)]:
            assert host.pool.release_one(frame)
        assert host.pool.memory.ranges == []
    assert host.pool.memory.ranges == [(first, len(frames))]
