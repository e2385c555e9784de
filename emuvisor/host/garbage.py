"""When Python does not look for cyclic garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_garbage"]


@contextmanager
def no_garbage() -> Iterator[None]:
    """Without Python's search for cyclic garbage: all that is made here stays, and going through it again and again
    would take as long as making it; through everything that the process has, it takes a tenth of a second."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
