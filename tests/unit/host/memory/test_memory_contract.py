import pytest

from emuvisor.errors import AdmissionError, UsageError
from emuvisor.host.memory import MemoryContract, admit
from emuvisor.units import MIB, PAGE_SIZE

POOL = 640 * MIB // PAGE_SIZE


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"size": 100}, "a guest of 100 bytes is impossible; it has at least one page of 4 KiB"),
        (
            {"size": MIB, "reservation": 2 * MIB},
            "a reservation of 2 MiB is impossible; the guest has 1 MiB",
        ),
        ({"size": MIB, "reservation": -1}, "a reservation of -1 bytes is impossible; the guest has 1 MiB"),
        (
            {"size": 4 * MIB, "reservation": 2 * MIB, "limit": MIB},
            "a limit of 1 MiB is impossible; it is at least the reservation of 2 MiB and one page of 4 KiB",
        ),
        (
            {"size": 4 * MIB, "limit": 0},
            "a limit of 0 B is impossible; it is at least the reservation of 0 B and one page of 4 KiB",
        ),
        ({"size": MIB, "shares": 0}, "0 shares are impossible; a guest has 1 to 1000000"),
        ({"size": MIB, "priority": 101}, "a priority of 101 is impossible; it is -100 to 100"),
    ],
)
def test_contradictions(terms: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError) as error:
        MemoryContract(**terms)
    assert str(error.value) == message


def test_reservations_round_up_and_limits_down() -> None:
    terms = MemoryContract(10 * PAGE_SIZE, reservation=PAGE_SIZE + 1, limit=4 * PAGE_SIZE - 1)
    assert (terms.frames, terms.reserved_frames, terms.limit_frames) == (10, 2, 3)
    # A limit and a reservation that are one and the same odd number still agree.
    terms = MemoryContract(10 * PAGE_SIZE, reservation=5000, limit=5000)
    assert (terms.reserved_frames, terms.limit_frames) == (2, 2)
    assert MemoryContract(MIB).limit_frames is None


def test_the_last_frame_can_be_reserved() -> None:
    others = {"a": MemoryContract(512 * MIB, 256 * MIB), "b": MemoryContract(512 * MIB, 256 * MIB)}
    admit("c", MemoryContract(512 * MIB, 128 * MIB), others, POOL)
    with pytest.raises(AdmissionError) as error:
        admit("c", MemoryContract(512 * MIB, 256 * MIB), others, POOL)
    assert str(error.value) == (
        "guest 'c': a reservation of 256 MiB cannot be promised: 512 MiB of the host's 640 MiB are reserved by "
        "2 guests, 128 MiB are left"
    )


def test_a_change_does_not_count_the_guest_twice() -> None:
    others = {"a": MemoryContract(512 * MIB, 512 * MIB), "b": MemoryContract(512 * MIB, 128 * MIB)}
    admit("a", MemoryContract(512 * MIB, 256 * MIB), others, POOL)
    with pytest.raises(AdmissionError) as error:
        admit("a", MemoryContract(1024 * MIB, 576 * MIB), others, POOL)
    assert str(error.value) == (
        "guest 'a': a reservation of 576 MiB cannot be promised: 128 MiB of the host's 640 MiB are reserved by "
        "1 guest, 512 MiB are left"
    )


def test_overcommit_is_bounded() -> None:
    others = {"a": MemoryContract(512 * MIB), "b": MemoryContract(256 * MIB)}
    admit("c", MemoryContract(192 * MIB), others, POOL, overcommit=1.5)
    admit("c", MemoryContract(4096 * MIB), others, POOL)
    with pytest.raises(AdmissionError) as error:
        admit("c", MemoryContract(256 * MIB), others, POOL, overcommit=1.5)
    assert str(error.value) == (
        "guest 'c': a size of 256 MiB is too much: 2 guests have 768 MiB, and the host's 640 MiB may be "
        "overcommitted 1.5 times, to 960 MiB; 192 MiB are left"
    )
