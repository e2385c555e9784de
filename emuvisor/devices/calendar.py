"""Days and years as a clock chip counts them: any two-digit century and year, any day a guest may write."""

from datetime import date

__all__ = ["YEARS", "civil_from_days", "days_from_civil"]

YEARS = 10_000
"""Years that a century and a year register can tell apart; after 9999 comes 0000."""

_CYCLE_YEARS = 400
_CYCLE_DAYS = 146_097
"""The Gregorian calendar repeats after 400 years."""
_CYCLE_START = 2000
_DAYS = YEARS // _CYCLE_YEARS * _CYCLE_DAYS
_ORIGIN = date(_CYCLE_START, 1, 1).toordinal()


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days since 1 January of the year 0.

    A month out of range becomes the nearest one; days are counted on from its first day.
    """
    cycle, year_of_cycle = divmod(year % YEARS, _CYCLE_YEARS)
    first = date(_CYCLE_START + year_of_cycle, min(max(month, 1), 12), 1)
    return cycle * _CYCLE_DAYS + first.toordinal() - _ORIGIN + day - 1


def civil_from_days(days: int) -> tuple[int, int, int]:
    """Year, month and day of a number that `days_from_civil` gave."""
    cycle, day_of_cycle = divmod(days % _DAYS, _CYCLE_DAYS)
    day = date.fromordinal(_ORIGIN + day_of_cycle)
    return day.year - _CYCLE_START + cycle * _CYCLE_YEARS, day.month, day.day
