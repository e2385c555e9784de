"""Interrupt lines: a wire from a device's output pin to an interrupt controller's input pin."""

from collections.abc import Callable

__all__ = ["InterruptLine", "SharedLine"]


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


class SharedLine:
    """Several outputs wired to one input: it is high while any of them is."""

    def __init__(self, line: InterruptLine) -> None:
        self._line = line
        self._high: set[int] = set()
        self._count = 0

    def input(self, name: str = "") -> InterruptLine:
        """A line for one more output."""
        number = self._count
        self._count += 1

        def sink(level: bool) -> None:
            if level:
                self._high.add(number)
            else:
                self._high.discard(number)
            self._line.set(bool(self._high))

        return InterruptLine(sink, name)
