"""The one exception that a user's mistake or a bad file can cause."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import accumulate


class PolyfaceError(Exception):
    """One line, whatever the names in it hold: what is wrong, where (file, row, key), and what to do about it."""

    def __init__(self, text: object) -> None:
        super().__init__(one_line(text))


class NoDataError(PolyfaceError):
    """A data set that is asked for is not there, or not whole."""


class Interrupted(PolyfaceError):
    """The user stopped it: what is kept, and what the next run does."""


HINTED, WIDTH = 60, 1500  # names that a hint lists at most, and how long they may be together


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that ends an error about an unknown name: its nearest neighbour, or what is known (as many as there is
    room for)."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    lengths = accumulate(len(one) + 2 for one in known[:HINTED])
    listed = known[: max(1, sum(length <= WIDTH for length in lengths))]
    more = f" and {len(known) - len(listed)} more" if len(listed) < len(known) else ""
    return f"known: {', '.join(listed)}{more}" if known else "none is known"


def short(value: object) -> str:
    """The first line of a text, or of what an error says (else its type), cut to what an error may hold."""
    text = str(value).strip() or (type(value).__name__ if isinstance(value, Exception) else "")
    line = text.split("\n")[0]
    return line if len(line) <= 200 else f"{line[:200]}…"


def check_names(named: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise a PolyfaceError for the first name that is not known. where: the key that names it."""
    known = list(known)
    for name in named:
        if name not in known:
            raise PolyfaceError(f"{where} names '{name}'; {nearest(name, known)}")


def utf8(name: str) -> str:
    """A name as UTF-8 holds it: a file's may be any bytes, of which Python keeps those that are no text as surrogates.

    Bytes that are UTF-8 after all (the locale took them for something else) become text; others are told as \\udce9.
    """
    with suppress(UnicodeEncodeError):  # surrogates that stand for no byte
        name = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: object) -> str:
    """A text as a line shows it: line breaks and what else moves a cursor, which a file's name may hold, as \\n."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), utf8(str(text)))


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
