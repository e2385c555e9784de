from xml.etree import ElementTree as ET

from benchmarks.chart import BASE_COLOR, COLORS, MOST, Section, as_svg, sections
from benchmarks.figures import Goal
from benchmarks.harness import Result, Row

SVG = "{http://www.w3.org/2000/svg}"
MORE = Goal(0.5, "qemu", at_least=True)


def row(name: str, goal: Goal | None = None, **values: list[float]) -> Row:
    return Row(name, "MB/s", goal, "qemu", values)


def result(*rows: Row) -> Result:
    return Result("disk", "disks", list(rows), [], [], 1.0, False)


def bars(svg: str) -> list[tuple[str, float]]:
    """Colour and width of each bar; the first rectangle is the background."""
    rectangles = ET.fromstring(svg).findall(f"{SVG}rect")
    return [
        (rectangle.attrib["fill"], float(rectangle.attrib["width"]))
        for rectangle in rectangles[1:]
        if rectangle.attrib["x"] == "330"
    ]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).findall(f"{SVG}text")]


def test_figures_of_which_more_is_better_come_first() -> None:
    cpu, speed = row("CPU", qemu=[1.0]), row("speed", MORE, qemu=[1.0])
    assert sections([result(cpu, speed)]) == [
        Section("disk: longer is better", [speed]),
        Section("disk: shorter is better", [cpu]),
    ]


def test_bars_are_as_long_as_the_ratio_to_the_base() -> None:
    svg = as_svg([Section("Disks", [row("read", emuvisor=[50.0, 60, 40], qemu=[100.0])])], "qemu")
    assert bars(svg) == [(COLORS[0], 105.0), (BASE_COLOR, 210.0)]
    shown = ["read", "50.00 MB/s (0.50x)", "100.0 MB/s", "qemu", "emuvisor"]
    ticks = ["0.5x qemu", "1x qemu", "1.5x qemu", "2x qemu"]
    assert texts(svg) == ["Disks", *ticks, *shown]


def test_a_bar_that_is_too_long_ends_at_the_edge_and_shows_its_figure() -> None:
    svg = as_svg([Section("Disks", [row("read", emuvisor=[900.0], qemu=[100.0])])], "qemu")
    assert bars(svg) == [(COLORS[0], MOST * 210), (BASE_COLOR, 210.0)]
    assert "900.0 MB/s (9.00x)" in texts(svg)


def test_a_contender_has_one_colour_in_all_groups() -> None:
    rows = [row("read", one=[1.0], two=[1.0], qemu=[1.0]), row("write", two=[1.0], qemu=[1.0])]
    colors = [color for color, _ in bars(as_svg([Section("Disks", rows)], "qemu"))]
    assert colors == [COLORS[0], COLORS[1], BASE_COLOR, COLORS[1], BASE_COLOR]


def test_what_cannot_be_compared_is_left_out() -> None:
    rows = [row("alone", emuvisor=[1.0]), row("nothing", emuvisor=[1.0], qemu=[0.0])]
    svg = as_svg([Section("Disks", rows), Section("Empty", [])], "qemu")
    assert bars(svg) == []
    assert "alone" not in texts(svg)
    assert "Empty" not in texts(svg)


def test_the_picture_is_as_high_as_what_is_in_it() -> None:
    heights = [
        int(
            ET.fromstring(as_svg([Section("Disks", [row("read", qemu=[1.0])] * count)], "qemu")).attrib[
                "height"
            ]
        )
        for count in (1, 2)
    ]
    assert heights[1] - heights[0] == 22
