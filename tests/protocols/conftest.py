from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from polyface.data.readers import READERS
from polyface.data.table import FaceTable

sys.path.insert(0, str(Path(__file__).parent))

from lists import KINDS, PEOPLE, MadeUp, table_of


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> FaceTable:
    """A caricature and a photo of each of three people."""
    faces = [(person, kind) for person in PEOPLE for kind in KINDS]
    return table_of(tmp_path_factory.mktemp("six") / "t.parquet", faces)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> FaceTable:
    """Twelve people with three caricatures and two photos each, in no order."""
    faces = [(f"p{i:02}", kind) for i in range(12) for kind in ("caricature",) * 3 + ("photo",) * 2]
    order = np.random.default_rng(0).permutation(len(faces))
    return table_of(tmp_path_factory.mktemp("many") / "t.parquet", [faces[i] for i in order])


@pytest.fixture(autouse=True)
def made_up() -> Iterator[type[MadeUp]]:
    """A data set of the name "made-up" in this process alone."""
    READERS.add("made-up", MadeUp)
    MadeUp.asked.clear()
    yield MadeUp
    READERS.remove("made-up")
