"""What can be said of a face: label columns, their vocabularies, and what a mirror does to them.

A face table has one row a face. A null is the only encoding of "not labelled", down to a single attribute or an
invisible point. Pixel centres lie at integer coordinates, (x, y) counted from 0 at the top left; boxes are
(x0, y0, x1, y1) in the same frame. Left and right are the viewer's: point 0 of five is the eye on the image's left.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from polyface.errors import PolyfaceError, nearest

POSES = ("left profile", "left", "frontal", "right", "right profile")
_ATTRIBUTES = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair
Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
Wearing_Necktie Young
"""
ATTRIBUTES: tuple[str, ...] = tuple(_ATTRIBUTES.split())
"""CelebA's 40 attributes, in its order."""

VOCABULARIES: dict[str, tuple[str, ...]] = {
    "modality": ("photo", "caricature", "sketch"),
    "pose": POSES,
    "expression": ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    "age_group": ("0-2", "3-7", "8-14", "15-22", "23-34", "35-45", "46-56", "57+"),
    "gender": ("male", "female"),
    "glasses": ("no", "yes"),
    "smile": ("no", "yes"),
    "split": ("train", "val", "test"),
}
"""The closed vocabularies, in class order: class index k of a task is the k-th word."""

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_COLUMNS: dict[str, pa.DataType] = {
    "image": IMAGE,
    "box": pa.list_(pa.float32(), 4),
    "identity": pa.string(),
    "illumination": pa.string(),
    "yaw": pa.float32(),
    "age": pa.float32(),
    "attributes": pa.list_(pa.int8(), len(ATTRIBUTES)),
    "source": pa.string(),
    "fold": pa.int32(),
} | {name: pa.string() for name in VOCABULARIES}
_LANDMARKS = re.compile(r"landmarks_([1-9]\d*)")


def landmark_count(column: str) -> int | None:
    """The number of points of a landmark column, None for any other column: `landmarks_68` → 68."""
    match = _LANDMARKS.fullmatch(column)
    return int(match.group(1)) if match else None


def column_type(name: str) -> pa.DataType:
    """The Arrow type of a column. Unknown names raise with their nearest neighbour."""
    points = landmark_count(name)
    if points:
        return pa.list_(pa.float32(), 2 * points)
    if name not in _COLUMNS:
        raise PolyfaceError(f"unknown column '{name}': {nearest(name, [*_COLUMNS, 'landmarks_5', 'landmarks_68'])}")
    return _COLUMNS[name]


def is_column(name: str) -> bool:
    """Whether the schema knows a column of this name."""
    return name in _COLUMNS or landmark_count(name) is not None


# Viewer's left first in every layout, so a mirrored face's point i is the original's point MIRROR[i].
_MIRROR: dict[int, list[int]] = {
    5: [1, 0, 2, 4, 3],
    68: [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *range(27, 31),
        *range(35, 30, -1),
        *(45, 44, 43, 42, 47, 46),
        *(39, 38, 37, 36, 41, 40),
        *range(54, 47, -1),
        *range(59, 54, -1),
        *(64, 63, 62, 61, 60),
        *(67, 66, 65),
    ],
}


def mirror_landmarks(points: int) -> np.ndarray:
    """The permutation that renames points after a mirror: `mirrored[i] = original[permutation[i]]`. Int [points]."""
    if points not in _MIRROR:
        raise PolyfaceError(
            f"no mirror map is known for {points} landmarks (known: {sorted(_MIRROR)}): "
            "add one to polyface.schema, or set augment.mirror to 0"
        )
    return np.array(_MIRROR[points])


def mirror_classes(vocabulary: Sequence[str]) -> np.ndarray | None:
    """How a mirror renames classes (class c becomes permutation[c]), or None if it does not.

    A word that says left becomes the one that says right: "left profile" ↔ "right profile". A vocabulary that lacks
    the other one raises, since a mirrored face would keep a wrong label.
    """
    sides = {"left": "right", "right": "left"}
    words = [" ".join(sides.get(part, part) for part in word.split(" ")) for word in vocabulary]
    if words == list(vocabulary):
        return None
    if lacking := [word for word in words if word not in vocabulary]:
        raise PolyfaceError(
            f"a mirrored face needs the word '{lacking[0]}', which the vocabulary {', '.join(vocabulary)} lacks: "
            "add it, or set augment.mirror to 0"
        )
    return np.array([vocabulary.index(word) for word in words])


def eyes(points: int) -> tuple[list[int], list[int]]:
    """Indices whose means are the two eye (pupil) centres, viewer's left first: the inter-ocular distance's ends.

    For 68 points the convention of the LBF / 300-W papers of 2014: means of points 36-41 and 42-47.
    """
    known = {5: ([0], [1]), 68: (list(range(36, 42)), list(range(42, 48)))}
    if points not in known:
        raise PolyfaceError(f"no eye points are known for {points} landmarks (known: {sorted(known)})")
    return known[points]


def landmark_groups(points: int) -> dict[str, list[int]]:
    """The facial parts of a landmark layout, in drawing order; closed outlines repeat their first point."""
    if points == 5:
        return {"left eye": [0], "right eye": [1], "nose": [2], "left mouth corner": [3], "right mouth corner": [4]}
    if points == 68:
        return {
            "jaw": list(range(17)),
            "left brow": list(range(17, 22)),
            "right brow": list(range(22, 27)),
            "nose bridge": list(range(27, 31)),
            "nostrils": list(range(31, 36)),
            "left eye": [*range(36, 42), 36],
            "right eye": [*range(42, 48), 42],
            "outer lips": [*range(48, 60), 48],
            "inner lips": [*range(60, 68), 60],
        }
    return {f"point {i}": [i] for i in range(points)}


def five_of_68(points: np.ndarray) -> np.ndarray:
    """The five-point layout of 68 points: [..., 68, 2] → [..., 5, 2] (eye centres, nose tip, mouth corners)."""
    left, right = eyes(68)
    ends = [points[..., left, :].mean(-2), points[..., right, :].mean(-2)]
    return np.stack([*ends, points[..., 30, :], points[..., 48, :], points[..., 54, :]], axis=-2)
