"""The seal of a table's file: what its footer was when Polyface wrote it.

Parquet checks its pages (a CRC-32 each) but not its footer, which says what the columns are. So Polyface puts the
footer's SHA-256 between the last page and the footer, where no reader of Parquet looks. What another program writes
has no seal, and then nothing that the footer says of the content is taken on trust.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from polyface.errors import PolyfaceError

_MARK = b"polyface seal 1\n"
_SIZE = len(_MARK) + hashlib.sha256().digest_size
_END = 8  # the footer's length and the magic number


def seal(path: Path) -> None:
    """Seal a Parquet file that was just written."""
    with open(path, "r+b") as file:
        footer, start = _footer(file)
        file.seek(start)
        file.write(_MARK + hashlib.sha256(footer).digest() + footer)


def footer_of(path: Path) -> tuple[bytes, bool]:
    """A file's footer, and whether it is sealed; empty and False of what is no Parquet file.

    Raises:
        PolyfaceError: the footer is not the one that was sealed.
    """
    with open(path, "rb") as file:
        footer, start = _footer(file)
        file.seek(max(start - _SIZE, 0))
        found = file.read(min(_SIZE, start))
    if not footer or not found.startswith(_MARK):
        return footer, False
    if found[len(_MARK) :] != hashlib.sha256(footer).digest():
        raise PolyfaceError(f"{path}: is damaged (its footer is not the one that was written); make the table again")
    return footer, True


def _footer(file: BinaryIO) -> tuple[bytes, int]:
    """The bytes from the start of the footer to the end of the file, and where they start."""
    size = file.seek(0, 2)
    file.seek(max(size - _END, 0))
    length = int.from_bytes(file.read(4), "little")
    start = size - _END - length
    if start < 4 or file.read() != b"PAR1":
        return b"", 0
    file.seek(start)
    return file.read(), start
