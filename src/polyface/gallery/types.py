"""What goes into a gallery and what comes out: embedders, enrolments, matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyface.data.writing import Skipped
from polyface.errors import PolyfaceError, utf8
from polyface.inference.embeddings import FoundFace


@dataclass
class Precomputed:
    """Stands for a network that is not here, where embeddings were computed elsewhere."""

    id: str
    dim: int
    similarity: str

    def embed(
        self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[NDArray[np.float32] | None] | None = None
    ) -> list[list[FoundFace]]:
        """Raises: without the network there is nothing to embed with."""
        raise PolyfaceError(f"pictures need the network '{self.id}': open the gallery with its embedder")


@dataclass
class Enrolment:
    """What an enrolment did. faces: how many are stored now that were not before. skipped: pictures that were not
    stored, and why. remarks: what is odd about some that were: several faces, or also enrolled under another name."""

    faces: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    remarks: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class Match:
    """An enrolled face that is near a query. distance: Euclidean, between the embeddings. similarity: their cosine,
    −1…1; None where the embedder compares by distance. path, box, info: as enrolled."""

    person: str
    distance: float
    similarity: float | None
    path: str | None = None
    box: tuple[float, ...] | None = None
    info: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; box to a hundredth of a pixel, the rest to five digits."""
        told: dict[str, Any] = {"person": self.person, "distance": round(self.distance, 5)}
        told |= {} if self.similarity is None else {"similarity": round(self.similarity, 5)}
        told |= {"path": self.path and utf8(self.path), "box": self.box and [round(value, 2) for value in self.box]}
        return told | ({"info": dict(self.info)} if self.info else {})


@dataclass(frozen=True, eq=False)
class QueryFace:
    """A face of a picture that was searched, its box [4], and who is nearest to it, nearest first."""

    box: NDArray[np.float32]
    matches: tuple[Match, ...]


@dataclass(frozen=True, eq=False)
class QueryImage:
    """A picture that was searched. path: its file, None for one from memory. faces: all of them; empty where none was
    found. error: why it could not be read, None if it could."""

    path: str | None
    faces: tuple[QueryFace, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a line of JSON holds them."""
        faces = [
            {"box": [round(float(value), 2) for value in face.box], "matches": [m.to_dict() for m in face.matches]}
            for face in self.faces
        ]
        return {"path": self.path and utf8(self.path), "faces": faces} | (
            {} if self.error is None else {"error": self.error}
        )


@dataclass(frozen=True)
class Picture:
    """An enrolled face. id: its number, which no other face ever has. The rest as enrolled."""

    id: int
    person: str
    path: str | None
    box: tuple[float, ...] | None
    info: Mapping[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `Match` tells them."""
        return {"id": self.id, "person": self.person, "path": self.path and utf8(self.path), "box": self.box} | (
            {"info": dict(self.info)} if self.info else {}
        )


@dataclass(frozen=True)
class GalleryInfo:
    """What a gallery is. removed: faces that wait to be erased from the disk. index: how it is searched; indexed: faces
    in its approximate index, and their recall@10 when it was built. bytes: of all its files."""

    faces: int
    people: int
    removed: int
    embedder: str
    dim: int
    similarity: str
    index: str
    indexed: int
    recall: float | None
    bytes: int
