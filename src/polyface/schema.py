"""What can be said of a face: label columns, their vocabularies, and what a mirror does to them.

The columns here have a fixed meaning. A table may declare more of its own in the same form (`Column`), and give a
column of words here another vocabulary; `FaceTable.declared` tells what holds for a table.

A face table has one row a face. A null is the only encoding of "not labelled", down to a single attribute or an
invisible point. Pixel centres lie at integer coordinates, (x, y) counted from 0 at the top left; boxes are
(x0, y0, x1, y1) in the same frame. Left and right are the viewer's: point 0 of five is the eye on the image's left.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from polyface.errors import PolyfaceError, nearest, utf8

POSES = ("left profile", "left", "frontal", "right", "right profile")
POSE_FROM = (-45, -15, 15, 45)
"""Degrees of yaw at which the second to fifth of `POSES` begins, where they are told from a yaw."""
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
OWN_TYPES = ("number", "words", "points", "distribution")
"""Types that a table's own columns may have."""


@dataclass(frozen=True)
class Column:
    """What a label column holds.

    type: "number"; "words", one of `vocabulary` in class order, or any word where that is empty; "points", so many of
    them, x and y in pixels; "distribution", soft labels: a share for each word of `vocabulary`, together 1. Of columns
    with a fixed meaning also "whole" (a whole number), "box" and "attributes".

    mirror: the label of a mirrored face. "negate": minus the number. "none": the same. Indices: `mirrored[i] =
    label[mirror[i]]` of points and shares, and class c becomes class `mirror[c]`. "" (the default): words that say left
    and right change places (`mirror_classes`), numbers stay, and points cannot be mirrored.

    unit: what a number counts, for those who read it.
    """

    type: str
    vocabulary: tuple[str, ...] = ()
    points: int = 0
    mirror: str | tuple[int, ...] = ""
    unit: str = ""

    @property
    def arrow(self) -> pa.DataType:
        """The type of its column in a table."""
        if self.type == "points":
            return pa.list_(pa.float32(), 2 * self.points)
        if self.type == "distribution":
            return pa.list_(pa.float32(), len(self.vocabulary))
        return _ARROW[self.type]

    def class_order(self) -> np.ndarray | None:
        """How a mirror renames the classes of its vocabulary (class c becomes order[c]); None if it does not."""
        if isinstance(self.mirror, tuple):
            return np.array(self.mirror)
        return None if self.mirror == "none" else mirror_classes(self.vocabulary)

    def settings(self) -> dict[str, Any]:
        """What `read_column` reads: the settings that are not the default."""
        settings = {"type": self.type, "vocabulary": list(self.vocabulary), "points": self.points, "unit": self.unit}
        mirror = self.mirror if isinstance(self.mirror, str) else list(self.mirror)
        return {key: value for key, value in (settings | {"mirror": mirror}).items() if value}

    def to_json(self) -> str:
        return json.dumps(self.settings(), sort_keys=True, ensure_ascii=False)

    def __str__(self) -> str:
        about = f"{self.points} points" if self.points else self.type + (f" in {self.unit}" if self.unit else "")
        if self.vocabulary:
            about += f" ({', '.join(self.vocabulary)})"
        elif self.type == "words":
            about += " (any)"
        try:
            order = self.class_order() if self.vocabulary else None
        except PolyfaceError:
            return f"{about}; cannot be mirrored"
        if order is not None:
            swaps = [f"{self.vocabulary[i]} ↔ {self.vocabulary[j]}" for i, j in enumerate(order) if i < j]
            about += f"; a mirror swaps {', '.join(swaps)}"
        return about + ("; a mirror negates it" if self.mirror == "negate" else "")


_ARROW: dict[str, pa.DataType] = {
    "number": pa.float32(),
    "words": pa.string(),
    "whole": pa.int32(),
    "box": pa.list_(pa.float32(), 4),
    "attributes": pa.list_(pa.int8(), len(ATTRIBUTES)),
}
_BUILT_IN: dict[str, Column] = {
    "box": Column("box"),
    "identity": Column("words"),
    "illumination": Column("words"),
    "yaw": Column("number", mirror="negate", unit="degrees"),
    "pitch": Column("number", mirror="none", unit="degrees"),
    "roll": Column("number", mirror="negate", unit="degrees"),
    "age": Column("number", unit="years"),
    "attributes": Column("attributes", mirror="none"),
    "source": Column("words"),
    "fold": Column("whole"),
} | {name: Column("words", words) for name, words in VOCABULARIES.items()}
_LANDMARKS = re.compile(r"landmarks_([1-9]\d*)")


def landmark_count(column: str) -> int | None:
    """The number of points of a landmark column, None for any other column: `landmarks_68` → 68."""
    match = _LANDMARKS.fullmatch(column)
    return int(match.group(1)) if match else None


def built_in(name: str, own: Iterable[str] = ()) -> Column:
    """What a column with a fixed meaning holds. own: other names to suggest.

    Raises:
        PolyfaceError: an unknown name, with its nearest neighbour.
    """
    if points := landmark_count(name):
        return Column("points", points=points, mirror=tuple(_MIRROR.get(points, ())) or "")
    if name not in _BUILT_IN:
        raise PolyfaceError(f"unknown column '{name}': {nearest(name, {*known_columns(), *own})}")
    return _BUILT_IN[name]


def known_columns() -> list[str]:
    """The names of columns with a fixed meaning; of landmarks the two usual layouts."""
    return ["image", *_BUILT_IN, "landmarks_5", "landmarks_68"]


def column_type(name: str) -> pa.DataType:
    """The Arrow type of a column with a fixed meaning. Unknown names raise with their nearest neighbour."""
    return IMAGE if name == "image" else built_in(name).arrow


def is_column(name: str) -> bool:
    """Whether a column of this name has a fixed meaning."""
    return name == "image" or name in _BUILT_IN or landmark_count(name) is not None


def read_column(given: Any, where: str) -> Column:
    """A declaration as it is written in a table, a recipe or a command. where: what an error calls it.

    Either settings of `Column` by name, the mirror's indices also as {word: word}, or in short: "number", "words",
    "words:no,yes", "points:21", "distribution:happy,sad".

    Raises:
        PolyfaceError: unknown settings, a type that columns of one's own cannot have, or settings that do not go
            together.
    """
    if isinstance(given, str):
        kind, _, rest = given.partition(":")
        listed = [word.strip() for word in rest.split(",") if word.strip()]
        given = {"type": kind.strip()} | ({"points": rest} if kind == "points" else {"vocabulary": listed})
    if not isinstance(given, Mapping):
        raise PolyfaceError(f"{where} is {given!r}; expected a type such as number or words:no,yes")
    known = Column.__dataclass_fields__
    if unknown := [key for key in given if key not in known]:
        raise PolyfaceError(f"{where}: unknown setting '{unknown[0]}'; {nearest(str(unknown[0]), known)}")
    kind, words = str(given.get("type", "")), tuple(given.get("vocabulary") or ())
    if kind not in OWN_TYPES:
        raise PolyfaceError(f"{where}: type is '{kind}'; {nearest(kind, OWN_TYPES)}")
    if not all(isinstance(word, str) and word for word in words) or len(set(words)) < len(words):
        raise PolyfaceError(f"{where}: a vocabulary is words, each once, not {list(words)}: put yes and no in quotes")
    if kind == "distribution" and len(words) < 2:
        raise PolyfaceError(f"{where}: a distribution needs a vocabulary of two words or more")
    if words and kind not in ("words", "distribution"):
        raise PolyfaceError(f"{where}: {kind} takes no vocabulary")
    points = str(given.get("points") or 0)
    if not (points.isascii() and points.isdigit()) or (int(points) > 0) is not (kind == "points"):
        raise PolyfaceError(f"{where}: points is {points}; expected their number for type points, and nothing else")
    mirror = _read_mirror(given.get("mirror") or "", words, len(words) or int(points), kind, where)
    return Column(kind, words, int(points), mirror, str(given.get("unit") or ""))


def _read_mirror(given: Any, words: Sequence[str], size: int, kind: str, where: str) -> str | tuple[int, ...]:
    if isinstance(given, str):
        if given in ("", "none") or (given == "negate" and kind == "number"):
            return given
        raise PolyfaceError(f"{where}: mirror is '{given}'; expected none, negate (of a number) or what changes places")
    if isinstance(given, Mapping):
        swaps = {**given, **{other: word for word, other in given.items()}}
        if unknown := [word for word in swaps if word not in words]:
            raise PolyfaceError(f"{where}: mirror names '{unknown[0]}'; {nearest(str(unknown[0]), words)}")
        given = [words.index(swaps.get(word, word)) for word in words]
    places = range(size)
    indices = isinstance(given, Sequence) and all(isinstance(index, int) for index in given)
    if not indices or sorted(given) != list(places) or any(given[given[i]] != i for i in places):
        raise PolyfaceError(
            f"{where}: mirror is {given}; expected each of 0 … {size - 1} once, as pairs that change places"
        )
    return tuple(given)


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


_YEARS = re.compile(r"(\d+)(?:-(\d+)|(\+))?")


def years_of(group: str) -> tuple[int, float]:
    """The first and the last year of a group of ages, by its word: "8-14" → (8, 14), "57+" → (57, ∞), "35" → (35, 35).

    Raises:
        PolyfaceError: the word says no years, or the last comes before the first.
    """
    found = _YEARS.fullmatch(group)
    first, last = (int(found[1]), float(found[2] or found[1])) if found else (0, -1.0)
    last = math.inf if found and found[3] else last
    if last < first:
        raise PolyfaceError(f"'{group}' is no group of ages: write such as 8-14 or 57+, in whole years")
    return first, last


def age_classes(ages: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """The place among `groups` (see `years_of`) of the one that each age in years [N] falls into, int64 [N]; −1 for
    NaN, and for an age between two groups. Somebody of 14.9 years is 14."""
    found, years = np.full(np.shape(ages), -1), np.floor(ages)
    for place, (first, last) in enumerate(map(years_of, groups)):
        found[(years >= first) & (years <= last)] = place
    return found


EYES: dict[int, tuple[list[int], list[int]]] = {5: ([0], [1]), 68: (list(range(36, 42)), list(range(42, 48)))}
"""Number of points → those of each eye (see `eyes`)."""


def eyes(points: int) -> tuple[list[int], list[int]]:
    """Indices whose means are the two eye (pupil) centres, viewer's left first: the inter-ocular distance's ends.

    For 68 points the convention of the LBF / 300-W papers of 2014: means of points 36-41 and 42-47.
    """
    if points not in EYES:
        raise PolyfaceError(f"no eye points are known for {points} landmarks (known: {sorted(EYES)})")
    return EYES[points]


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


def person(name: object) -> str:
    """A person's name in the one form in which names are compared: composed (Unicode's NFC), no blanks around it.

    Raises:
        PolyfaceError: it is empty, of several lines, or no text.
    """
    found = unicodedata.normalize("NFC", utf8(name)).strip() if isinstance(name, str) else ""
    if len(found.splitlines()) != 1:
        raise PolyfaceError(f"a person's name is {name!r}: give a word or more, in one line")
    return found
