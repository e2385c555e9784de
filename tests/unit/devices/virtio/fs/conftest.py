from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import Driver
from fuse_client import FuseClient, open_descriptors
from fuse_ways import send_over, send_to

from emuvisor.devices.virtio.fs import Fs
from emuvisor.devices.virtio.fs.server import FuseServer


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def serve(share: Path) -> Iterator[Callable[..., FuseClient]]:
    """Makes clients of the folder, talking to the server directly; at the end no descriptor is left open."""
    before = open_descriptors()
    servers = []

    def make(*, read_only: bool = False, **client: int) -> FuseClient:
        server = FuseServer(share, read_only=read_only)
        servers.append(server)
        made = FuseClient(send_to(server), **client)
        made.init()
        return made

    yield make
    for server in servers:
        server.close()
    assert open_descriptors() <= before


@pytest.fixture(params=["direct", "split", "packed"])
def client(request: pytest.FixtureRequest, share: Path) -> Iterator[FuseClient]:
    """A writable share, over each way to it; at the end no descriptor is left open."""
    before = open_descriptors()
    close: Callable[[], None]
    if request.param == "direct":
        server = FuseServer(share, read_only=False)
        send, close = send_to(server), server.close
    else:
        device = Fs(name="fs", tag="share", root=share, read_only=False)
        send, close = send_over(Driver(device, packed=request.param == "packed")), device.close
    made = FuseClient(send)
    made.init()
    yield made
    close()
    assert open_descriptors() <= before
