from emuvisor.bus.irq import InterruptLine


def test_a_line_reports_changes_only() -> None:
    seen: list[bool] = []
    line = InterruptLine(seen.append, "irq4")
    line.set(False)
    line.set(True)
    line.set(True)
    line.set(False)
    assert seen == [True, False]
    assert (line.level, line.name) == (False, "irq4")


def test_a_pulse_is_a_rising_edge_whatever_the_level_was() -> None:
    seen: list[bool] = []
    line = InterruptLine(seen.append)
    line.pulse()
    line.set(True)
    line.pulse()
    assert seen == [True, False, True, False, True, False]
    assert not line.level
