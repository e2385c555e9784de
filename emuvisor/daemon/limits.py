"""How much the daemon takes from those who talk to it."""

from dataclasses import dataclass

from emuvisor.units import GIB, KIB, MIB

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are in bytes, times in seconds."""

    memory: int = 512 * GIB
    """Of one guest, with what can be plugged. How much all of them get is the host's pool."""
    body: int = MIB
    """Of a request, but for uploads."""
    header: int = 16 * KIB
    """Of a request, with its first line."""
    upload: int = 256 * GIB
    """Of a file that is sent to be imported."""
    header_s: float = 10.0
    """For a request's header to be there, from the connection or the last answer on."""
    body_s: float = 30.0
    """For its body, but for uploads."""
    idle_s: float = 60.0
    """Between two parts of an upload, and for a client to take a part of an answer that has no end."""
    connections: int = 512
    requests: int = 64
    """That are answered at a time; those with no end (consoles, events) have limits of their own."""
    threads: int = 32
    """That carry requests out."""
    operations: int = 16
    """That run at a time."""
    kept_operations: int = 256
    """That have ended and can still be asked for."""
    streams: int = 64
    """Of events, at a time."""
    consoles: int = 64
    """At a time."""
    console_message: int = 64 * KIB
    """Typed at once."""
    wait_s: float = 60.0
    """That a request waits for the end of an operation."""
