"""`benchmarks` is not part of the package: it is found in the checkout."""

import sys
from pathlib import Path

CHECKOUT = str(Path(__file__).resolve().parents[3])
if CHECKOUT not in sys.path:
    sys.path.insert(0, CHECKOUT)
