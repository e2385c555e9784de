"""Pages, guests and what a store shows of itself, for tests."""

import numpy as np

from emuvisor.units import PAGE_SIZE


def page(number: int) -> bytes:
    """A page that shrinks, unlike those of other numbers."""
    return number.to_bytes(4, "little") * 16 + bytes(PAGE_SIZE - 64)


def noise(number: int) -> bytes:
    """A page that does not shrink."""
    return np.random.default_rng(number).bytes(PAGE_SIZE)


def snapshot(store, guest, name, contents, states=None, *, parent=None, **more):
    """A snapshot with the pages `contents` by guest frame, on top of those of the `parent` (an info)."""
    with store.new_snapshot(guest, name, parent=parent, now=lambda: 1000.0 + len(store.snapshots())) as draft:
        if parent is not None:
            with store.open_snapshot(parent.guest, parent.name) as opened:
                draft.inherit(opened)
        draft.put(contents.keys(), list(contents.values()))
        return draft.commit(states, **more)


def content(store, guest, name):
    """The states of a snapshot, and its pages by guest frame."""
    into = memoryview(bytearray(PAGE_SIZE))
    pages = {}
    with store.open_snapshot(guest, name) as opened:
        for slot, frame in enumerate(opened.frames.tolist()):
            opened.read(slot, into)
            pages[frame] = bytes(into)
        return opened.states(), pages


def everything(store):
    """All that a store has: by guest, its definition and the contents of its snapshots."""
    return {
        guest: (
            store.definition(guest),
            {info.name: content(store, guest, info.name) for info in store.snapshots(guest)},
        )
        for guest in store.guests()
    }


def names_in(folder):
    """What is in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())
