"""Lines whose other end is slow on purpose."""

import socket
from contextlib import closing, suppress
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from emuvisor.migration.channel import Channel, LineLost
from emuvisor.migration.incoming import Incoming


def test_a_line_over_which_something_comes_a_byte_at_a_time() -> None:
    hours = count(0, 3600 * 10**9)
    near, far = socket.socketpair()
    with far, closing(Channel(near, now_ns=lambda: next(hours))) as here:
        far.sendall(b"\0\0")
        with pytest.raises(LineLost, match="the other side is silent"):
            here.receive()


def test_a_line_whose_other_end_takes_nothing() -> None:
    near, far = socket.socketpair()
    with far, closing(Channel(near)) as here:
        assert here.has_room
        near.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                near.send(bytes(1 << 16))
        assert not here.has_room
        demand: Any = partial(Incoming._demand, SimpleNamespace(_channel=here))
        demand(7)
        with pytest.raises(LineLost, match="the line is gone"):
            here.receive()
    assert here.has_room
    demand = partial(Incoming._demand, SimpleNamespace(_channel=None))
    demand(7)
