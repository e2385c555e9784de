"""The balloon: pages out and in, statistics, hints and reports, and drivers that lie."""

import struct

import numpy as np
import pytest
from driver import RAM, RING_IDS, RINGS, Driver
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.virtio.balloon import MAX_PFNS, MAX_RANGE_BYTES, MAX_RANGES, STATISTICS, Balloon
from emuvisor.devices.virtio.pageset import PageSet
from emuvisor.errors import SnapshotError, StateError, UsageError
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB, PAGE_SIZE

INFLATE, DEFLATE, STATS, FREE_PAGE, REPORTING = range(5)
PAGE = PAGE_SIZE
STOP, DONE = 0, 1
F_POISON = 1 << 4
FREE_AT = 32 * MIB
"""Where the tests' guest keeps pages to give away."""
FREE_PAGE_NUMBER = FREE_AT // PAGE


def make(ring=None, **more):
    memory = GuestMemory(FramePool(RAM), [(0, RAM)])
    return Driver(Balloon(name="balloon", memory=memory), memory=memory, **(ring or {}), **more)


@pytest.fixture
def driver():
    return make()


def pfns(*numbers):
    return struct.pack(f"<{len(numbers)}I", *numbers)


def config(driver):
    """num_pages, actual, free_page_hint_cmd_id, poison_val."""
    return struct.unpack("<IIII", driver.config(0, 16))


def dirty(driver, page, count=1):
    driver.memory.write(page * PAGE, b"\xaa" * (count * PAGE))


def counts(balloon):
    return balloon.pages_inflated, balloon.pages_deflated, balloon.ballooned_pages, balloon.frames_returned


# ---- inflating and deflating ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_in_and_out(ring):
    driver = make(ring)
    dirty(driver, FREE_PAGE_NUMBER, 4)
    driver.request(INFLATE, pfns(RAM // PAGE))  # the rings have their frames now
    before = driver.memory.pool.used
    assert driver.request(INFLATE, pfns(FREE_PAGE_NUMBER + 3, FREE_PAGE_NUMBER, FREE_PAGE_NUMBER + 1)) == b""
    assert counts(driver.device) == (3, 0, 3, 3)
    assert driver.memory.pool.used == before - 3
    assert driver.memory.census()["ballooned"] == 3
    assert driver.memory.read(FREE_AT, 2 * PAGE) == bytes(2 * PAGE)
    assert driver.memory.read(FREE_AT + 2 * PAGE, 2) == b"\xaa\xaa"
    assert driver.request(DEFLATE, [pfns(FREE_PAGE_NUMBER), pfns(FREE_PAGE_NUMBER + 3)]) == b""
    assert counts(driver.device) == (3, 2, 1, 3)
    assert driver.memory.census()["ballooned"] == 1


def test_the_target_is_told_and_the_actual_size_comes_back(driver):
    generation = driver.device.generation
    driver.device.target_pages = 1000
    assert driver.device.target_pages == 1000
    assert driver.device.generation != generation
    assert driver.interrupts == 1
    driver.write_config(4, struct.pack("<I", 640))
    assert driver.device.actual_pages == 640
    assert config(driver) == (1000, 640, 0, 0)


def test_the_driver_writes_nothing_else(driver):
    for offset in (0, 8, 12):
        driver.write_config(offset, b"\xff\xff\xff\xff")
    driver.write_config(16, b"\xff")
    assert config(driver) == (0, 0, 0, 0)


@pytest.mark.parametrize("pages", [-1, RAM // PAGE + 1])
def test_an_impossible_target(driver, pages):
    message = f"^balloon: a target of {pages} pages; the guest has {RAM // PAGE}$"
    with pytest.raises(UsageError, match=message):
        driver.device.target_pages = pages


def test_a_page_in_the_balloon_that_is_touched_takes_a_frame_and_gives_it_back(driver):
    dirty(driver, FREE_PAGE_NUMBER)
    driver.request(INFLATE, pfns(FREE_PAGE_NUMBER))
    used = driver.memory.pool.used
    dirty(driver, FREE_PAGE_NUMBER)
    assert driver.memory.pool.used == used + 1
    driver.request(INFLATE, pfns(FREE_PAGE_NUMBER))
    assert driver.memory.read(FREE_AT, PAGE) == bytes(PAGE)
    assert counts(driver.device) == (1, 0, 1, 2)


def test_one_page_thousands_of_times(driver):
    dirty(driver, FREE_PAGE_NUMBER)
    driver.request(INFLATE, pfns(*[FREE_PAGE_NUMBER] * 5000))
    assert counts(driver.device) == (1, 0, 1, 1)
    driver.request(DEFLATE, pfns(*[FREE_PAGE_NUMBER] * 5000))
    assert counts(driver.device) == (1, 1, 0, 1)


def test_what_is_not_ram_is_left_out(driver):
    driver.memory.add_rom(FREE_AT, b"rom")
    driver.memory.add_hole(FREE_AT + PAGE, PAGE)
    region = driver.memory.add_region(PAGE)
    region.write(0, b"video")
    region.place(RAM)
    driver.request(INFLATE, pfns(FREE_PAGE_NUMBER, FREE_PAGE_NUMBER + 1, RAM // PAGE, 0xFFFF_FFFF))
    assert counts(driver.device) == (0, 0, 0, 0)
    assert driver.memory.read(FREE_AT, 3) == b"rom"
    assert region.read(0, 5) == b"video"
    assert driver.request(INFLATE, b"odd") == b"", "no whole number"
    assert driver.request(INFLATE, b"", [8]) == b"", "no numbers at all"


def test_pages_that_were_never_in_it_come_out_without_effect(driver):
    dirty(driver, FREE_PAGE_NUMBER)
    driver.request(DEFLATE, pfns(FREE_PAGE_NUMBER, 1, RAM // PAGE - 1))
    assert counts(driver.device) == (0, 0, 0, 0)
    assert driver.memory.read(FREE_AT, 1) == b"\xaa"


def test_a_request_is_looked_at_up_to_a_limit(driver, monkeypatch):
    monkeypatch.setattr("emuvisor.devices.virtio.balloon.MAX_PFNS", 2)
    driver.request(INFLATE, pfns(*range(FREE_PAGE_NUMBER, FREE_PAGE_NUMBER + 5)))
    assert driver.device.ballooned_pages == 2


def test_a_guest_that_gives_away_its_rings_harms_itself_only(driver):
    for first in range(RAM // PAGE - MAX_PFNS, -1, -MAX_PFNS):  # the rings are in the last request
        driver.request(INFLATE, pfns(*range(first, first + MAX_PFNS)))
    assert driver.device.ballooned_pages == RAM // PAGE
    driver.setup()
    assert driver.device.ballooned_pages == 0
    assert driver.request(INFLATE, pfns(FREE_PAGE_NUMBER)) == b""


def test_a_reset_empties_the_balloon_and_keeps_the_target(driver):
    driver.device.target_pages = 5
    driver.request(INFLATE, pfns(FREE_PAGE_NUMBER))
    driver.write_config(4, pfns(1))
    driver.device.start_hinting()
    driver.request(STATS, struct.pack("<HQ", 4, 1))
    driver.setup()
    assert config(driver) == (5, 0, STOP, 0)
    assert (driver.device.ballooned_pages, driver.device.statistics) == (0, {})
    assert driver.memory.census()["ballooned"] == 0


# ---- statistics ----


def statistics(**figures):
    tags = {name: tag for tag, name in STATISTICS.items()}
    return b"".join(struct.pack("<HQ", tags[name], value) for name, value in figures.items())


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_statistics_are_asked_for_by_using_the_buffer(ring):
    driver = make(ring)
    driver.device.request_statistics()  # the driver has not offered a buffer yet
    assert driver.request(STATS, statistics(free=1 << 40, total=1 << 41)) is None, "kept"
    assert driver.device.statistics == {"free": 1 << 40, "total": 1 << 41}
    driver.device.request_statistics()
    driver.device.request_statistics()
    assert len(driver.used(STATS)) == 1
    driver.request(STATS, statistics(**{name: tag for tag, name in STATISTICS.items()}))
    assert driver.device.statistics == {name: tag for tag, name in STATISTICS.items()}
    assert driver.device.statistics_received == 2


def test_a_buffer_from_before_the_driver_was_ready():
    driver = make(setup=False)
    driver.negotiate()
    driver.rings = make().rings
    driver.enable(STATS)
    driver.request(STATS, statistics(free=1))
    assert driver.device.statistics == {}
    driver.driver_ok()
    assert driver.device.statistics == {"free": 1}


def test_unknown_statistics_and_half_entries_are_ignored(driver):
    data = struct.pack("<HQ", 999, 7) + statistics(caches=3) + b"\5\0half"
    driver.request(STATS, data)
    assert driver.device.statistics == {"caches": 3}
    driver.device.request_statistics()
    driver.request(STATS, statistics(caches=4) * 10_000)
    assert driver.device.statistics == {"caches": 4}


def test_a_second_buffer_returns_the_first(driver):
    first = driver.add(STATS, statistics(free=1))
    second = driver.add(STATS, statistics(free=2))
    driver.kick(STATS)
    assert [token for token, _ in driver.used(STATS)] == [first]
    assert driver.device.statistics == {"free": 2}
    driver.device.request_statistics()
    assert [token for token, _ in driver.used(STATS)] == [second]


def test_a_queue_that_is_reset_takes_the_buffer_along(driver):
    driver.request(STATS, statistics(free=1))
    driver.device.reset_queue(STATS)
    driver.enable(STATS)
    driver.device.request_statistics()
    assert driver.used(STATS) == []
    assert driver.request(STATS, statistics(free=2)) is None
    driver.device.reset_queue(INFLATE)
    driver.device.request_statistics()
    assert len(driver.used(STATS)) == 1


def test_statistics_of_a_guest_without_a_driver():
    driver = make(features=0)
    with pytest.raises(StateError, match=r"^balloon: the guest has no driver that gives statistics$"):
        driver.device.request_statistics()
    with pytest.raises(StateError, match=r"^balloon: the guest has no driver that gives hints$"):
        driver.device.start_hinting()


# ---- free page hinting ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_a_round_of_hints(ring):
    driver = make(ring)
    dirty(driver, FREE_PAGE_NUMBER, 8)
    driver.device.start_hinting()
    cmd_id = config(driver)[2]
    assert cmd_id >= 2
    driver.request(FREE_PAGE, pfns(cmd_id))
    driver.add_parts(FREE_PAGE, [], [(FREE_AT, 4 * PAGE)])
    driver.kick(FREE_PAGE)
    assert (driver.device.pages_hinted, driver.device.frames_returned) == (4, 4)
    driver.request(FREE_PAGE, pfns(STOP))
    assert config(driver)[2] == DONE, "the guest may use its pages again"
    driver.add_parts(FREE_PAGE, [], [(FREE_AT + 4 * PAGE, 4 * PAGE)])
    driver.kick(FREE_PAGE)
    assert driver.device.pages_hinted == 4, "too late"
    driver.device.start_hinting()
    assert config(driver)[2] not in (STOP, DONE, cmd_id)


def test_hints_for_another_command_are_ignored(driver):
    dirty(driver, FREE_PAGE_NUMBER)
    hint = [(FREE_AT, PAGE)]
    for prelude in ((), (pfns(STOP),), (pfns(DONE),), (pfns(0xFFFF_FFFF),), (b"x",)):
        for data in prelude:
            driver.request(FREE_PAGE, data)
        driver.add_parts(FREE_PAGE, [], hint)
        driver.kick(FREE_PAGE)
    assert config(driver)[2] == STOP
    driver.device.start_hinting()
    driver.request(FREE_PAGE, pfns(config(driver)[2] + 1))
    driver.add_parts(FREE_PAGE, [], hint)
    driver.kick(FREE_PAGE)
    assert driver.device.pages_hinted == 0
    assert driver.memory.read(FREE_AT, 1) == b"\xaa"


def test_hinting_can_be_stopped(driver):
    driver.device.start_hinting()
    driver.request(FREE_PAGE, pfns(config(driver)[2]))
    driver.device.stop_hinting()
    driver.add_parts(FREE_PAGE, [], [(FREE_AT, PAGE)])
    driver.kick(FREE_PAGE)
    assert driver.device.pages_hinted == 0
    assert config(driver)[2] == DONE


def test_command_ids_go_round(driver):
    driver.device.last_cmd_id = 0xFFFF_FFFF
    driver.device.start_hinting()
    assert config(driver)[2] == 2


# ---- free page reporting ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_reported_ranges_go_back(ring):
    driver = make(ring)
    dirty(driver, FREE_PAGE_NUMBER, 6)
    driver.add_parts(REPORTING, [], [(FREE_AT, 2 * PAGE), (FREE_AT + 3 * PAGE + 1, 2 * PAGE)])
    driver.kick(REPORTING)
    assert (driver.device.pages_reported, driver.device.frames_returned) == (3, 3)
    assert driver.memory.read(FREE_AT + 3 * PAGE, 1) == b"\xaa", "of that page only a part was reported"
    assert driver.memory.read(FREE_AT + 4 * PAGE, PAGE) == bytes(PAGE)
    assert len(driver.used(REPORTING)) == 1


def test_linux_reports_thirty_two_blocks_of_4_mib():
    memory = GuestMemory(FramePool(RAM), [(0, 1024 * MIB)])
    driver = Driver(Balloon(name="balloon", memory=memory), memory=memory)
    memory.write(800 * MIB, b"\1" * (6 * MIB))
    driver.add_parts(REPORTING, [], [(768 * MIB + i * 4 * MIB, 4 * MIB) for i in range(32)])
    driver.kick(REPORTING)
    assert not driver.needs_reset
    assert (driver.device.pages_reported, driver.device.frames_returned) == (128 * MIB // PAGE, 1536)


def test_a_chain_can_report_so_much():
    memory = GuestMemory(FramePool(RAM), [(0, 1024 * MIB)])
    driver = Driver(Balloon(name="balloon", memory=memory), memory=memory)
    driver.add_parts(REPORTING, [], [(512 * MIB, MAX_RANGE_BYTES), (0, PAGE)])
    driver.kick(REPORTING)
    assert driver.needs_reset
    assert driver.device.pages_reported == 0


def test_a_chain_has_so_many_ranges():
    driver = make()
    driver.add_parts(REPORTING, [], [(FREE_AT + i * PAGE, PAGE) for i in range(MAX_RANGES + 5)])
    driver.kick(REPORTING)
    assert driver.device.pages_reported == MAX_RANGES


def test_free_pages_that_are_poisoned_are_kept():
    driver = make(setup=False)
    driver.negotiate()
    driver.write_config(12, pfns(0xAAAA_AAAA))
    driver.rings = []
    poison = driver.device.poison_val
    assert poison == 0xAAAA_AAAA
    driver.device.quiesced()
    assert driver.device.poison_val == 0
    driver.setup()
    driver.device.poison_val = poison
    dirty(driver, FREE_PAGE_NUMBER)
    driver.add_parts(REPORTING, [], [(FREE_AT, PAGE)])
    driver.kick(REPORTING)
    assert (driver.device.pages_reported, driver.device.frames_returned) == (1, 0)
    assert driver.memory.read(FREE_AT, 1) == b"\xaa"
    driver.request(INFLATE, pfns(FREE_PAGE_NUMBER))
    assert driver.device.frames_returned == 1, "what is in the balloon is nobody's"


def test_poison_is_nothing_without_the_feature():
    driver = make(features=~F_POISON, setup=False)
    driver.negotiate()
    driver.write_config(12, pfns(1))
    assert driver.device.poison_val == 0


# ---- saved state ----


def test_a_restored_balloon_holds_the_same_pages():
    driver = make()
    driver.device.target_pages = 9
    driver.request(INFLATE, pfns(FREE_PAGE_NUMBER, FREE_PAGE_NUMBER + 9))
    driver.write_config(4, pfns(2))
    driver.request(STATS, statistics(free=5, caches=6))
    driver.device.start_hinting()
    state = driver.device.save()
    twin = make(setup=False)
    twin.memory.write(0, driver.memory.read(0, RAM))
    twin.device.load(state)
    twin.rings = driver.rings
    twin.run_timers()
    assert twin.device.statistics == {"free": 5, "caches": 6}
    assert config(twin) == config(driver)
    twin.device.request_statistics()
    assert len(twin.used(STATS)) == 1, "the buffer that was kept"
    twin.request(DEFLATE, pfns(FREE_PAGE_NUMBER, FREE_PAGE_NUMBER + 1))
    assert counts(twin.device) == (2, 1, 1, 0)


def test_figures_of_unknown_tags_are_dropped(driver):
    state = driver.device.save_device()
    state["figures"] = struct.pack("<HQHQ", 4, 77, 1000, 1) + b"half"
    driver.device.load_device(state)
    assert driver.device.statistics == {"free": 77}


def test_a_state_that_lacks_a_field(driver):
    state = driver.device.save_device()
    del state["inside"]
    with pytest.raises(SnapshotError, match=r"^virtio-balloon: the saved state has no field 'inside'$"):
        driver.device.load_device(state)


# ---- sets of pages ----


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 300) | st.integers(0, 1 << 22)))))
def test_a_page_set_is_a_set(steps):
    pages, model = PageSet(), set()
    for add, numbers in steps:
        array = np.array(sorted(numbers), np.int64)
        if add:
            assert pages.add(array) == len(numbers - model)
            model |= numbers
        else:
            assert pages.remove(array) == len(numbers & model)
            model -= numbers
        assert pages.count == len(model)
    assert PageSet(pages.bits.tobytes()).count == len(model)


# ---- hostile drivers ----


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 4),
            st.binary(max_size=40),
            st.lists(
                st.tuples(st.integers(0, (1 << 64) - 1) | st.integers(0, RAM), st.integers(0, 1 << 30)),
                max_size=4,
            ),
            st.booleans(),
        ),
        max_size=10,
    )
)
def test_any_requests(steps):
    driver = make()
    victim = GuestMemory(driver.memory.pool, [(0, 16 * PAGE)])
    victim.write(0, b"\x5a" * (16 * PAGE))
    for queue, data, parts, ask in steps:
        if driver.needs_reset:
            driver.setup()
        if data or parts:
            driver.add_parts(queue, [driver.buffer(data)] if data else [], parts)
        driver.kick(queue)
        if ask and driver.device.live:
            driver.device.start_hinting()
            driver.device.request_statistics()
    assert victim.read(0, 16 * PAGE) == b"\x5a" * (16 * PAGE)
    assert driver.device.ballooned_pages <= RAM // PAGE
