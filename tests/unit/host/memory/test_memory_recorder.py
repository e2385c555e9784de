"""Samples and decisions of a host, on their way into a file."""

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from memory_samples import decision

from emuvisor.errors import HostError, UsageError
from emuvisor.host import Host
from emuvisor.host.memory import recorder
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.recorder import MemoryRecorder
from emuvisor.host.memory.recording import End, Header, Item, RecordingReader, Sample
from emuvisor.host.memory.sampler import MemorySampler
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB

PATIENCE_S = 120
LONG_S = 1000.0
FILL = "b80010 8ec0 26a20000"  # mov ax, 1000h; mov es, ax; mov es:[0], al: one page at 64 KiB
POWER_OFF = "ba0406 b80020 ef f4"
ENDLESS = "ebfe"


def create(host: Host, folder: Path, code: str, name: str = "a") -> Any:
    path = folder / f"{name}.bin"
    path.write_bytes(bytes.fromhex(FILL + code))
    return host.create(GuestConfig(name=name, board="isa", memory=MIB, flat=FlatConfig(path, 0x8000)))


def read(path: Path) -> list[Item]:
    with RecordingReader(path) as reader:
        return list(reader.read())


class Heard:
    """What a sampler said; `sampled` is set when it is a sample."""

    def __init__(self) -> None:
        self.items: list[Sample | Decision] = []
        self.sampled = threading.Event()

    def take(self, item: Sample | Decision) -> None:
        self.items.append(item)
        if isinstance(item, Sample):
            self.sampled.set()


def test_samples_come_again_and_again(tmp_path: Path) -> None:
    heard = Heard()
    with Host(2 * MIB) as host:
        guest = create(host, tmp_path, ENDLESS)
        with MemorySampler(host, heard.take, period_s=0.01):
            guest.start()
            for _ in range(3):
                heard.sampled.clear()
                assert heard.sampled.wait(PATIENCE_S)
    samples = [item for item in heard.items if isinstance(item, Sample)]
    assert [guest.name for guest in samples[0].guests] == ["a"]
    assert samples == sorted(samples, key=lambda sample: sample.time)
    assert samples[0].host.pool == 2 * MIB


def test_a_guest_that_stops_is_seen_as_it_was(tmp_path: Path) -> None:
    """However short it ran, and although it is deleted at once."""
    heard = Heard()
    with Host(2 * MIB) as host, MemorySampler(host, heard.take, period_s=LONG_S):
        guest = create(host, tmp_path, POWER_OFF)
        guest.start()
        assert guest.wait(PATIENCE_S)
        resident = guest.memory_statistics().resident
        guest.delete()
    started, stopped = [item for item in heard.items if isinstance(item, Sample) and item.guests[0].resident]
    assert (started.host.configured, stopped.host.configured) == (MIB, 0)
    assert stopped.guests[0].resident == resident > started.guests[0].resident > 0


def test_a_host_without_guests_is_not_sampled() -> None:
    heard = Heard()
    with Host(2 * MIB) as host, MemorySampler(host, heard.take, period_s=0.01):
        pass
    assert heard.items == []


def test_nobody_listens_afterwards() -> None:
    with Host(2 * MIB) as host:
        with MemorySampler(host, Heard().take):
            assert len(host.listeners) == len(host.memory.log.listeners) == 1
            assert host.memory.busy
        assert host.listeners == host.memory.log.listeners == []
        assert not host.memory.busy


def test_a_period_that_is_none() -> None:
    with Host(2 * MIB) as host, pytest.raises(UsageError) as error:
        MemorySampler(host, Heard().take, period_s=float("nan"))
    assert str(error.value) == "a sample every nan s is impossible; it is 0.01 s at least"


def test_a_recording_from_beginning_to_end(tmp_path: Path) -> None:
    file = tmp_path / "recording"
    file.write_text("something old, which is longer than the beginning of a recording" * 100)
    moved = decision(numbers={"price": float("inf")})
    with Host(2 * MIB) as host, MemoryRecorder(host, file, period_s=LONG_S):
        guest = create(host, tmp_path, POWER_OFF)
        host.memory.log.add(moved)
        guest.start()
        assert guest.wait(PATIENCE_S)
    items = read(file)
    assert isinstance(items[0], Header)
    assert items[0].period_s == LONG_S
    assert isinstance(items[-1], End)
    (read_again,) = [item for item in items if isinstance(item, Decision)]
    assert (read_again.guest, read_again.frames, read_again.why) == (moved.guest, moved.frames, moved.why)
    assert any(isinstance(item, Sample) and item.guests[0].resident for item in items)


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "none" / "recording"
    with Host(2 * MIB) as host, pytest.raises(HostError) as error:
        MemoryRecorder(host, file)
    assert str(error.value) == f"{file}: cannot be written: No such file or directory"


def test_a_disk_that_is_full_from_the_start() -> None:
    with Host(2 * MIB) as host, pytest.raises(HostError) as error:
        MemoryRecorder(host, Path("/dev/full"))
    assert str(error.value) == "/dev/full: cannot be written: No space left on device"


def test_a_disk_that_fills_up_ends_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recording"
    written: list[Item] = []

    def encode(item: Item) -> bytes:
        written.append(item)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return b"header\n"

    monkeypatch.setattr(recorder, "encode", encode)
    warnings: list[str] = []
    with Host(2 * MIB) as host:
        host.warnings.append(warnings.append)
        with MemoryRecorder(host, file, period_s=LONG_S) as recording:
            guest = create(host, tmp_path, POWER_OFF)
            guest.start()
            assert guest.wait(PATIENCE_S)
            guest.start()
            assert guest.wait(PATIENCE_S)
    assert recording.error == f"{file}: the recording of memory ends early: No space left on device"
    assert warnings == [recording.error]
    assert file.read_bytes() == b"header\n"
    assert len(written) == 2
