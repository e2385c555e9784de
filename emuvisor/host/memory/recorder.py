"""Recording a host's memory into a file."""

import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from emuvisor.errors import HostError
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.recording import End, Header, Item, Sample, encode
from emuvisor.host.memory.sampler import DEFAULT_PERIOD_S, MemorySampler

if TYPE_CHECKING:
    from emuvisor.host.host import Host

__all__ = ["MemoryRecorder"]


class MemoryRecorder:
    """While it is entered, samples of the memory of `host` and its guests, each `period_s` seconds, and all decisions
    of the memory manager go to the new file `file`; recording.py says how. What was there before is overwritten.

    Raises UsageError for an impossible period, HostError for a file that cannot be written. When that happens later,
    the recording ends, the listeners of `Host.warnings` hear why, and the guests go on.
    """

    def __init__(self, host: "Host", file: Path, period_s: float = DEFAULT_PERIOD_S) -> None:
        self.error = ""
        """Why the recording ended early."""
        self._host = host
        self._path = file
        self._sampler = MemorySampler(host, self._record, period_s)
        try:
            self._file = file.open("wb")
            try:
                self._write(Header(time.time(), period_s))
            except OSError:
                self._close()
                raise
        except OSError as error:
            raise HostError(f"{file}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        self._sampler.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sampler.__exit__(kind, error, trace)
        self._record(End(time.time()))
        self._close()

    def _record(self, item: Sample | Decision | End) -> None:
        if self.error:
            return
        try:
            self._write(item)
        except OSError as error:
            self._close()
            self.error = f"{self._path}: the recording of memory ends early: {error.strerror}"
            for listener in self._host.warnings:
                listener(self.error)

    def _write(self, item: Item) -> None:
        self._file.write(encode(item))
        self._file.flush()  # somebody may follow

    def _close(self) -> None:
        with suppress(OSError):  # what could not be written has been said
            self._file.close()
