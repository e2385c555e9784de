"""What a user types: `emuvisor run --image debian`."""

import subprocess
import sys
from pathlib import Path

import pytest

from emuvisor.images.cache import find

PATIENCE_S = 300


@pytest.mark.skipif(find("debian") is None, reason="no image: emuvisor images pull debian")
@pytest.mark.parametrize("extra", [[], ["--decompressor", "guest"], ["--memory", "4G", "--pool", "512M"]])
def test_run_boots_answers_and_powers_off(extra: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emuvisor", "run", "--image", "debian", "--timeout", str(PATIENCE_S)]
    done = subprocess.run(
        [*command, *extra],
        input="echo answer=$((40 + 2))\npoweroff\n",
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "EMUVISOR-BOOT-OK" in done.stdout
    assert "answer=42" in done.stdout
