"""Errors that the user can mend: the command line prints their text and exits with code 2."""

import difflib
from collections.abc import Iterable

LONGEST = 80


class UsageError(Exception):
    """A wrong option, a missing or damaged file, a checkpoint that does not match."""


def wrong(option: str, takes: object, got: object, note: str = "") -> UsageError:
    """The error for a wrong value: the option, what it takes, what it got."""
    text = got if isinstance(got, str) else str(got)
    text = repr(text if len(text) <= LONGEST else text[:LONGEST] + "...")
    return UsageError(f"{option} takes {takes}; got {text}{f' ({note})' if note else ''}")


def unknown_name(option: str, name: str, valid: Iterable[str]) -> UsageError:
    """The error for a misspelt name: it lists the valid ones and points at the nearest."""
    valid = list(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    return wrong(option, ", ".join(valid), name, f"did you mean {near[0]}?" if near else "")


def reason(error: OSError) -> str:
    """What the system said, in lower-case words."""
    return (error.strerror or str(error) or type(error).__name__).lower()
