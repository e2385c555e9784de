"""A host may be closed before its targets, and while somebody reads or fills a guest's memory."""

import threading
from pathlib import Path
from typing import Any

import pytest
from migrating_guests import guest_config

from emuvisor.errors import MigrationError, UsageError
from emuvisor.host import Guest, GuestState, Host
from emuvisor.memory import FrameState, GuestMemory
from emuvisor.migration import Options, Phase, Source, Target
from emuvisor.units import MIB

CONTENT = bytes(range(1, 256)) * 512


def following(
    here: Host, target: Target, folder: Path, monkeypatch: pytest.MonkeyPatch, *, paused: bool = False
) -> Source:
    """A migration of which the guest is at the target, without most of its pages; there it runs, or is paused."""
    monkeypatch.setattr("emuvisor.migration.copier.FOLLOWING_BATCH", 1)
    guest = here.create(guest_config(folder))
    guest.start()
    guest.memory.write(0x20_0000, CONTENT)
    if paused:
        guest.pause()
    moving = Source(guest, target.address, Options(mode="post-copy"))
    while moving.progress.phase is not Phase.FOLLOWING:
        moving.step()
    return moving


def test_a_host_ends_its_targets_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when its pCPU waits for a page that the other side does not send."""
    with Host(16 * MIB) as here:
        there = Host(16 * MIB)
        target = Target(there)
        following(here, target, tmp_path, monkeypatch)
        moved = target.receive(10)
        there.close()
        assert (moved.state, target.missing > 0) == (GuestState.GONE, True)
        target.close()
        assert there.before_close == []
        store = there.memory.stores[FrameState.REMOTE]
        assert (store.pages, store.statistics["attached"], there.pool.used) == (0, 0, 0)


def test_a_target_is_closed_in_the_middle_of_an_offer(tmp_path: Path) -> None:
    with Host(16 * MIB) as here:
        there = Host(16 * MIB)
        target = Target(there)
        guest = here.create(guest_config(tmp_path))
        guest.start()
        moving = Source(guest, target.address)
        moving.step()
        moving.step()
        assert there.pool.used > 0
        there.close()
        assert there.pool.used == 0
        with pytest.raises(MigrationError, match=r"^guest 'guest' stays: "):
            moving.run()
        assert guest.state is GuestState.RUNNING


def test_a_host_waits_for_who_fills_a_guests_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages have come, and get their frames while the host is closed: each is given back once."""
    filling, closing = threading.Event(), threading.Event()
    supply = GuestMemory.supply
    filler: list[int] = []

    def slow(memory: GuestMemory, *arguments: Any) -> bool:
        if threading.current_thread().name == "migration target":
            filler.append(1)
            filling.set()
            assert closing.wait(10)
        return supply(memory, *arguments)

    with Host(16 * MIB) as here:
        there = Host(16 * MIB)
        target = Target(there)
        moving = following(here, target, tmp_path, monkeypatch, paused=True)
        target.receive(10)
        monkeypatch.setattr(GuestMemory, "supply", slow)
        moving.run()
        assert filling.wait(10)
        there.before_close.append(closing.set)  # called when `close` has begun
        there.close()
        assert len(filler) > 1
        store = there.memory.stores[FrameState.REMOTE]
        assert (store.pages, store.statistics["attached"], there.pool.used) == (0, 0, 0)


def test_a_host_waits_for_who_holds_a_guest(tmp_path: Path) -> None:
    host = Host(16 * MIB)
    guest: Guest = host.create(guest_config(tmp_path))
    guest.start()
    held, closing = threading.Event(), threading.Event()
    seen: list[GuestState] = []

    def hold() -> None:
        with host.held(guest.name):
            held.set()
            assert closing.wait(10)
            seen.append(guest.state)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    host.before_close.append(closing.set)
    host.close()
    holder.join(10)
    assert seen == [GuestState.RUNNING]
    assert host.pool.used == 0


def test_without_tls_nobody_listens_to_others() -> None:
    with Host(MIB) as host, pytest.raises(UsageError) as caught:
        Target(host, "0.0.0.0:0")
    assert str(caught.value) == "migration: without a token or certificates it may not leave this machine"
