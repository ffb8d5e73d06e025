"""`python -m robust_models` is the command `robust-models`."""

import sys

from robust_models.cli import main

if __name__ == "__main__":
    sys.exit(main())
