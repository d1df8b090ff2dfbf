"""``python -m mlbits``: the command line."""

import sys

from mlbits.cli import main

if __name__ == "__main__":
    sys.exit(main())
