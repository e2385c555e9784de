"""`python -m emuvisor`: the command line."""

import sys

from emuvisor.cli import main

if __name__ == "__main__":
    sys.exit(main())
