"""Interrupt lines: a wire from a device's output pin to an interrupt controller's input pin."""

from collections.abc import Callable

__all__ = ["InterruptLine"]


class InterruptLine:
    """A level on a wire. `sink(level)` is called when the level changes, never otherwise."""

    __slots__ = ("_sink", "level", "name")

    def __init__(self, sink: Callable[[bool], None], name: str = "") -> None:
        self._sink = sink
        self.name = name
        self.level = False

    def set(self, level: bool) -> None:
        """Drive the wire high or low."""
        if level != self.level:
            self.level = level
            self._sink(level)

    def pulse(self) -> None:
        """Low, then a rising edge, then low again: one edge-triggered interrupt."""
        self.set(False)
        self.set(True)
        self.set(False)
