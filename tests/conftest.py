"""For all tests."""

import gc

import pytest
from hypothesis import settings

# The same examples each time; and no deadline, for timings are never asserted.
settings.register_profile("emuvisor", derandomize=True, deadline=None)
settings.load_profile("emuvisor")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is there by now stays to the end. Without it the garbage collector has little to look through, and what
    tests leave behind, machines and their memory, goes soon."""
    gc.collect()
    gc.freeze()
    gc.collect()
