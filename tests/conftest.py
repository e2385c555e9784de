"""For all tests."""

from hypothesis import settings

# The same examples each time; and no deadline, for timings are never asserted.
settings.register_profile("emuvisor", derandomize=True, deadline=None)
settings.load_profile("emuvisor")
