"""The networks of `columns.py` and `small.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyface.networks.trunks import TRUNKS

sys.path.insert(0, str(Path(__file__).parent))

from columns import Columns
from small import Small, trained

from polyface.models.bundle import Bundle


@pytest.fixture
def columns() -> Iterator[None]:
    """A trunk "columns", in this process alone."""
    TRUNKS.add("columns", Columns)
    yield
    TRUNKS.remove("columns")


@pytest.fixture
def small() -> Iterator[None]:
    """A trunk "small", in this process alone."""
    TRUNKS.add("small", Small)
    yield
    TRUNKS.remove("small")


@pytest.fixture(scope="module")
def teller() -> Bundle:
    """A small network that has learnt to tell glasses."""
    TRUNKS.add("small", Small)
    try:
        return trained()
    finally:
        TRUNKS.remove("small")
