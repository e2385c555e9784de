"""Each look at a host as one line of JSON (jsonlines.org)."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from emuvisor.metrics.rates import HostRates, rates
from emuvisor.metrics.sample import HostSample

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JsonLines", "line"]

DIGITS = 3
"""Behind the decimal point of rates."""


def line(sample: HostSample, rate: HostRates) -> str:
    """`sample` and the rates since the one before, without an end of line. docs/top.md explains the keys."""
    guests = []
    for guest, guest_rates in zip(sample.guests, rate.guests, strict=True):
        document = _rounded(guest_rates.as_dict())
        document["memory"] = guest.memory.as_dict()
        guests.append(document | {"totals": guest.statistics.as_dict()})
    host = {
        "pcpus": sample.pcpus,
        "cpu": _rounded(asdict(rate.cpu)),
        "memory": sample.memory.as_dict(),
    }
    whole = {
        "time": round(sample.time, DIGITS),
        "seconds": round(rate.seconds, DIGITS),
        "host": host,
        "guests": guests,
    }
    return json.dumps(whole, separators=(",", ":"))


def _rounded(tree: "Mapping[str, Any]") -> dict[str, Any]:
    """Its fractions with DIGITS digits."""
    return {
        key: _rounded(value)
        if isinstance(value, dict)
        else round(value, DIGITS)
        if isinstance(value, float)
        else value
        for key, value in tree.items()
    }


class JsonLines:
    """Writes each sample that it is called with to `stream`, as a line. The first one's rates are 0.

    When `stream` cannot be written to, the writing ends, and `on_error` hears why. Its owner closes it.
    """

    def __init__(self, stream: TextIO, on_error: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._on_error = on_error
        self._before: HostSample | None = None
        self._ended = False

    def __call__(self, sample: HostSample) -> None:
        """Write `sample`."""
        if self._ended:
            return
        text = line(sample, rates(self._before, sample))
        self._before = sample
        try:
            self._stream.write(text + "\n")
            self._stream.flush()  # somebody may follow
        except OSError as error:
            self._ended = True
            self._on_error(error)
