"""`python -m examples`."""

import sys

from examples.cli import main

sys.exit(main(sys.argv[1:]))
