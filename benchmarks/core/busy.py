"""Other work beside a measurement, as data loaders are beside a training step."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Ends with its parent, however that ends.
SPIN = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def beside(processes: int) -> Iterator[list[subprocess.Popen]]:
    """So many processes that compute without a pause, until the block ends."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(processes)]
    try:
        yield others
    finally:
        for other in others:
            other.kill()
        for other in others:
            other.wait()
