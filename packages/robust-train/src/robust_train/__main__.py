"""`python -m robust_train` is the command `robust-train`."""

import sys

from robust_train.cli import main

if __name__ == "__main__":
    sys.exit(main())
