"""``python -m tests.fuzz``; see the package."""

import argparse
import os
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Run readers on damaged inputs, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("readers", nargs="*", metavar="READER", help="by default all but the states")
    parser.add_argument("--inputs", type=int, default=1000, help="inputs for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0, help="CPU time after which a reader ends, 0 for no limit")
    parser.add_argument("--atheris", action="store_true", help="choose inputs by coverage, of one reader")
    parser.add_argument("--list", action="store_true", help="name the readers")
    flags = parser.parse_args()
    if any(name.startswith("state-") for name in flags.readers):
        # Before Numba is imported; machine code with these checks is kept apart.
        os.environ["NUMBA_BOUNDSCHECK"] = "1"
        os.environ["MLBITS_CACHE_DIR"] = str(Path(tempfile.gettempdir(), "mlbits-fuzz-states"))
    from tests.fuzz.readers import READERS
    from tests.fuzz.run import fuzz, fuzz_by_coverage

    if flags.list:
        print("\n".join(READERS))
        return 0
    chosen = flags.readers or [name for name in READERS if not name.startswith("state-")]
    if unknown := [name for name in chosen if name not in READERS]:
        parser.error(f"unknown reader {unknown[0]!r}; wanted any of {', '.join(READERS)}")
    if flags.atheris:
        fuzz_by_coverage(chosen[0], flags.inputs, flags.seed, flags.seconds)
        return 0
    faults = 0
    for name in chosen:
        report = fuzz(name, flags.inputs, flags.seed, flags.seconds)
        print(report.line(), flush=True)
        for fault in report.faults[:5]:
            print(f"  {fault}", file=sys.stderr)
        faults += len(report.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
