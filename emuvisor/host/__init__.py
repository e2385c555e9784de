"""Many guests in one process: pCPU threads, the run queue, and what people ask of guests.

host.py        Host: the frame pool, the pCPU threads and the guests
guest.py       Guest: one machine with a name, a state, and a life
states.py      the states of a guest's life and the events between them
run_queue.py   which guest runs next on which pCPU; knows nothing of guests or time
backends.py    file systems of the host that guests divide
statistics.py  what a guest used
"""

from emuvisor.host.guest import Guest
from emuvisor.host.host import Host
from emuvisor.host.states import Event, GuestState
from emuvisor.host.statistics import GuestStatistics

__all__ = ["Event", "Guest", "GuestState", "GuestStatistics", "Host"]
