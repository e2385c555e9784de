"""QMP, the QEMU machine protocol, for a guest: what scripts made for QEMU speak.

    server.py     the socket, and who is connected
    session.py    one client: greeting, negotiation, requests, answers
    messages.py   JSON messages from and to bytes that nobody vouches for
    registry.py   commands by name, with their arguments
    servers.py    a socket for each guest of a manager that is on
    target.py     what a monitor is of: a guest of a host, or (managed.py) one of a store
    monitor.py    what all clients of a guest have in common
    events.py     what happens to the guest, as QMP says it
    catalog.py    all commands by name
    commands/     QMP's commands by subject
    human/        the human monitor's commands, for `human-monitor-command`

Source: QEMU Machine Protocol Specification (docs/interop/qmp-spec) and QEMU QMP Reference Manual.
"""

from emuvisor.qmp.server import QmpServer
from emuvisor.qmp.target import PlainGuest, Target

__all__ = ["PlainGuest", "QmpServer", "Target"]
