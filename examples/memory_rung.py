"""A rung of one's own on the memory ladder: guests that are paused are swapped out before anybody's balloon inflates.

A host takes it in its `MemoryPolicy`; here it is tried on made-up numbers, because a plan is a pure function.
"""

from collections.abc import Mapping

from emuvisor.host.memory import (
    GuestUse,
    History,
    HostState,
    HostUse,
    MemoryContract,
    Rung,
    SendAway,
    default_rungs,
    observe,
    plan,
)
from emuvisor.units import MIB


class SleepersFirst(Rung):
    name = "sleepers"
    state = HostState.SOFT
    prompt = True  # the frames are there at once

    def reach(self, use: HostUse, guest: GuestUse) -> int:
        return 0 if guest.runs else min(guest.giveable, use.room.get("swap", 0))

    def ask(self, use: HostUse, debts: Mapping[str, int]) -> list[SendAway]:
        asked = []
        for guest in use.guests:
            if frames := min(self.reach(use, guest), debts.get(guest.name, 0)):
                why = f"gives {frames} frames: it sleeps"
                asked.append(
                    SendAway(
                        rung=self.name, guest=guest.name, store="swap", pages=frames, frames=frames, why=why
                    )
                )
        return asked


def main() -> None:
    contract = MemoryContract(size=512 * MIB)
    guests = (
        GuestUse("awake", contract, resident=90_000, absent=41_072, balloon=True, accessed=90_000),
        GuestUse("asleep", contract, resident=102_000, absent=29_072, accessed=0, runs=False),
    )
    use = HostUse(frames=196_608, free=4_608, guests=guests, room={"swap": 500_000})
    _, use = observe(History(), use)
    print(f"the host is {use.state.name}, {use.short(HostState.HIGH)} frames are missing")
    sharing, *others = default_rungs()
    for step in plan(use, [sharing, SleepersFirst(), *others]):
        print(f"{step.rung}: {step.guest or 'all'}: {step.why}")


if __name__ == "__main__":
    main()
