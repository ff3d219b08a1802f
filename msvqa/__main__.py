"""`python -m msvqa` is the `msvqa` command."""

import sys

from msvqa.cli import main

if __name__ == "__main__":
    sys.exit(main())
