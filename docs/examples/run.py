"""``mlbits`` with the examples in it: ``python docs/examples/run.py train cross_entropy examples/Nim-v0``."""

import sys

import cross_entropy  # noqa: F401  (importing registers)
import nim  # noqa: F401
import nim_eval  # noqa: F401

from mlbits.cli import main

if __name__ == "__main__":
    sys.exit(main())
