"""The network of `columns.py`, and its faces."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyface.networks.trunks import TRUNKS

sys.path.insert(0, str(Path(__file__).parent))

from columns import Columns


@pytest.fixture
def columns() -> Iterator[None]:
    """A trunk "columns", in this process alone."""
    TRUNKS.add("columns", Columns)
    yield
    TRUNKS.remove("columns")
