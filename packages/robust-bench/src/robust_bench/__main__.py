"""`python -m robust_bench` is the command `robust-bench`."""

import sys

from robust_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
