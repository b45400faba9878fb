"""Work out the 3-D mean face of `polyface.data.pose` from photos of turned heads, and print its numbers.

    python tools/mean_face.py --data DIR

DIR holds 300w (the training photos of Helen, AFW and LFPW) and london. In turns, the face is fitted to the 68 points of
every photo and of its mirror image, and each of its points is put where it explains best what was marked, all photos
together: structure from motion by scaled orthography, in which a head that is turned far tells depth (it grows with the
sine of the yaw, the width shrinks with the cosine). Points of the jaw count where they are not hidden; heads turned far
count more, as they are fewer. In the end the face looks as high as the people of the London set do on average, who look
into the camera; a scale makes the eyes lie where those of the synthetic head do.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polyface.data import synthetic
from polyface.data.pose import WEIGHTS, fit, mean_face
from polyface.data.store import open_source
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.models.labels import label_table
from polyface.schema import mirror_landmarks

TURNS, TILTS = 20, 2
HIDDEN = 8.0  # degrees of yaw beyond which the far half of the jaw is not marked where it is
STEP = 10  # degrees of yaw over which heads are counted
Floats = NDArray[np.float64]
_MIRROR = mirror_landmarks(68)


def improved(face: Floats, points: Floats) -> Floats:
    """The face [68, 3] that explains points [N, 68, 2] best, given how this one lies in them."""
    found = fit(points, np.tile(WEIGHTS, (len(points), 1)), face)
    yaw = np.degrees(np.arctan2(-found.rotation[:, 2, 0], found.rotation[:, 2, 2]))
    long = np.stack([np.ones_like(yaw), 1 + found.length, np.ones_like(yaw)], axis=1)
    camera = found.rotation[:, :2] * long[:, None]  # from a point of the face to the picture, [N, 2, 3]
    shares = found.weights / found.weights.sum(axis=1, keepdims=True)
    places = points / found.scale[:, None, None]
    places -= (shares[:, :, None] * (places - face @ camera.transpose(0, 2, 1))).sum(axis=1, keepdims=True)
    steps = (np.abs(yaw) // STEP).astype(int)
    counts = shares_of_photos(steps)[:, None] * np.where(WEIGHTS < 1, found.weights / WEIGHTS, found.weights)
    side = np.sign(face[:, 0]) * (np.arange(68) < 17)
    counts = counts * (side * yaw[:, None] < HIDDEN)
    left = np.einsum("np,nij->pij", counts, camera.transpose(0, 2, 1) @ camera)
    right = np.einsum("npi->pi", (counts[:, :, None] * places) @ camera)
    flip = np.array([-1, 1, 1])  # a mirrored photo tells the same of the point on the other side
    left, right = left + left[_MIRROR] * np.outer(flip, flip), right + right[_MIRROR] * flip
    return placed(np.linalg.solve(left, right[:, :, None])[:, :, 0])


def shares_of_photos(steps: NDArray[np.intp]) -> Floats:
    """What a photo counts, by its step of yaw [N]: less, the more there are of it (but 20 are as good as fewer)."""
    return 1 / np.sqrt(np.maximum(np.bincount(steps), 20))[steps]


def placed(face: Floats) -> Floats:
    """The same, symmetric, of the synthetic head's width between the eyes, and about the middle of all but the jaw."""
    face = (face + face[_MIRROR] * [-1, 1, 1]) / 2
    face *= np.abs(synthetic.head.mean_face()[36:48, 0]).mean() / np.abs(face[36:48, 0]).mean()
    return np.asarray(face - face[17:].mean(axis=0) * [0, 1, 1])


def height(face: Floats, points: Floats) -> float:
    """How many degrees up the faces of points [N, 68, 2] look on average."""
    found = fit(points, np.tile(WEIGHTS, (len(points), 1)), face)
    return float(np.degrees(np.arcsin(found.rotation[:, 2, 1])).mean())


def portraits(folder: Path) -> Floats:
    """The 68 points of the London set's neutral portraits, by the shipped model."""
    with tempfile.TemporaryDirectory() as own:
        files = sorted(folder.glob("neutral_front/*.jpg"))
        write_table((Record(file, "", file.name, {"source": "London"}) for file in files), Path(own) / "faces.parquet")
        label_table(FaceTable.open(Path(own) / "faces.parquet"), "face68", Path(own) / "out.parquet")
        return FaceTable.open(Path(own) / "out.parquet").points("landmarks_68").astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with 300w and london")
    given = parser.parse_args()
    table = open_source("300w", given.data).where(split=["train", "val"], source=["Helen", "AFW", "LFPW"])
    points = table.points("landmarks_68").astype(np.float64)
    frontal, face = portraits(given.data / "london"), mean_face()
    for _ in range(TILTS):
        for _ in range(TURNS):
            before, face = face, improved(face, points)
        tilt = np.radians(height(face, frontal))
        cos, sin = np.cos(tilt), np.sin(tilt)
        face = placed(face @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]).T)
        print(
            f"# {len(points)} photos; last change {np.abs(face - before).max():.4f}; pitch {height(face, frontal):.2f}"
        )
    print(f"# furthest from the numbers there are: {np.abs(face - mean_face()).max():.3f}")
    for point in np.flatnonzero(mean_face()[:, 0] <= 0):
        x, y, z = face[point] + 0.0
        print(f"{point}: ({x:.2f}, {y:.2f}, {z:.2f}),")


if __name__ == "__main__":
    main()
