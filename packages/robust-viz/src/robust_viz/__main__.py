"""`python -m robust_viz` is `robust-viz`."""

import sys

from robust_viz.cli import main

if __name__ == "__main__":
    sys.exit(main())
