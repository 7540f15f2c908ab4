"""`python -m examples`."""

import os
import sys

# Threads that spin while they wait make a busy machine ten times slower; read when torch starts.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from examples.cli import main

sys.exit(main(sys.argv[1:]))
