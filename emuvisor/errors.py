"""Every error that emuvisor raises.

    EmuvisorError
    ├── UsageError            you called it wrong: the message names the offender and the limit
    │   ├── ConfigError       a configuration key or value
    │   ├── ImageError        a kernel, initrd, disk, firmware or ELF image
    │   ├── BusConflict       two devices want the same addresses
    │   ├── GuestAddressError an access by a loader or device outside the guest's memory
    │   ├── AdmissionError    a promise of memory that the host cannot make
    │   ├── StateError        an operation that the guest's present state does not allow
    │   └── SnapshotError     a saved device or CPU state that cannot be restored
    └── HostError             it went wrong: the machine below us
        ├── EngineError       Unicorn is missing, unknown, or refused a call
        ├── OutOfFrames       the host frame pool is empty, or the guest has its limit
        ├── MigrationError    a guest could not be moved, or not yet
        └── PageLost          the content of a guest's page cannot be brought back

What a guest does wrong is never one of these: it becomes the guest's own exit reason or a counter.
"""

__all__ = [
    "AdmissionError",
    "BusConflict",
    "ConfigError",
    "EmuvisorError",
    "EngineError",
    "GuestAddressError",
    "HostError",
    "ImageError",
    "MigrationError",
    "OutOfFrames",
    "PageLost",
    "SnapshotError",
    "StateError",
    "UsageError",
]


class EmuvisorError(Exception):
    """Root of the tree; the command line prints it as one line and exits with 2."""


class UsageError(EmuvisorError, ValueError):
    """An argument, file or call that cannot be used."""


class ConfigError(UsageError):
    """A configuration key or value; the message names the key."""


class ImageError(UsageError):
    """A guest image that is truncated or malformed; the message names the file."""


class BusConflict(UsageError):
    """Two devices claim the same addresses of one bus; the message names both."""


class GuestAddressError(UsageError):
    """A loader or device reached outside guest memory; the message names the guest physical address."""


class AdmissionError(UsageError):
    """The host cannot promise a guest the memory or the pCPUs that it is to have; the message has the arithmetic."""


class StateError(UsageError):
    """The guest is in a state that does not allow the operation."""


class SnapshotError(UsageError):
    """A saved state of another kind, a newer version, or with a missing field."""


class HostError(EmuvisorError, RuntimeError):
    """The host could not do what was asked."""


class EngineError(HostError):
    """Unicorn is missing, has an unknown layout, or failed."""


class OutOfFrames(HostError):
    """The host frame pool has no free frame left, or the guest may have no more of them."""


class MigrationError(HostError):
    """A guest could not be moved to another host; the message says why, and where it is."""


class PageLost(HostError):
    """The host took a page away and cannot bring its content back; the message names the page and the reason."""
