"""A chart of how contenders compare: groups of horizontal bars, as an SVG picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from benchmarks.figures import ratio_of_medians, summarize
from benchmarks.harness import Result, Row
from benchmarks.report import number

__all__ = ["Section", "as_svg", "sections"]

WIDTH = 900
LABELS_WIDTH, VALUES_WIDTH = 330, 150
"""Left of the bars, and right of the longest one."""
BAR, GAP, HEAD, MARGIN = 12, 10, 34, 12
"""Heights of a bar, of the space between two groups and of a section's title; the space around everything."""
MOST = 2.0
"""Times the base: bars end there, whatever their figures."""
TICKS = (0.5, 1.0, 1.5, 2.0)
FONT = "sans-serif"
TEXT_SIZE, TITLE_SIZE = 11, 14
BASE_COLOR = "#9aa5b1"
COLORS = ("#2563eb", "#7aa7f7", "#0f766e")
"""Of the contenders besides the base, in order."""
INK, PALE = "#1f2933", "#d7dce1"


@dataclass(frozen=True, slots=True)
class Section:
    """Figures under one title."""

    title: str
    rows: Sequence[Row]


def sections(results: Sequence[Result]) -> list[Section]:
    """The figures of each result: first those of which more is better (by their goals), then the others."""
    found = []
    for result in results:
        more = [row for row in result.rows if row.goal is not None and row.goal.at_least]
        found.append(Section(f"{result.name}: longer is better", more))
        found.append(
            Section(f"{result.name}: shorter is better", [row for row in result.rows if row not in more])
        )
    return found


def as_svg(sections: Sequence[Section], base: str) -> str:
    """A group of bars for each row that has a figure of `base`, which is the length 1; the others' are ratios to it."""
    drawing = _Drawing(base)
    for section in sections:
        rows = [row for row in section.rows if row.values.get(base)]
        if rows:
            drawing.section(section.title, rows)
    return drawing.finish()


class _Drawing:
    """Draws from top to bottom; `_y` is where the next thing begins."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._y = MARGIN
        self._colors: dict[str, str] = {base: BASE_COLOR}
        self._root = ET.Element(
            "svg", xmlns="http://www.w3.org/2000/svg", width=str(WIDTH), attrib={"font-family": FONT}
        )
        self._background = self._element("rect", width=str(WIDTH), fill="white")

    def _element(self, tag: str, **attributes: str) -> ET.Element:
        return ET.SubElement(self._root, tag, {key.replace("_", "-"): v for key, v in attributes.items()})

    def _text(self, x: float, y: float, text: str, anchor: str = "start", size: int = TEXT_SIZE) -> None:
        element = self._element(
            "text", x=f"{x:g}", y=f"{y:g}", text_anchor=anchor, font_size=str(size), fill=INK
        )
        element.text = text

    def _place(self, ratio: float) -> float:
        """Where a bar of `ratio` ends."""
        return LABELS_WIDTH + ratio / MOST * (WIDTH - LABELS_WIDTH - VALUES_WIDTH)

    def section(self, title: str, rows: Sequence[Row]) -> None:
        """A title, and a group for each row."""
        self._text(MARGIN, self._y + HEAD / 2, title, size=TITLE_SIZE)
        self._y += HEAD
        height = sum(len(row.values) * BAR + GAP for row in rows)
        for tick in TICKS:
            x = f"{self._place(tick):g}"
            self._element("line", x1=x, x2=x, y1=str(self._y), y2=str(self._y + height), stroke=PALE)
            self._text(self._place(tick), self._y - 3, f"{tick:g}x {self._base}", "middle")
        for row in rows:
            self._y += GAP // 2
            self._text(
                LABELS_WIDTH - 8, self._y + (len(row.values) * BAR + TEXT_SIZE) / 2 - 1, row.name, "end"
            )
            for contender, ratio, value in _bars(row, self._base):
                self._bar(contender, ratio, value)
            self._y += GAP - GAP // 2

    def _bar(self, contender: str, ratio: float, value: str) -> None:
        color = self._colors.setdefault(contender, COLORS[(len(self._colors) - 1) % len(COLORS)])
        end = self._place(min(ratio, MOST))
        self._element(
            "rect",
            x=str(LABELS_WIDTH),
            y=str(self._y + 1),
            width=f"{end - LABELS_WIDTH:.1f}",
            height=str(BAR - 2),
            fill=color,
        )
        self._text(end + 4, self._y + BAR - 2, value)
        self._y += BAR

    def finish(self) -> str:
        """The picture, with what the colours mean at its end."""
        self._y += MARGIN
        x = MARGIN
        for contender, color in self._colors.items():
            self._element("rect", x=str(x), y=str(self._y), width=str(BAR), height=str(BAR), fill=color)
            self._text(x + BAR + 4, self._y + BAR - 2, contender)
            x += BAR * 3 + len(contender) * 7
        height = self._y + BAR + MARGIN
        self._root.set("height", str(height))
        self._root.set("viewBox", f"0 0 {WIDTH} {height}")
        self._background.set("height", str(height))
        ET.indent(self._root)
        return ET.tostring(self._root, encoding="unicode") + "\n"


def _bars(row: Row, base: str) -> Iterator[tuple[str, float, str]]:
    """Contender, ratio to the base, and the figure for people."""
    for contender, values in row.values.items():
        ratio = ratio_of_medians(values, row.values[base])
        if ratio is None:
            continue
        text = f"{number(summarize(values).median)} {row.unit}"
        yield contender, ratio, text if contender == base else f"{text} ({ratio:.2f}x)"
