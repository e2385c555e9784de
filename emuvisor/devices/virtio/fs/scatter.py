"""Memory in pieces, as a guest gives it."""

__all__ = ["behind", "first", "put"]


def first(views: list[memoryview], length: int) -> list[memoryview]:
    """The first `length` bytes, or all when there are fewer."""
    taken = []
    for view in views:
        if length <= 0:
            break
        taken.append(view if len(view) <= length else view[:length])
        length -= len(view)
    return taken


def behind(views: list[memoryview], start: int) -> list[memoryview]:
    """What lies behind the first `start` bytes."""
    rest = []
    for view in views:
        if start < len(view):
            rest.append(view[start:] if start else view)
        start = max(0, start - len(view))
    return rest


def put(views: list[memoryview], data: bytes) -> None:
    """Copy `data`, for which there is room, into the pieces."""
    start = 0
    for view in first(views, len(data)):
        end = start + len(view)
        view[:] = data[start:end]
        start = end
