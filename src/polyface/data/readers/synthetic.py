"""Faces that the built-in renderer draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from polyface.data import synthetic
from polyface.data.writing import Record


@dataclass(frozen=True)
class Synthetic:
    """Synthetic faces, of which everything is known; for tests, examples and demonstrations.

    Layout: none; they are drawn when they are read. The options are those of `polyface.data.synthetic.render`.

    Labels: the schema's columns but ``fold``. Licence: that of Polyface. Source: `polyface.data.synthetic`.
    """

    n: int = 4000
    size: int = 64
    seed: int = 0
    identities: int | Sequence[int] = 100
    modality: str | None = None
    first: int = 0
    fixed: Mapping[str, Any] | None = None

    name = "synthetic"
    drawn: ClassVar[bool] = True
    verified = True
    about = "synthetic faces of the built-in renderer"
    layout = "nothing: its pictures are drawn"

    def records(self, root: Path) -> Iterator[Record]:
        """The faces of `render`, by number."""
        return synthetic.records(**vars(self))
