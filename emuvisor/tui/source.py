"""Where the dashboard's numbers come from, and who carries out what people ask for."""

from typing import Protocol

from emuvisor.metrics import HostSample

__all__ = ["Source"]


class Source(Protocol):
    """A host with its guests, in this process or elsewhere.

    Methods are called from several threads and may take their time. What cannot be done raises an EmuvisorError, whose
    text is shown to people; so does a `name` of a guest that is not there any more.
    """

    def sample(self) -> HostSample:
        """All counters now."""
        ...

    def warnings(self) -> list[str]:
        """What people should see to, since this was asked the last time."""
        ...

    def console(self, name: str) -> str:
        """The last part of what the guest printed on its console, as it came."""
        ...

    def type(self, name: str, data: bytes) -> None:
        """Type `data` on the guest's console."""
        ...

    def pause(self, name: str) -> None:
        """Stop the guest where it is."""
        ...

    def resume(self, name: str) -> None:
        """Let a paused guest go on."""
        ...

    def set_weight(self, name: str, weight: int) -> None:
        """Change its share of the processors against other guests."""
        ...

    def set_cap(self, name: str, cap: float) -> None:
        """Change the percent of a pCPU that it never passes; 100 is no cap."""
        ...

    def screenshot(self, name: str) -> bytes:
        """Its screen as a PNG file."""
        ...
