"""What the autopilot would do, without a host: one period of two guests goes in, changes and their reasons come out."""

from emuvisor.host.autopilot import Constraints, Objective
from emuvisor.host.autopilot.plan import Flight, plan
from emuvisor.host.autopilot.score import score
from emuvisor.host.autopilot.view import GuestView, HostView, MemoryState
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.units import GIB, NS_PER_MS

memory = MemoryState(GIB, reservation=0, limit=None, shares=1000, resident=0, out=0, active=None)


def guest(name: str, claim: CpuClaim, used: int, ready: int = 0, throttled: int = 0) -> GuestView:
    times = (milliseconds * NS_PER_MS for milliseconds in (used, ready, throttled, 0, 0))
    return GuestView(name, *times, claim, memory)


web = guest("web", CpuClaim(cap=25.0), used=250, throttled=600)
batch = guest("batch", CpuClaim(), used=500, ready=100)
view = HostView(period_ns=1000 * NS_PER_MS, pcpus=1, guests=(web, batch))
objective = Objective.parse("fairness")
print(f"objective: {objective.value(view):.0f}", *(f"{g.name}: {score(g):.0f}" for g in view.guests))

flight = Flight()
for _ in range(2):  # what lasts for two periods is a need
    planned = plan(view, flight, objective, Constraints.parse("web.cap=:80"))
    flight = planned.flight
for move in (move for proposal in planned.proposals for move in proposal.moves):
    print(f"{move.target.guest}: {move.target} {move.before} -> {move.after}\n  {move.why}")
