"""The virtio device: configuration, queues, reset, saved state."""

import errno
from pathlib import Path
from struct import pack

import pytest
from driver import RING_IDS, RINGS, Driver
from fuse_client import ROOT, FuseClient, open_descriptors, refused
from fuse_ways import REQUESTS, send_over

from emuvisor.devices.virtio.features import DeviceType
from emuvisor.devices.virtio.fs import Fs
from emuvisor.devices.virtio.fs.protocol import IN_HEADER, Opcode
from emuvisor.errors import ConfigError

HIPRIO = 0


def fs(share: Path, tag: str = "share") -> Fs:
    return Fs(name="fs 0", tag=tag, root=share, read_only=False)


def test_configuration(share: Path) -> None:
    device = fs(share, "tägli")
    driver = Driver(device)
    assert device.device_id == DeviceType.FILE_SYSTEM
    assert driver.config(0, 40) == "tägli".encode().ljust(36, b"\0") + pack("<I", 1)
    device.close()


@pytest.mark.parametrize("tag", ["", "x" * 37, "ä" * 19, "a\0b"])
def test_tags_that_do_not_fit(share: Path, tag: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fs(share, tag)
    assert str(caught.value) == f"fs 0: the tag {tag!r} has to have 1 to 36 bytes and no NUL"


def test_folders_that_cannot_be_shared(share: Path) -> None:
    (share / "file").touch()
    for path, why in ((share / "no", "No such file or directory"), (share / "file", "Not a directory")):
        with pytest.raises(ConfigError) as caught:
            fs(path)
        assert str(caught.value) == f"fs 0: cannot share the folder {path}: {why}"


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_requests_and_forgets_on_every_ring(share: Path, ring: dict[str, bool]) -> None:
    device = fs(share)
    driver = Driver(device, **ring)
    client = FuseClient(send_over(driver))
    client.init()
    found, fh = client.create(b"a")
    client.write(fh, 0, b"x" * 100_000)
    assert client.read(fh, 0, 200_000) == b"x" * 100_000
    forget = IN_HEADER.pack(48, Opcode.FORGET, 1, found.nodeid, 0, 0, 0) + pack("<Q", 1)
    assert driver.request(HIPRIO, forget) == b""
    with refused(errno.ESTALE):
        client.getattr(found.nodeid)
    assert driver.interrupts > 0
    assert not driver.needs_reset
    device.close()


def test_a_reset_closes_everything(share: Path) -> None:
    before = open_descriptors()
    device = fs(share)
    driver = Driver(device)
    client = FuseClient(send_over(driver))
    client.init()
    held = open_descriptors()
    client.mkdir(b"d")
    client.create(b"a")
    client.opendir()
    assert len(open_descriptors()) == len(held) + 4
    driver.setup()
    assert open_descriptors() == held
    with refused(errno.EIO):
        client.getattr(ROOT)
    client.init()
    client.getattr(ROOT)
    del driver, client, device  # one that nobody closed
    import gc

    gc.collect()
    assert open_descriptors() <= before


def test_wild_addresses_need_a_reset_and_do_nothing(share: Path) -> None:
    device = fs(share)
    driver = Driver(device)
    FuseClient(send_over(driver)).init()
    mkdir = IN_HEADER.pack(50, Opcode.MKDIR, 1, ROOT, 0, 0, 0) + pack("<II", 0o755, 0) + b"d\0"
    driver.add_parts(REQUESTS, [driver.buffer(mkdir)], [(1 << 40, 4096)])
    driver.kick(REQUESTS)
    assert driver.needs_reset
    assert list(share.iterdir()) == []
    device.close()


def test_a_saved_device_goes_on(share: Path) -> None:
    device = fs(share)
    driver = Driver(device)
    client = FuseClient(send_over(driver))
    client.init()
    found, fh = client.create(b"a")
    client.write(fh, 0, b"before")
    state = device.save()
    device.close()
    again = fs(share)
    after = Driver(again, memory=driver.memory, setup=False)
    again.load(state)
    after.rings = driver.rings
    client = FuseClient(send_over(after))
    assert client.read(fh, 0, 10) == b"before"
    assert client.lookup(b"a").nodeid == found.nodeid
    again.close()
    with refused(errno.EIO):
        client.getattr(found.nodeid)
