"""A swap file on a disk that fills up, fails, forgets and lies."""

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.errors import PageLost
from emuvisor.memory.swapfile import PUNCH_EVERY, WRITE_PAGES, SwapFile
from emuvisor.units import MIB, PAGE_SIZE

PAGE = PAGE_SIZE


class FaultyFile:
    """A file in memory that does what a disk should not."""

    def __init__(self, path):
        self.path = path
        self.content = bytearray()
        self.space = None
        """Bytes that fit; then ENOSPC."""
        self.most = None
        """Bytes that one call writes, at most."""
        self.bad = set()
        """Pages that cannot be read."""
        self.dead_for_writing = False
        self.punch_error = 0
        self.punched = []
        self.on_read = lambda: None

    def read(self, buffers, offset):
        position = offset
        for buffer in buffers:
            if position // PAGE in self.bad:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            piece = self.content[position : position + len(buffer)]
            buffer[: len(piece)] = piece
            position += len(piece)
        self.on_read()
        return position - offset

    def write(self, pages, offset):
        if self.dead_for_writing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        data = b"".join(pages)[: self.most]
        if self.space is not None:
            data = data[: max(0, self.space - offset)]
        if not data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if len(self.content) < offset + len(data):
            self.content.extend(bytes(offset + len(data) - len(self.content)))
        self.content[offset : offset + len(data)] = data
        return len(data)

    def punch(self, offset, length):
        self.punched.append((offset // PAGE, length // PAGE))
        if self.punch_error:
            raise OSError(self.punch_error, os.strerror(self.punch_error))
        self.content[offset : offset + length] = bytes(length)

    def close(self):
        self.content.clear()


@pytest.fixture
def swap():
    return SwapFile("/disk/swap", MIB * 4, FaultyFile)


def page(number):
    return number.to_bytes(4, "little") * (PAGE // 4)


def stored(swap, *numbers):
    return swap.store([memoryview(page(number)) for number in numbers])


def loaded(swap, slot):
    into = bytearray(b"\xee" * PAGE)
    swap.load(slot, memoryview(into))
    return bytes(into)


def lost(swap, slot):
    """Why the page in `slot` cannot be had."""
    with pytest.raises(PageLost) as error:
        loaded(swap, slot)
    return str(error.value)


def test_a_full_disk(swap):
    swap._file.space = 3 * PAGE + 100
    assert stored(swap, 1, 2, 3, 4, 5) == [0, 1, 2, None, None]
    assert [loaded(swap, slot) for slot in range(3)] == [page(1), page(2), page(3)]
    assert (swap.pages, swap.statistics["write_errors"], swap.statistics["stored"]) == (3, 2, 3)
    assert swap.last_error == "writing 5 pages at offset 0x0: No space left on device"
    swap._file.space = None
    slots = stored(swap, 4, 5)
    assert [loaded(swap, slot) for slot in slots] == [page(4), page(5)], "nothing was lost"


def test_a_full_disk_and_slots_that_have_their_space(swap):
    """What the file has it can use again, however scattered; when it grows again, all is well."""
    swap._file.space = 64 * PAGE
    slots = stored(swap, *range(64))
    assert stored(swap, 100) == [None]
    assert swap.trouble == "swap file /disk/swap: No space left on device"
    assert swap.statistics["unpunched"] == 0, "nothing was written there"
    swap.free([slots[5], slots[40], slots[41]])
    again = stored(swap, 101, 102, 103, 104)
    assert again == [5, 40, 41, None]
    assert [loaded(swap, slot) for slot in again[:3]] == [page(101), page(102), page(103)]
    assert swap.trouble, "the file has not grown"
    swap._file.space = None
    assert None not in stored(swap, 105)
    assert swap.trouble == ""


def test_after_an_error_the_rest_is_not_tried(swap):
    swap._file.space = WRITE_PAGES * PAGE
    slots = stored(swap, *range(3 * WRITE_PAGES))
    assert slots == [*range(WRITE_PAGES)] + [None] * (2 * WRITE_PAGES)
    assert swap.last_error == f"writing {WRITE_PAGES} pages at offset 0x100000: No space left on device"
    assert swap.pages == WRITE_PAGES


@pytest.mark.parametrize("most", [1, 1000, PAGE, PAGE + 1, 3 * PAGE])
def test_a_disk_that_writes_a_little_at_a_time(swap, most):
    swap._file.most = most
    slots = stored(swap, 1, 2)
    assert [loaded(swap, slot) for slot in slots] == [page(1), page(2)]


def test_a_disk_that_cannot_be_written(swap):
    (slot,) = stored(swap, 1)
    swap._file.dead_for_writing = True
    assert stored(swap, 2, 3) == [None, None]
    assert swap.last_error == "writing 2 pages at offset 0x1000: Input/output error"
    assert loaded(swap, slot) == page(1)
    assert swap.pages == 1


def test_a_disk_that_cannot_be_read(swap):
    slots = stored(swap, 1, 2, 3)
    swap._file.bad = {1}
    assert lost(swap, slots[1]) == (
        "swap file /disk/swap, page at offset 0x1000: it cannot be read: Input/output error"
    )
    assert swap.last_error == "reading a page at offset 0x1000: Input/output error"
    assert swap.statistics["lost"] == 1


def test_a_bad_neighbour_harms_nobody(swap):
    slots = stored(swap, 1, 2, 3)
    swap._file.bad = {1}
    assert loaded(swap, slots[0]) == page(1)
    assert loaded(swap, slots[2]) == page(3)
    assert swap.last_error == ""


@pytest.mark.parametrize("bit", [0, 5 * 8 + 3, PAGE * 8 - 1])
def test_a_flipped_bit(swap, bit):
    slots = stored(swap, 1, 2)
    swap._file.content[PAGE + bit // 8] ^= 1 << bit % 8
    assert loaded(swap, slots[0]) == page(1)
    assert re.fullmatch(
        r"swap file /disk/swap, page at offset 0x1000: its checksum is 0x[0-9a-f]{8}, not 0x[0-9a-f]{8}",
        lost(swap, slots[1]),
    ), "found although it had been read ahead"
    assert loaded(swap, slots[0]) == page(1)


def test_a_truncated_file(swap):
    slots = stored(swap, 1, 2, 3)
    del swap._file.content[PAGE + 0x123 :]
    assert loaded(swap, slots[0]) == page(1)
    text = "swap file /disk/swap, page at offset 0x1000: the file was cut: 291 of its 4096 bytes are there"
    assert lost(swap, slots[1]) == text
    assert lost(swap, slots[1]) == text, "each time"
    assert (
        lost(swap, slots[2])
        == "swap file /disk/swap, page at offset 0x2000: the file was cut: 0 of its 4096 bytes are there"
    )
    swap.free(slots)
    assert swap.pages == 0


def test_pages_in_each_others_place(swap):
    slots = stored(swap, 1, 1)
    assert loaded(swap, slots[0]) == page(1)
    other = stored(swap, 2, 3)
    content = swap._file.content
    content[2 * PAGE : 3 * PAGE], content[3 * PAGE : 4 * PAGE] = (
        content[3 * PAGE : 4 * PAGE],
        content[2 * PAGE : 3 * PAGE],
    )
    assert "its checksum is" in lost(swap, other[0])
    assert "its checksum is" in lost(swap, other[1])


def test_a_write_that_was_forgotten(swap):
    """The disk said yes and did nothing: what an earlier page left there is not taken for this one."""
    slots = stored(swap, *range(1, 1025))
    swap.free(slots)
    old = bytes(swap._file.content)
    again = stored(swap, *range(5001, 6025))
    swap._file.content[:] = old
    assert "its checksum is" in lost(swap, again[0])


def test_a_real_file_that_is_cut_and_changed(tmp_path):
    swap = SwapFile(tmp_path / "swap", MIB)
    slots = stored(swap, 1, 2, 3)
    with swap.path.open("r+b") as file:
        file.seek(5)
        file.write(b"!")
        file.truncate(2 * PAGE)
    assert "its checksum is" in lost(swap, slots[0])
    assert loaded(swap, slots[1]) == page(2)
    assert "the file was cut: 0 of its 4096 bytes are there" in lost(swap, slots[2])
    swap.close()
    assert lost(swap, slots[1]).endswith("page at offset 0x1000: it cannot be read: Bad file descriptor")
    assert stored(swap, 4) == [None]


def test_no_memory_to_write(swap):
    (first,) = stored(swap, 1)

    def refuse(pages, offset):
        raise MemoryError

    write, swap._file.write = swap._file.write, refuse
    assert stored(swap, 2, 3) == [None, None]
    assert swap.trouble == "swap file /disk/swap: the host has no memory for it"
    assert (swap.pages, swap.statistics["write_errors"]) == (1, 2)
    swap._file.write = write
    (again,) = stored(swap, 2)
    assert [loaded(swap, first), loaded(swap, again), swap.trouble] == [page(1), page(2), ""]


def test_no_memory_to_read_ahead(swap):
    slots = stored(swap, 1, 2)
    read = swap._file.read

    def tight(buffers, offset):
        if len(buffers) > 1:
            raise MemoryError
        return read(buffers, offset)

    swap._file.read = tight
    assert [loaded(swap, slot) for slot in slots] == [page(1), page(2)]

    def refuse(buffers, offset):
        raise MemoryError

    swap._file.read = refuse
    with pytest.raises(MemoryError):
        loaded(swap, slots[0])
    swap._file.read = read
    assert loaded(swap, slots[0]) == page(1), "it was not lost"
    assert swap.statistics["lost"] == 0


@pytest.mark.parametrize("most", [1000, PAGE - 1, PAGE + 1])
def test_a_disk_that_reads_a_little_at_a_time(swap, most):
    slots = stored(swap, 1, 2, 3)
    read = swap._file.read
    swap._file.read = lambda buffers, offset: read([buffers[0][:most]], offset)
    assert [loaded(swap, slot) for slot in slots] == [page(1), page(2), page(3)]


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_holes(swap, error):
    swap._file.punch_error = error
    slots = stored(swap, *range(PUNCH_EVERY + 10))
    swap.free(slots[:PUNCH_EVERY])
    assert swap._file.punched == [(0, PUNCH_EVERY)]
    assert swap.last_error == f"punching a hole at offset 0x0: {os.strerror(error)}"
    assert swap.statistics["unpunched"] == PUNCH_EVERY
    swap.free(slots[PUNCH_EVERY:])
    assert len(swap._file.punched) == 1, "it is not asked again"
    assert None not in stored(swap, *range(1024)), "all slots can be used"


def test_a_neighbour_that_changes_hands_while_it_is_read(swap):
    """The read sees its old content; nobody may get that for the new one."""
    swap = SwapFile("/disk/swap", 2 * PAGE, FaultyFile)
    slots = stored(swap, 1, 2)

    def meanwhile():
        swap._file.on_read = lambda: None
        swap.free([slots[1]])
        assert stored(swap, 3) == [slots[1]]

    swap._file.on_read = meanwhile
    assert loaded(swap, slots[0]) == page(1)
    assert loaded(swap, slots[1]) == page(3)


def test_holes_where_the_host_has_no_fallocate(tmp_path, monkeypatch):
    monkeypatch.setattr("emuvisor.holes._fallocate", None)
    swap = SwapFile(tmp_path / "swap", 2 * MIB)
    swap.free(stored(swap, *range(PUNCH_EVERY)))
    assert swap.last_error == "punching a hole at offset 0x0: the host has no fallocate"
    swap.close()


def test_fallocate_is_tried_again_after_a_signal(tmp_path, monkeypatch):
    answers = [errno.EINTR, errno.ENODEV]
    asked = []

    def fallocate(*args):
        asked.append(args[1:])
        return -1

    monkeypatch.setattr("emuvisor.holes._fallocate", fallocate)
    monkeypatch.setattr("emuvisor.holes.ctypes.get_errno", lambda: answers.pop(0))
    swap = SwapFile(tmp_path / "swap", 2 * MIB)
    swap.free(stored(swap, *range(PUNCH_EVERY)))
    assert asked == [(3, 0, PUNCH_EVERY * PAGE)] * 2
    assert swap.last_error == "punching a hole at offset 0x0: No such device"
    swap.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_faults_against_plain_copies(data):
    """Whatever the disk does, a page comes back as it was or is said to be lost; one that was not taken costs
    nothing."""
    swap = SwapFile(Path("/disk/swap"), 12 * PAGE, FaultyFile)
    disk = swap._file
    model = {}
    whole = True
    for step in range(data.draw(st.integers(1, 15))):
        action = data.draw(
            st.sampled_from(["store", "store", "load", "free", "space", "flip", "cut", "bad", "heal"])
        )
        if action == "store":
            numbers = [100 * step + i for i in range(data.draw(st.integers(1, 5)))]
            for number, slot in zip(numbers, stored(swap, *numbers), strict=True):
                assert slot not in model
                if slot is not None:
                    model[slot] = page(number)
        elif action == "load":
            for slot, content in model.items():
                try:
                    assert loaded(swap, slot) == content
                except PageLost:
                    assert not whole, "nothing is lost without a fault"
        elif action == "free" and model:
            gone = data.draw(st.sets(st.sampled_from(sorted(model))))
            swap.free(sorted(gone))
            for slot in gone:
                del model[slot]
        elif action == "space":
            disk.space = data.draw(st.none() | st.integers(0, 12 * PAGE))
        elif action == "flip" and disk.content:
            disk.content[data.draw(st.integers(0, len(disk.content) - 1))] ^= 0x10
            whole = False
        elif action == "cut":
            del disk.content[data.draw(st.integers(0, 12 * PAGE)) :]
            whole = False
        elif action == "bad":
            disk.bad = data.draw(st.sets(st.integers(0, 11)))
            whole = False
        elif action == "heal":
            disk.bad, disk.space = set(), None
        assert swap.pages == len(model)
