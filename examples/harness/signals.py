"""The end of a run that is asked for from outside."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collects the signals to end, so that the step under way can end and be saved."""
    caught: list[int] = []
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    before = {
        number: signal.signal(number, lambda received, _: caught.append(received))
        for number in numbers
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN  # nohup
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
