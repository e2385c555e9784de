"""Many guests in one process: pCPU threads, and what people ask of guests.

host.py        Host: the frame pool, the pCPU threads and the guests
guest.py       Guest: one machine with a name, a state, and a life
states.py      the states of a guest's life and the events between them
pcpus.py       the pCPU threads: they carry out what the scheduler says
naps.py        idle guests, and when each is to be woken
disk_moving.py disks that move to other files while their guests run
backends.py    file systems of the host that guests divide
statistics.py  what a guest used
snapshots/     guests into the store, and back
"""

from emuvisor.host.guest import Guest
from emuvisor.host.host import Host
from emuvisor.host.states import Event, GuestState
from emuvisor.host.statistics import GuestStatistics

__all__ = ["Event", "Guest", "GuestState", "GuestStatistics", "Host"]
