"""The one exception that a user's mistake or a bad file can cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PolyfaceError(Exception):
    """One line: what is wrong, where (file, row, key), and what to do about it."""


class NoDataError(PolyfaceError):
    """A data set that is asked for is not there, or not whole."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that ends an error about an unknown name: its nearest neighbour, or what is known (the first sixty)."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    more = f" and {len(known) - 60} more" if len(known) > 60 else ""
    return f"known: {', '.join(known[:60])}{more}" if known else "none is known"
