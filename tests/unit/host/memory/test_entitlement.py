import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_guests import guest

from emuvisor.host.memory import GuestUse
from emuvisor.host.memory.entitlement import explain, idle_cost, price, who_gives

ALL = 1 << 30


def gives(guests: list[GuestUse], wanted: int, tax: float = 0.75, **most: int) -> dict[str, int]:
    return who_gives(guests, wanted, {g.name: most.get(g.name, ALL) for g in guests}, tax)


def test_the_price_of_waldspurger() -> None:
    assert idle_cost(0.75) == 4
    assert price(guest("a", 1000, active=1000)) == 1.0
    assert price(guest("a", 1000, active=0)) == 0.25
    assert price(guest("a", 1000, active=500)) == 1000 / (500 + 4 * 500)
    assert price(guest("a", 1000, active=0), tax=0) == 1.0
    assert price(guest("a", 0)) == float("inf")


def test_unknown_activity_is_all_active() -> None:
    assert price(guest("a", 1000)) == 1.0
    assert price(guest("a", 1000, active=5000)) == 1.0  # more than it holds: some was sent away since


def test_the_explanation_has_the_formula() -> None:
    text, numbers = explain(guest("a", 900, active=500, shares=2000), 0.75)
    assert text == "it pays 0.952 shares per page, 2000 / (500 active + 4 x 400 idle)"
    assert numbers == {"price": 2000 / 2100, "shares": 2000, "active": 500, "idle": 400, "idle_cost": 4.0}


def test_equal_guests_give_equally() -> None:
    assert gives([guest("b", 1000), guest("a", 1000)], 101) == {"a": 51, "b": 50}


def test_the_larger_of_two_gives_until_both_hold_the_same() -> None:
    assert gives([guest("a", 1000), guest("b", 3000)], 1500) == {"b": 1500}
    assert gives([guest("a", 1000), guest("b", 3000)], 2200) == {"a": 100, "b": 2100}


def test_twice_the_shares_keep_twice_the_frames() -> None:
    assert gives([guest("a", 3000, shares=2000), guest("b", 3000)], 3000) == {"a": 1000, "b": 2000}


def test_idle_memory_is_taxed() -> None:
    """The figure of the paper's section 6.4: with a tax of 75 % the idle guest gives, without any both do."""
    busy, idle = guest("busy", 2000, active=2000), guest("idle", 2000, active=0)
    assert gives([busy, idle], 1000) == {"idle": 1000}
    assert gives([busy, idle], 1000, tax=0.0) == {"busy": 500, "idle": 500}
    assert gives([busy, idle], 2000) == {"busy": 400, "idle": 1600}  # 400 idle cost what 1600 active do


def test_a_tax_cannot_take_what_is_in_use_first() -> None:
    half = guest("half", 2000, active=1000)
    full = guest("full", 1500, active=1500)
    # The idle half goes first: at 1000 + 4 x 125 pages both pay the same.
    assert gives([half, full], 875) == {"half": 875}
    assert gives([half, full], 1375) == {"full": 400, "half": 975}


def test_reservations_stay() -> None:
    assert gives([guest("a", 1000, reservation=900), guest("b", 500)], 5000) == {"a": 100, "b": 436}


def test_what_cannot_be_taken_stays() -> None:
    assert gives([guest("a", 1000, pinned=980)], 5000) == {"a": 20}
    assert gives([guest("a", 1000), guest("b", 1000)], 500, a=30) == {"a": 30, "b": 470}
    assert gives([guest("a", 64)], 1) == {}


def test_lower_priorities_give_first() -> None:
    low, high = guest("low", 1000, priority=-1, shares=9000), guest("high", 4000)
    assert gives([high, low], 900) == {"low": 900}
    assert gives([high, low], 1000) == {"high": 64, "low": 936}


def test_above_the_limit_gives_first_and_always() -> None:
    over, rich = guest("over", 1000, limit=900), guest("rich", 4000, shares=1)
    assert gives([over, rich], 0) == {"over": 100}
    assert gives([over, rich], 150) == {"over": 100, "rich": 50}
    assert gives([guest("full", 900, limit=900)], 0) == {}
    assert gives([guest("full", 900, limit=900, starved=True)], 0) == {"full": 64}
    assert gives([over], 0, over=10) == {"over": 10}


GUESTS = st.lists(
    st.builds(
        lambda resident, size, reserve, limit, shares, priority, active, most: (
            resident,
            size,
            min(reserve, size),
            None if limit is None else max(1, reserve, limit),
            shares,
            priority,
            active,
            most,
        ),
        st.integers(0, 3000),
        st.integers(1, 4000),
        st.integers(0, 1500),
        st.none() | st.integers(0, 3000),
        st.integers(1, 3000),
        st.integers(0, 1),
        st.none() | st.integers(0, 3000),
        st.integers(0, 3000) | st.just(ALL),
    ),
    max_size=6,
)


def build(rows: list[tuple[int, int, int, int | None, int, int, int | None, int]]) -> list[GuestUse]:
    return [
        guest(
            f"g{number}",
            resident,
            size=size,
            reservation=reserve,
            limit=limit,
            shares=shares,
            priority=priority,
            active=active,
        )
        for number, (resident, size, reserve, limit, shares, priority, active, _) in enumerate(rows)
    ]


@settings(deadline=None, max_examples=100)
@given(GUESTS, st.integers(0, 8000), st.sampled_from([0.0, 0.5, 0.75, 0.99]))
def test_any_hosts(rows, wanted: int, tax: float) -> None:
    guests = build(rows)
    most = {g.name: row[-1] for g, row in zip(guests, rows, strict=True)}
    given_ = who_gives(guests, wanted, most, tax)
    can = {g.name: min(g.giveable, most[g.name]) for g in guests}
    over = sum(min(g.over_limit, can[g.name]) for g in guests)
    assert all(0 < count <= can[name] for name, count in given_.items())
    assert sum(given_.values()) == max(over, min(wanted, sum(can.values())))
    assert who_gives(guests[::-1], wanted, most, tax) == given_
    # Nobody gives to spare somebody who pays less and has something left to give.
    cost = idle_cost(tax)
    for g in guests:
        if given_.get(g.name, 0) <= g.over_limit:
            continue
        for other in guests:
            left = other.resident - given_.get(other.name, 0)
            if other is g or given_.get(other.name, 0) == can[other.name]:
                continue
            assert other.contract.priority >= g.contract.priority
            if other.contract.priority > g.contract.priority:
                continue
            # The last frame that `g` gave was no dearer than the next one of `other`.
            before = g.resident - given_[g.name] + 1
            pays = g.contract.shares / pages_paid(g, before, cost)
            assert pays <= other.contract.shares / pages_paid(other, left, cost) * (1 + 1e-9)


def pages_paid(g: GuestUse, held: int, cost: float) -> float:
    active = min(g.resident if g.active is None else g.active, held)
    return active + cost * (held - active)


@settings(deadline=None, max_examples=100)
@given(GUESTS.filter(bool), st.integers(0, 8000), st.integers(1, 3000), st.data())
def test_more_shares_never_give_more(rows, wanted: int, more: int, data: st.DataObject) -> None:
    most = {f"g{number}": row[-1] for number, row in enumerate(rows)}
    number = data.draw(st.integers(0, len(rows) - 1))
    name = f"g{number}"
    before = who_gives(build(rows), wanted, most).get(name, 0)
    row = list(rows[number])
    row[4] += more
    after = who_gives(build([*rows[:number], tuple(row), *rows[number + 1 :]]), wanted, most)
    assert after.get(name, 0) <= before


@pytest.mark.parametrize("count", [1, 2000])
def test_many_guests(count: int) -> None:
    guests = [guest(f"g{number:04}", 1000 + number, shares=1 + number % 7) for number in range(count)]
    given_ = gives(guests, 300 * count)
    assert sum(given_.values()) == 300 * count
