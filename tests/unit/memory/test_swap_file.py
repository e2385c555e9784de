"""Pages swapped to a file that works."""

import errno
import fcntl
import os
import random
import re
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.errors import HostError, PageLost, UsageError
from emuvisor.memory.pagingfile import HostPagingFile
from emuvisor.memory.swapfile import AHEAD_PAGES, PUNCH_EVERY, PUNCH_PAGES, READ_PAGES, WRITE_PAGES, SwapFile
from emuvisor.memory.swapslots import SwapSlots
from emuvisor.units import MIB, PAGE_SIZE

PAGE = PAGE_SIZE


def exactly(text):
    return f"^{re.escape(text)}$"


def page(seed):
    return random.Random(seed).randbytes(PAGE)


def stored(store, *contents):
    return store.store([memoryview(content) for content in contents])


def loaded(store, slot):
    into = bytearray(b"\xee" * PAGE)
    store.load(slot, memoryview(into))
    return bytes(into)


class CountingFile(HostPagingFile):
    """Writes down what is asked of the host."""

    def __init__(self, path):
        super().__init__(path)
        self.calls = []

    def read(self, buffers, offset):
        self.calls.append(("read", offset // PAGE, len(buffers)))
        return super().read(buffers, offset)

    def write(self, pages, offset):
        self.calls.append(("write", offset // PAGE, len(pages)))
        return super().write(pages, offset)

    def punch(self, offset, length):
        self.calls.append(("punch", offset // PAGE, length // PAGE))
        super().punch(offset, length)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "swap"


@pytest.fixture
def swap(path):
    swap = SwapFile(path, 16 * MIB, CountingFile)
    yield swap
    swap.close()


def calls(swap, kind):
    return [call[1:] for call in swap._file.calls if call[0] == kind]


# ---- the file ----


def test_the_file_is_private_sparse_and_temporary(path):
    swap = SwapFile(str(path), 16 * MIB)
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert (status.st_size, status.st_blocks) == (0, 0)
    assert swap.path == path
    stored(swap, page(1))
    assert path.stat().st_size == PAGE
    swap.close()
    assert not path.exists()
    swap.close()


def test_a_file_that_exists_is_not_touched(path):
    path.write_bytes(b"somebody's thesis")
    with pytest.raises(UsageError) as error:
        SwapFile(path, MIB)
    assert str(error.value) == (
        f"swap file {path} exists already; one that was left behind by a host that was killed can be removed"
    )
    assert path.read_bytes() == b"somebody's thesis"


def test_a_file_in_use(path):
    swap = SwapFile(path, MIB)
    with pytest.raises(UsageError, match=exactly(f"swap file {path} is in use by another host")):
        SwapFile(path, MIB)
    swap.close()
    SwapFile(path, MIB).close()


@pytest.mark.parametrize(
    ("make", "why"),
    [(os.mkdir, "is a folder; name a new file in it"), (os.mkfifo, "exists already and is no file")],
)
def test_what_is_no_file(path, make, why):
    make(path)
    with pytest.raises(UsageError, match=exactly(f"swap file {path} {why}")):
        SwapFile(path, MIB)


def test_a_link_is_not_followed(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="exists already; one that was left behind"):
        SwapFile(path, MIB)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "no" / "swap"
    text = f"swap file {path} cannot be made: No such file or directory"
    with pytest.raises(HostError, match=exactly(text)):
        SwapFile(path, MIB)


def test_a_file_that_cannot_be_locked_is_not_left_behind(path, monkeypatch):
    def refuse(fd, operation):
        raise OSError(errno.EINTR, "Interrupted system call")

    monkeypatch.setattr(fcntl, "flock", refuse)
    text = f"swap file {path} cannot be locked: Interrupted system call"
    with pytest.raises(HostError, match=exactly(text)):
        SwapFile(path, MIB)
    assert not path.exists()


def test_a_file_system_without_locks(path, monkeypatch):
    def refuse(fd, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    swap = SwapFile(path, MIB)
    assert loaded(swap, stored(swap, page(1))[0]) == page(1)
    with pytest.raises(
        UsageError, match="exists already; one that was left behind by a host that was killed"
    ):
        SwapFile(path, MIB)
    swap.close()


def test_a_path_that_begins_nowhere(tmp_path, monkeypatch):
    """The process may be in another folder when the file is deleted."""
    monkeypatch.chdir(tmp_path)
    swap = SwapFile("swap", MIB)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert swap.path == tmp_path / "swap"
    swap.close()
    assert list(tmp_path.iterdir()) == [tmp_path / "elsewhere"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC])
def test_a_file_that_cannot_be_made(path, monkeypatch, code):
    def refuse(path, flags, mode):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HostError, match=exactly(f"swap file {path} cannot be made: {os.strerror(code)}")):
        SwapFile(path, MIB)


def test_no_memory_for_the_index(path, monkeypatch):
    def refuse(count, kind):
        raise MemoryError

    monkeypatch.setattr(np, "zeros", refuse)
    text = f"the host does not give 40 MiB for the index of swap file {path}"
    with pytest.raises(HostError, match=exactly(text)):
        SwapFile(path, 1 << 34)
    assert not path.exists()


def test_a_file_that_was_replaced_is_left_alone(path):
    swap = SwapFile(path, MIB)
    path.unlink()
    path.write_bytes(b"new")
    swap.close()
    assert path.read_bytes() == b"new"


def test_a_file_that_was_deleted(path):
    swap = SwapFile(path, MIB)
    (slot,) = stored(swap, page(1))
    path.unlink()
    assert loaded(swap, slot) == page(1), "it is open"
    swap.close()


def test_a_file_that_cannot_be_deleted(path, monkeypatch):
    swap = SwapFile(path, MIB)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "unlink", refuse)
    with pytest.raises(HostError, match=exactly(f"swap file {path} cannot be deleted: Permission denied")):
        swap.close()


@pytest.mark.parametrize("limit", [-1, 0, PAGE - 1, (1 << 36) + PAGE])
def test_impossible_limits(path, limit):
    with pytest.raises(UsageError) as error:
        SwapFile(path, limit)
    assert str(error.value) == (
        f"a swap file of {limit} bytes is impossible; it has at least 4 KiB and at most 64 GiB"
    )
    assert not path.exists()


def test_the_largest_one_costs_nothing_at_first(path):
    swap = SwapFile(path, 1 << 36)
    assert (swap.limit_bytes, swap.used_bytes) == (1 << 36, 0)
    assert loaded(swap, stored(swap, page(1))[0]) == page(1)
    swap.close()


# ---- pages ----


def test_what_goes_in_comes_out(swap):
    contents = [page(i) for i in range(40)]
    slots = stored(swap, *contents)
    assert len(set(slots)) == 40
    order = random.Random(1).sample(range(40), 40)
    assert [loaded(swap, slots[i]) for i in order] == [contents[i] for i in order]
    assert [loaded(swap, slot) for slot in slots] == contents, "a load forgets nothing"
    assert (swap.pages, swap.used_bytes) == (40, 40 * PAGE)
    assert swap.statistics["loaded"] == 80
    assert swap.last_error == ""


def test_pages_are_written_in_one_go(swap):
    stored(swap, *[bytes(PAGE)] * (2 * WRITE_PAGES + 3))
    assert calls(swap, "write") == [(0, WRITE_PAGES), (WRITE_PAGES, WRITE_PAGES), (2 * WRITE_PAGES, 3)]
    assert stored(swap) == []


def test_neighbours_are_read_together(swap):
    contents = [page(i) for i in range(20)]
    slots = stored(swap, *contents)
    assert [loaded(swap, slot) for slot in slots] == contents
    assert calls(swap, "read") == [(0, READ_PAGES), (8, READ_PAGES), (16, 4)]
    assert swap.statistics["read_ahead"] == swap.statistics["read_ahead_used"] == 17


def test_only_neighbours_that_were_written_together(swap):
    slots = [stored(swap, page(i))[0] for i in range(3)] + stored(swap, page(3), page(4))
    assert loaded(swap, slots[0]) == page(0)
    assert loaded(swap, slots[3]) == page(3)
    assert calls(swap, "read") == [(0, 1), (3, 2)]


def test_what_is_known_is_not_read_again(swap):
    slots = stored(swap, *(page(i) for i in range(12)))
    loaded(swap, slots[4])
    loaded(swap, slots[0])
    assert calls(swap, "read") == [(4, 8), (0, 5)], "page 4 is not waiting any more; 5 is"


def test_pages_read_ahead_are_dropped_when_nobody_asks(swap):
    count = 8 * (AHEAD_PAGES + 16)
    slots = stored(swap, *[page(1)] * count)
    for slot in slots[::READ_PAGES]:
        loaded(swap, slot)
    assert len(swap._ahead) == AHEAD_PAGES
    before = len(calls(swap, "read"))
    loaded(swap, slots[-1])
    assert len(calls(swap, "read")) == before, "the youngest wait"
    loaded(swap, slots[1])
    assert len(calls(swap, "read")) == before + 1


def test_a_freed_page_is_not_remembered(swap):
    slots = stored(swap, page(1), page(2), page(3))
    loaded(swap, slots[0])
    swap.free(slots)
    assert swap._ahead == {}
    again = []
    while slots[1] not in again:
        again += stored(swap, *[page(9)] * 200)
    assert loaded(swap, slots[1]) == page(9)


def test_owners(swap):
    (slot,) = stored(swap, page(1))
    swap.share([slot])
    swap.free([slot])
    assert loaded(swap, slot) == page(1)
    swap.free([slot])
    assert swap.pages == 0
    with pytest.raises(KeyError):
        swap.free([slot])


@pytest.mark.parametrize("slot", [-1, 0, 4095, 4096, 1 << 24])
def test_numbers_that_were_not_given_out(swap, path, slot):
    with pytest.raises(PageLost, match=exactly(f"swap file {path} has no page {slot}")):
        loaded(swap, slot)
    with pytest.raises(KeyError):
        swap.free([slot])


# ---- the limit, and space that is freed ----


def test_the_limit_is_hard(path):
    swap = SwapFile(path, 5 * PAGE + 1)
    assert swap.limit_bytes == 5 * PAGE
    contents = [page(i) for i in range(8)]
    slots = stored(swap, *contents)
    assert slots[5:] == [None] * 3
    assert [loaded(swap, slot) for slot in slots[:5]] == contents[:5]
    assert stored(swap, page(9)) == [None]
    assert swap.statistics["no_room"] == 4
    assert path.stat().st_size == 5 * PAGE
    swap.free([slots[1], slots[3]])
    more = stored(swap, page(10), page(11), page(12))
    assert sorted(more[:2]) == [slots[1], slots[3]]
    assert more[2] is None
    assert [loaded(swap, slot) for slot in more[:2]] == [page(10), page(11)]
    assert loaded(swap, slots[2]) == contents[2]
    swap.close()


def test_space_is_given_back_in_long_runs(swap, path):
    slots = stored(swap, *[page(1)] * 1024)
    swap.free(slots[PUNCH_PAGES:PUNCH_EVERY:2])
    swap.free(slots[2:PUNCH_PAGES])
    assert calls(swap, "punch") == []
    swap.free(slots[PUNCH_EVERY + 100 : 2 * PUNCH_EVERY - 1])
    assert calls(swap, "punch") == [(PUNCH_EVERY + 100, PUNCH_EVERY - 101)]
    assert swap.statistics["punched"] == PUNCH_EVERY - 101
    assert swap.statistics["unpunched"] == PUNCH_PAGES - 2 + (PUNCH_EVERY - PUNCH_PAGES) // 2, "short runs"
    assert swap.used_bytes == swap.pages * PAGE
    with path.open("rb") as file:
        assert os.pread(file.fileno(), PAGE, (PUNCH_EVERY + 100) * PAGE) == bytes(PAGE)
        assert os.pread(file.fileno(), PAGE, PAGE) == page(1)
    assert loaded(swap, slots[0]) == page(1)
    swap.free(slots[:2])
    swap.free(slots[PUNCH_PAGES + 1 : PUNCH_EVERY : 2])
    swap.free(slots[PUNCH_EVERY : PUNCH_EVERY + 100])
    assert swap.statistics["unpunched"] > 0
    swap.free([slots[-1]])
    assert calls(swap, "punch")[1:] == [(0, PUNCH_EVERY + 100)], "all were free"
    assert (swap.pages, swap.statistics["unpunched"]) == (0, 1)


def test_slots_taken_again_are_not_punched(path):
    swap = SwapFile(path, 600 * PAGE, CountingFile)
    slots = stored(swap, *[page(1)] * 600)
    swap.free(slots[:500])
    again = stored(swap, *[page(2)] * 490)
    assert sorted(again) == list(range(490))
    swap.free(slots[500:590])
    assert calls(swap, "punch") == [(490, 100)], "the others are taken"
    assert all(loaded(swap, slot) == page(2) for slot in again)
    swap.close()


# ---- slots ----


def test_runs_are_as_long_as_can_be():
    slots = SwapSlots(16)
    assert slots.take(6) == range(6)
    assert slots.take(6) == range(6, 12)
    assert slots.take(6) == range(12, 16)
    assert slots.take(1) == range(0)
    slots.fill(range(15))
    slots.release([3, 4, 5, 6, 9, 14])
    assert slots.take(6) == range(3, 6), "half of what is wanted"
    assert slots.take(2) == range(6, 7)
    assert slots.take(0) == range(0)
    assert (slots.free, slots.taken) == (2, 14)
    assert slots.dirty == 2
    assert slots.dirty_runs(1) == [range(9, 10), range(14, 15)]
    slots.clean(range(9, 10))
    assert (slots.dirty, slots.dirty_runs(1)) == (1, [range(14, 15)])


def test_dirty_slots_only():
    slots = SwapSlots(16)
    slots.fill(slots.take(8))
    slots.release([1, 3, 4, 5, 6])
    assert slots.take_dirty(8) == range(3, 5), "half of what is wanted"
    assert [slots.take_dirty(8) for _ in range(3)] == [range(1, 2), range(5, 7), range(0)]
    assert slots.take(4) == range(8, 12)
    slots.release(range(8, 12))
    assert slots.dirty == 0, "nothing was written there"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=40), st.integers(1, 40))
def test_slots_as_a_set(steps, count):
    slots = SwapSlots(count)
    taken, dirty = set(), set()
    for take, number in steps:
        if take:
            run = slots.take(number)
            assert len(run) <= number
            assert bool(run) == (number > 0 and len(taken) < count)
            assert not taken & set(run)
            taken |= set(run)
            dirty -= set(run)
            slots.fill(run)
        else:
            gone = sorted(taken)[:number]
            slots.release(gone)
            taken -= set(gone)
            dirty |= set(gone)
        assert {slot for slot in range(-2, count + 2) if slots.holds(slot)} == taken
        assert (slots.taken, slots.free, slots.dirty) == (len(taken), count - len(taken), len(dirty))
        runs = slots.dirty_runs(1)
        assert [slot for run in runs for slot in run] == sorted(dirty)
        assert slots.dirty_runs(3) == [run for run in runs if len(run) >= 3]


class WatchedFile(HostPagingFile):
    """Calls `before_write` before anything is written."""

    def __init__(self, path):
        super().__init__(path)
        self.before_write = lambda: None

    def write(self, pages, offset):
        self.before_write()
        return super().write(pages, offset)


def test_a_page_that_is_being_written_is_not_read_ahead(tmp_path):
    files = []
    store = SwapFile(tmp_path / "swap", 2 * PAGE, lambda path: files.append(WatchedFile(path)) or files[0])
    first, second = stored(store, page(1), page(2))
    store.free([second])
    files[0].before_write = lambda: loaded(store, first)  # in another thread
    assert stored(store, page(3)) == [second]
    assert loaded(store, second) == page(3)
    store.close()
