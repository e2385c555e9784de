"""A sample in Prometheus' text format.

Source: prometheus.io/docs/instrumenting/exposition_formats, "Text-based format", version 0.0.4, and
prometheus.io/docs/practices/naming: base units, `_total` behind counters.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from emuvisor.host.memory.host_state import HostState
from emuvisor.host.states import GuestState
from emuvisor.metrics.sample import CpuTimes, GuestSample, HostSample
from emuvisor.units import NS_PER_S

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PLACES = ("resident", "shared", "zero", "ballooned", "compressed", "swapped")
"""Where a guest's memory can be."""
DISK_REQUESTS = {"read": "reads", "write": "writes", "flush": "flushes", "discard": "discards"}
DISK_BYTES = {"read": "read_bytes", "write": "written_bytes"}
QUANTILES = {"0.5": "p50_ns", "0.9": "p90_ns", "0.99": "p99_ns"}
DIRECTIONS = {"receive": "received", "transmit": "sent"}

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def exposition(sample: HostSample) -> str:
    """All of `sample`, one family of metrics after the other; those without a value are left out."""
    return "".join(family.text for family in [*_host(sample), *_guests(sample.guests)] if family.lines)


@dataclass(slots=True)
class _Family:
    """A metric with its values; `kind` is "counter", "gauge" or "summary"."""

    name: str
    kind: str
    help: str
    lines: list[str] = field(default_factory=list)

    def add(self, value: float, suffix: str = "", **labels: str) -> None:
        pairs = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
        name = self.name + suffix
        self.lines.append(f"{name}{{{pairs}}} {value}" if pairs else f"{name} {value}")

    def add_summary(self, latency: Mapping[str, Any], **labels: str) -> None:
        """A histogram's summary, in nanoseconds, as a summary in seconds."""
        for quantile, key in QUANTILES.items():
            self.add(latency[key] / NS_PER_S, quantile=quantile, **labels)
        self.add(latency["total_ns"] / NS_PER_S, "_sum", **labels)
        self.add(latency["count"], "_count", **labels)

    @property
    def text(self) -> str:
        lines = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} {self.kind}", *self.lines]
        return "".join(f"{line}\n" for line in lines)


def _one(name: str, kind: str, help_: str, value: float) -> _Family:
    family = _Family(name, kind, help_)
    family.add(value)
    return family


def _host(sample: HostSample) -> Iterator[_Family]:
    memory = sample.memory
    yield _one("emuvisor_host_pcpus", "gauge", "Threads that run guests.", sample.pcpus)
    yield _one("emuvisor_host_memory_bytes", "gauge", "Memory for all guests together.", memory.pool)
    yield _one("emuvisor_host_memory_free_bytes", "gauge", "What of it no guest has.", memory.free)
    yield _one(
        "emuvisor_host_memory_configured_bytes",
        "gauge",
        "Sizes of all guests that are on.",
        memory.configured,
    )
    yield _one("emuvisor_host_memory_reserved_bytes", "gauge", "Guests' reservations.", memory.reserved)
    state = _Family("emuvisor_host_memory_state", "gauge", "1 for the state that the host's memory is in.")
    for each in HostState:
        state.add(int(each.name.lower() == memory.state), state=each.name.lower())
    yield state
    saved = _Family(
        "emuvisor_host_memory_saved_bytes",
        "gauge",
        "What guests hold beyond the host's memory, by what saves it.",
    )
    for rung, size in memory.savings.items():
        saved.add(size, rung=rung)
    yield saved
    yield _one(
        "emuvisor_host_memory_compression_used_bytes",
        "gauge",
        "Host memory that compressed pages take.",
        memory.compression_used,
    )
    yield _one(
        "emuvisor_host_memory_swap_used_bytes", "gauge", "Bytes of the swap file in use.", memory.swap_used
    )
    yield _one(
        "emuvisor_host_memory_starving_guests", "gauge", "Guests that wait for memory.", memory.starving
    )
    yield _one(
        "emuvisor_host_memory_scanned_bytes_total",
        "counter",
        "What was looked at for pages to share.",
        memory.scanned,
    )
    yield _one(
        "emuvisor_host_memory_scan_seconds_total", "counter", "CPU time that this took.", memory.scan_s
    )


def _guests(guests: tuple[GuestSample, ...]) -> Iterable[_Family]:
    return [
        *_lives(guests),
        *_processor(guests),
        *_memory(guests),
        *_disks(guests),
        *_networks(guests),
    ]


def _lives(guests: tuple[GuestSample, ...]) -> Iterator[_Family]:
    state = _Family("emuvisor_guest_state", "gauge", "1 for the state that the guest is in.")
    console = _Family("emuvisor_guest_console_bytes_total", "counter", "What the guest printed.")
    for guest in guests:
        for each in GuestState:
            state.add(int(each == guest.statistics.state), guest=guest.name, state=each.value)
        console.add(guest.statistics.console_bytes, guest=guest.name)
    yield state
    yield console


def _processor(guests: tuple[GuestSample, ...]) -> Iterator[_Family]:
    # Families of their own, not labels of one: they overlap, so that nobody should sum them up.
    used = _Family("emuvisor_guest_cpu_seconds_total", "counter", "Time on a pCPU.")
    ready = _Family("emuvisor_guest_ready_seconds_total", "counter", "Time that the guest waited for a pCPU.")
    throttled = _Family(
        "emuvisor_guest_throttled_seconds_total", "counter", "Time that its cap or limit kept it off."
    )
    stolen = _Family(
        "emuvisor_guest_stolen_seconds_total",
        "counter",
        "Ready and throttled time, which a guest on the host's clock is told as steal time.",
    )
    lost = _Family(
        "emuvisor_guest_lost_seconds_total",
        "counter",
        "Time that the guest's work took and was no work, by reason: the terms of its score.",
    )
    code = _Family("emuvisor_guest_code_bytes_total", "counter", "Bytes of guest code executed.")
    clock = _Family("emuvisor_guest_clock_seconds", "gauge", "Time on the guest's own clock.")
    slices = _Family("emuvisor_guest_slices_total", "counter", "How often the guest was given a pCPU.")
    exits = _Family("emuvisor_guest_exits_total", "counter", "VM exits and other events, by kind.")
    weight = _Family("emuvisor_guest_cpu_weight", "gauge", "The guest's share of the pCPUs against others.")
    cap = _Family(
        "emuvisor_guest_cpu_cap_ratio",
        "gauge",
        "The part of a pCPU that it never passes; absent without one.",
    )
    for guest in guests:
        statistics = guest.statistics
        times = CpuTimes.of(statistics)
        name = guest.name
        used.add(times.used / NS_PER_S, guest=name)
        ready.add(times.ready / NS_PER_S, guest=name)
        throttled.add(times.throttled / NS_PER_S, guest=name)
        stolen.add(times.stolen / NS_PER_S, guest=name)
        terms = {
            "ready": times.ready,
            "throttled": times.throttled,
            "faults": guest.faults_ns,
            "io": guest.limited_ns,
        }
        for reason, ns in terms.items():
            lost.add(ns / NS_PER_S, guest=name, reason=reason)
        code.add(statistics.retired, guest=name)
        clock.add(statistics.guest_ns / NS_PER_S, guest=name)
        slices.add(statistics.slices, guest=name)
        for kind, count in statistics.exits.items():
            exits.add(count, guest=name, kind=kind)
        weight.add(guest.weight, guest=name)
        if guest.cap is not None:
            cap.add(guest.cap / 100, guest=name)
    yield from (used, ready, throttled, stolen, lost, code, clock, slices, exits, weight, cap)


def _memory(guests: tuple[GuestSample, ...]) -> Iterator[_Family]:
    size = _Family("emuvisor_guest_memory_configured_bytes", "gauge", "What the guest sees as its RAM.")
    places = _Family("emuvisor_guest_memory_bytes", "gauge", "Where it is.")
    active = _Family("emuvisor_guest_memory_active_bytes", "gauge", "Its working set, estimated.")
    faults = _Family(
        "emuvisor_guest_memory_returned_bytes_total",
        "counter",
        "What came back because the guest touched it.",
    )
    for guest in guests:
        memory = guest.memory
        size.add(memory.configured, guest=guest.name)
        for place in PLACES:
            places.add(getattr(memory, place), guest=guest.name, state=place)
        if memory.active is not None:
            active.add(memory.active, guest=guest.name)
        faults.add(memory.decompressed, guest=guest.name, state="compressed")
        faults.add(memory.swapped_in, guest=guest.name, state="swapped")
    yield from (size, places, active, faults)


def _disks(guests: tuple[GuestSample, ...]) -> Iterator[_Family]:
    requests = _Family("emuvisor_guest_disk_requests_total", "counter", "Requests of a hard disk.")
    moved = _Family("emuvisor_guest_disk_bytes_total", "counter", "What they read and wrote.")
    errors = _Family("emuvisor_guest_disk_errors_total", "counter", "Those that failed.")
    latency = _Family(
        "emuvisor_guest_disk_latency_seconds",
        "summary",
        "How long requests took; throttled: how long they waited.",
    )
    for guest in guests:
        for number, disk in enumerate(guest.statistics.disks):
            labels = {"guest": guest.name, "disk": str(disk.get("name", number))}
            for kind, key in DISK_REQUESTS.items():
                requests.add(disk[key], **labels, kind=kind)
            for kind, key in DISK_BYTES.items():
                moved.add(disk[key], **labels, kind=kind)
            errors.add(disk["errors"], **labels)
            for kind, summary in disk.get("latency", {}).items():
                latency.add_summary(summary, **labels, kind=kind)
    yield from (requests, moved, errors, latency)


def _networks(guests: tuple[GuestSample, ...]) -> Iterator[_Family]:
    moved = _Family("emuvisor_guest_network_bytes_total", "counter", "What passed a network card.")
    frames = _Family("emuvisor_guest_network_frames_total", "counter", "The frames of that.")
    dropped = _Family("emuvisor_guest_network_dropped_total", "counter", "Frames that did not, by reason.")
    stopped = _Family(
        "emuvisor_guest_network_card_dropped_total",
        "counter",
        "Frames that got no further than the card, by reason.",
    )
    latency = _Family(
        "emuvisor_guest_network_latency_seconds",
        "summary",
        "How long frames took; throttled: how long they waited.",
    )
    for guest in guests:
        for number, nic in enumerate(guest.statistics.nics):
            labels = {"guest": guest.name, "nic": str(number)}
            for direction, key in DIRECTIONS.items():
                moved.add(nic[f"{key}_bytes"], **labels, direction=direction)
                frames.add(nic[f"{key}_frames"], **labels, direction=direction)
                for reason, count in nic[f"{key}_dropped"].items():
                    dropped.add(count, **labels, direction=direction, reason=str(reason))
            for reason, count in nic["card_dropped"].items():
                stopped.add(count, **labels, reason=str(reason))
            for kind, summary in nic.get("latency", {}).items():
                latency.add_summary(summary, **labels, kind=kind)
    yield from (moved, frames, dropped, stopped, latency)
