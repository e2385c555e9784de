"""A store of pages in a dictionary, for tests."""

from emuvisor.errors import PageLost
from emuvisor.memory.store import SlotOwners
from emuvisor.units import PAGE_SIZE


class FakeStore:
    name = "fake store"

    def __init__(self, room=1 << 20):
        self.room = room
        self.contents = {}
        self.owners = SlotOwners()
        self.broken = set()
        self.refused = set()
        """First bytes of pages that it does not take."""
        self._next = 0

    @property
    def pages(self):
        return len(self.contents)

    @property
    def used_bytes(self):
        return self.pages * PAGE_SIZE

    @property
    def limit_bytes(self):
        return self.room * PAGE_SIZE

    @property
    def statistics(self):
        return {}

    def store(self, pages):
        return [self._store(page) for page in pages]

    def _store(self, page):
        assert len(page) == PAGE_SIZE
        if self.pages == self.room or page[0] in self.refused:
            return None
        self._next += 1
        self.contents[self._next] = bytes(page)
        return self._next

    def load(self, slot, into):
        if slot in self.broken:
            into[:10] = b"wrong data"
            raise PageLost(f"{self.name}: page {slot}: checksum")
        into[:] = self.contents[slot]

    def share(self, slots):
        assert all(slot in self.contents for slot in slots)
        self.owners.share(slots)

    def free(self, slots):
        for slot in self.owners.free(slots):
            del self.contents[slot]
