"""FER2013: faces in the wild with one of seven emotions (Goodfellow et al., ICONIP 2013)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyface.data.readers._labelled import Fields, look_up, named_rows
from polyface.data.readers.common import demand
from polyface.data.writing import Plan, Record, Skipped
from polyface.schema import Column

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""The words of the numbers 0 to 6. FER+ has the same words in another order."""
_SIDE = 48
_PARTS = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}


@dataclass(frozen=True)
class FER2013:
    """FER2013, of a contest at ICML 2013.

    Layout: ``fer2013.csv`` with the columns ``emotion``, ``pixels`` (2,304 grey values of 48×48, row by row) and
    ``Usage``, in whatever order. A face's path is ``fer0000000.png`` with its number among the rows, from 0.

    Labels: ``emotion``, seven words in the order of their numbers, which is not that of FER+: anger, disgust, fear,
    happiness, sadness, surprise, neutral. About a third of the labels are wrong (Barsoum et al. 2016): FER+ labels the
    same faces anew. ``source`` (fer2013), ``modality`` (photo).

    Split: the published usage; PublicTest is val.

    Licence: for research. Source: https://www.kaggle.com/datasets/msambare/fer2013
    """

    name = "fer2013"
    verified = False
    about = "FER2013: 35,887 faces in the wild, 48×48, with one of seven emotions (Goodfellow et al. 2013)"
    layout = (
        "fer2013.csv with the columns emotion, pixels and Usage; obtain it from "
        "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge"
    )

    def plan(self, root: Path) -> Plan:
        """The column of its own."""
        return Plan({"emotion": Column("words", EMOTIONS)})

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row of ``fer2013.csv``, in its order; `root` is its folder.

        Raises:
            PolyfaceError: the file is missing, or lacks a column.
        """
        file = demand(demand(Path(root), self) / "fer2013.csv", self)
        numbered = {str(number): word for number, word in enumerate(EMOTIONS)}

        def face(fields: Fields) -> tuple[bytes, dict[str, Any]]:
            return _pixels(fields["pixels"]), {
                "source": self.name,
                "modality": "photo",
                "emotion": look_up(fields, "emotion", numbered),
                "split": look_up(fields, "Usage", _PARTS),
            }

        for number, row in enumerate(named_rows(file, ("emotion", "pixels", "Usage"), face)):
            if isinstance(row, Skipped):
                yield row
                continue
            where, (pixels, labels) = row
            yield Record(partial(_picture, pixels), where, f"fer{number:07d}.png", labels)


def _pixels(text: str) -> bytes:
    """The grey values that a row writes as words; ValueError where they are not those of a picture."""
    try:
        values = bytes(map(int, text.strip('"').split()))
    except ValueError:
        raise ValueError("pixels holds something else than whole numbers from 0 to 255") from None
    if len(values) != _SIDE**2:
        raise ValueError(f"pixels holds {len(values):,} values, expected {_SIDE**2:,}")
    return values


def _picture(pixels: bytes) -> NDArray[np.uint8]:
    """RGB [48, 48, 3]."""
    grey = np.frombuffer(pixels, np.uint8).reshape(_SIDE, _SIDE, 1)
    return grey.repeat(3, axis=2)
