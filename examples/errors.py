"""Errors that the user can mend: the command line prints their text and exits with code 2."""

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """A wrong option, a missing or damaged file, a checkpoint that does not match."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UsageError:
    """The error for a misspelt name: it lists the valid ones and points at the nearest."""
    valid = list(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return UsageError(f"unknown {kind} {name!r}{hint}; valid: {', '.join(valid)}")
