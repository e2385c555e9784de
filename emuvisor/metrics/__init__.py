"""What a host and its guests do, as numbers for programs.

sample.py      HostSample, GuestSample: all counters at one moment
rates.py       rates: two successive samples as percent and per second; a pure function
sampler.py     Sampler: looking at a host again and again
json_lines.py  each look as a line of JSON
exposition.py  a sample as Prometheus' text format
http.py        what an HTTP request for that is answered; pure
server.py      MetricsServer: the endpoint
address.py     where it listens

docs/top.md names every number.
"""

from emuvisor.metrics.rates import GuestRates, HostRates, rates
from emuvisor.metrics.sample import CpuTimes, GuestSample, HostSample, take_sample

__all__ = ["CpuTimes", "GuestRates", "GuestSample", "HostRates", "HostSample", "rates", "take_sample"]
