"""Live migration: a running guest moves from one emuvisor process to another.

source.py, target.py   the two sides: Source steps through a migration, Target listens and takes guests
incoming.py            one guest on its way into a host
switchover.py          who runs the guest: both sides' decisions, without sockets
copier.py              the pages at the source, and sending them
convergence.py, throttle.py   when copying in rounds has an end, and slowing the guest down for that
claims.py              what the guest claims of its host, as it is now
options.py             Options, Progress
pages.py, stage.py     pages on their way, and where they wait at the target
remote_pages.py        post-copy: pages that are still at the source, as a PageStore
disk_blocks.py, source_disks.py, target_disks.py   disks on their way
frames.py, channel.py, greeting.py, calling.py, offer.py   the protocol, from bytes to the first messages
security.py, endpoints.py, questions.py            TLS and tokens; addresses; where the source can be asked
rehearsal.py           what the target does before the guest stands still
announce.py            telling networks where the guest's cards are now

docs/migration.md says what is promised, and has the protocol and the table of failures.
"""

from emuvisor.migration.options import Options, Phase, Progress, Round
from emuvisor.migration.security import Certificates, Insecure, Security, Token, make_token
from emuvisor.migration.source import Source
from emuvisor.migration.target import Target

__all__ = [
    "Certificates",
    "Insecure",
    "Options",
    "Phase",
    "Progress",
    "Round",
    "Security",
    "Source",
    "Target",
    "Token",
    "make_token",
]
