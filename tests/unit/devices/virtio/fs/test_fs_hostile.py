"""Requests of any bytes: never an exception, never outside, no descriptor left."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from struct import pack
from tempfile import TemporaryDirectory

from fuse_client import BytesMessage, FuseClient, names_in, open_descriptors
from fuse_ways import send_to
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emuvisor.devices.virtio.fs.protocol import IN_HEADER, Opcode
from emuvisor.devices.virtio.fs.server import FuseServer

WILD = [0, 1, 2, 3, 4, 5, 7, 16, 4096, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
numbers = st.sampled_from(WILD) | st.integers(0, 2**64 - 1)
small = st.integers(0, 8)
NAMES = [
    b"a",
    b"d",
    b"s",
    b"f",
    b"new",
    b"..",
    b".",
    b"",
    b"../out",
    b"/etc/passwd",
    b"x" * 255,
    b"x" * 256,
    b"\xff",
]
names = st.sampled_from(NAMES) | st.binary(max_size=20)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Fields of 4 and 8 bytes and names in any order, which is what all messages consist of."""
    parts = [b""]
    for kind in draw(st.lists(st.sampled_from("qQiInz"), max_size=9)):
        if kind in "qQ":
            parts.append(pack("<Q", draw(small if kind == "q" else numbers)))
        elif kind in "iI":
            parts.append(pack("<I", draw(small if kind == "i" else numbers) & 0xFFFF_FFFF))
        elif kind == "n":
            parts.append(draw(names) + b"\0")
        else:
            parts.append(draw(st.binary(max_size=80)))
    return b"".join(parts)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, int]:
    body = draw(bodies())
    length = draw(st.just(40 + len(body)) | st.sampled_from([0, 39, 40, 41, 2**32 - 1]))
    opcode = draw(st.sampled_from([int(opcode) for opcode in Opcode]) | st.integers(0, 2**32 - 1))
    head = IN_HEADER.pack(length, opcode, 7, draw(small | numbers), 0, 0, 0)
    room = draw(st.sampled_from([0, 15, 16, 17, 100, 144, 4096]))
    return head + body, room


def outside(folder: Path) -> list[tuple[str, int, bytes]]:
    return [(path.name, path.stat().st_mode, path.read_bytes()) for path in sorted(folder.iterdir())]


@settings(max_examples=120, deadline=None)
@given(st.lists(st.binary(max_size=200).map(lambda data: (data, 200)) | requests(), max_size=25))
@example([(IN_HEADER.pack(40, Opcode.READLINK, 7, 4, 0, 0, 0), 16)])  # no room for what the link says
def test_any_requests(sequence: list[tuple[bytes, int]]) -> None:
    before = open_descriptors()
    with TemporaryDirectory() as temporary:
        out, share = Path(temporary, "out"), Path(temporary, "share")
        out.mkdir()
        (out / "out").write_bytes(b"secret")
        (share / "d/e").mkdir(parents=True)
        (share / "a").write_bytes(b"text")
        (share / "s").symlink_to("../out/out")
        os.mkfifo(share / "f")
        was = outside(out)
        server = FuseServer(share, read_only=False)
        init = BytesMessage(IN_HEADER.pack(56, Opcode.INIT, 1, 0, 0, 0, 0) + pack("<4I", 7, 31, 0, 0), 80)
        assert server.serve(init) == 80
        for name in (b"a", b"d", b"s", b"f"):
            server.serve(BytesMessage(IN_HEADER.pack(42, Opcode.LOOKUP, 1, 1, 0, 0, 0) + name + b"\0", 144))
        for request, room in sequence:
            message = BytesMessage(request, room)
            length = server.serve(message)
            assert length == 0 or 16 <= length <= room
            assert length == 0 or int.from_bytes(message.reply[:4], "little") == length
        assert outside(out) == was
        assert names_in(Path(temporary)) == ["out", "share"]
        server.close()
    assert open_descriptors() <= before


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["open", "opendir", "lookup", "forget", "release"]), small), max_size=60
    )
)
def test_descriptors_follow_what_the_guest_holds(steps: list[tuple[str, int]]) -> None:
    """Wild forgets and releases in any order neither leak nor close another's descriptor."""
    with TemporaryDirectory() as temporary:
        share = Path(temporary)
        (share / "d").mkdir()
        (share / "a").write_bytes(b"text")
        before = open_descriptors()
        server = FuseServer(share, read_only=True)
        client = FuseClient(send_to(server))
        client.init()
        actions: dict[str, Callable[[int], object]] = {
            "open": client.open,
            "opendir": client.opendir,
            "lookup": lambda number: client.lookup([b"a", b"d"][number % 2]),
            "forget": client.forget,
            "release": client.release,
        }
        for action, number in steps:
            try:
                actions[action](number)
            except OSError as error:
                if error.errno not in (errno.ESTALE, errno.EISDIR, errno.ENOTDIR):
                    raise
        server.close()
        assert open_descriptors() <= before
