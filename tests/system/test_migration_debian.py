"""Debian moves between processes while it writes: nothing that it counts is lost, doubled or wrong."""

import pytest
from migration_guests import HostProcess
from migration_runs import LOAD_BYTES, run_once

pytestmark = pytest.mark.system


@pytest.mark.usefixtures("debian")
def test_moved_by_pages_before_and_pages_behind_and_kept_when_the_target_dies() -> None:
    """Three of the runs of migration_runs.py, with one boot."""
    with HostProcess() as first, HostProcess() as second, HostProcess() as third:
        first.do("boot", disk="", size=LOAD_BYTES, memory=256)
        moved = run_once(first, second, "pre-copy", "nobody")
        assert (moved.fate, moved.progress["left"] if moved.progress else None) == ("moved", 0)
        back = run_once(second, first, "post-copy", "line", until="following")
        assert (back.fate, back.progress["left"] if back.progress else None) == ("moved", 0)
        kept = run_once(first, third, "pre-copy", "target", until="switching")
        assert kept.fate == "stayed"
