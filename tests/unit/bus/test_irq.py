from emuvisor.bus.irq import InterruptLine, SharedLine


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


def test_a_shared_line_is_high_while_any_output_is() -> None:
    seen: list[bool] = []
    shared = SharedLine(InterruptLine(seen.append))
    com1, com3 = shared.input("com1"), shared.input("com3")
    com1.set(True)
    com3.set(True)
    com1.set(False)
    assert seen == [True]
    com3.set(False)
    com3.set(True)
    assert seen == [True, False, True]


def test_an_output_that_comes_back_high_makes_no_edge_on_a_high_line() -> None:
    seen: list[bool] = []
    line = InterruptLine(seen.append)
    line.level = True  # as a restored interrupt controller leaves it
    SharedLine(line).input().set(True)
    assert seen == []
