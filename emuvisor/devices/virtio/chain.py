"""A descriptor chain that the driver made available, as devices use it: virtio 1.2, sections 2.6 to 2.8."""

from emuvisor.memory import DmaMemory

__all__ = ["Chain", "Part", "cut"]

Part = tuple[int, int]
"""Guest physical address and length of one buffer."""


def cut(parts: list[Part], offset: int, length: int | None) -> list[Part]:
    """What lies in [offset, offset + length) of the bytes that `parts` make together; None: to their end."""
    first = 0
    while first < len(parts) and offset >= parts[first][1]:
        offset -= parts[first][1]
        first += 1
    kept = parts[first:]
    if offset and kept:
        gpa, size = kept[0]
        kept[0] = gpa + offset, size - offset
    if length is not None:
        excess = sum([size for _, size in kept]) - length
        while excess > 0:
            gpa, size = kept.pop()
            excess -= size
            if excess < 0:
                kept.append((gpa, -excess))
    return kept


class Chain:
    """The buffers of one request: first those that the device reads, then those that it writes.

    The parts are what the descriptors said when the chain was taken; what the driver does to them afterwards has no
    effect. Their addresses are not checked before they are used: reading and writing raises GuestAddressError where
    there is no memory, and OutOfFrames; `VirtioDevice.serve` deals with both.
    """

    __slots__ = (
        "descriptors",
        "head",
        "memory",
        "readable",
        "readable_length",
        "writable",
        "writable_length",
    )

    def __init__(  # noqa: PLR0917 - made for each request: keywords cost a tenth of it
        self,
        memory: DmaMemory,
        head: int,
        descriptors: int,
        readable: list[Part],
        writable: list[Part],
        readable_length: int,
        writable_length: int,
    ) -> None:
        self.memory = memory
        self.head = head
        """What the driver knows the chain by: the index of its first descriptor, or its buffer ID."""
        self.descriptors = descriptors
        """How many of the ring's descriptors it takes."""
        self.readable = readable
        self.writable = writable
        self.readable_length = readable_length
        self.writable_length = writable_length

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of the readable part; fewer than `length` at its end."""
        return b"".join([self.memory.read(gpa, size) for gpa, size in cut(self.readable, offset, length)])

    def write(self, data: bytes | memoryview, offset: int = 0) -> int:
        """Put `data` into the writable part at `offset`; returns how many bytes fitted."""
        done = 0
        for gpa, size in cut(self.writable, offset, len(data)):
            self.memory.write(gpa, data[done : done + size])
            done += size
        return done

    def readable_views(self, offset: int = 0, length: int | None = None) -> list[memoryview]:
        """The readable part as it lies in the host, valid until the guest runs again (`DmaMemory.views`)."""
        return self.memory.gather(cut(self.readable, offset, length), write=False)

    def writable_views(self, offset: int = 0, length: int | None = None) -> list[memoryview]:
        """The writable part as it lies in the host, valid until the guest runs again (`DmaMemory.views`)."""
        return self.memory.gather(cut(self.writable, offset, length), write=True)
