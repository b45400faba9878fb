"""The draws of LFW-gender and LFW-identity: together, so that neither trains on faces that the other tests.

Both are drawn ten times. The 50 people of LFW-identity are never among the test people of LFW-gender, and
LFW-identity's test faces of a draw are in no part of LFW-gender's same draw. So a network that one of them has trained
has seen no test face of the other.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from polyface.data.readers.common import hash_order, held_out

DRAWS = 10
PEOPLE, IMAGES = 50, 20
_EACH = 2905  # faces of each gender
_TESTED = 5  # a fifth of them


def most_pictured(paths: Iterable[str]) -> list[str]:
    """The first 20 images of each of the 50 people with the most, in OpenFace's order: most images first, and by name
    where two have as many; of a person by the images' names. paths: <name>/<image>, all of LFW's."""
    of: dict[str, list[str]] = {}
    for path in sorted(paths):
        of.setdefault(person(path), []).append(path)
    people = sorted(of, key=lambda name: (-len(of[name]), name))[:PEOPLE]
    return [path for name in people for path in of[name][:IMAGES]]


def identity_parts(chosen: Sequence[str], draw: int) -> dict[str, str]:
    """The part of each of the `most_pictured` faces in a draw: a tenth is test, by scikit-learn's ``ShuffleSplit`` of
    seed 0, as in OpenFace's experiment; of the others, the tenth whose paths have the smallest SHA-1 is val."""
    generator = np.random.RandomState(0)  # whose numbers NumPy keeps the same for ever
    order = [generator.permutation(len(chosen)) for _ in range(draw + 1)][draw]
    tested = {chosen[place] for place in order[: len(chosen) // 10]}
    rest = [path for path in chosen if path not in tested]
    return dict.fromkeys(rest, "train") | dict.fromkeys(held_out(rest), "val") | dict.fromkeys(tested, "test")


def balanced(genders: Mapping[str, str]) -> dict[str, str]:
    """As many faces of each gender, 2,905 or what there are: those whose paths have the smallest SHA-1. genders: by
    path."""
    each = min(_EACH, *Counter(genders.values()).values())
    kinds = {kind: [path for path in genders if genders[path] == kind] for kind in sorted(set(genders.values()))}
    return {path: kind for kind, paths in kinds.items() for path in sorted(paths, key=hash_order)[:each]}


def gender_parts(faces: Mapping[str, str], chosen: Sequence[str], draw: int) -> dict[str, str]:
    """The part of each of the `balanced` faces in a draw, but for the test faces of LFW-identity, which are in none.

    Test is whole people, in an order that the draw shuffles, until it has a fifth of each gender; val, of the people
    that are left, those whose names have the smallest SHA-1, until they have a tenth of the faces.
    """
    tested_there = {path for path, part in identity_parts(chosen, draw).items() if part == "test"}
    known = {person(path) for path in chosen}
    left = {kind: count // _TESTED for kind, count in Counter(faces.values()).items()}
    of: dict[str, Counter[str]] = {}
    for path, kind in faces.items():
        of.setdefault(person(path), Counter())[kind] += 1
    tested = set()
    for name in sorted(of, key=lambda name: hash_order(f"{draw} {name}")):
        if name not in known and all(count <= left[kind] for kind, count in of[name].items()):
            tested.add(name)
            left = {kind: count - of[name][kind] for kind, count in left.items()}
    sizes = {name: count.total() for name, count in of.items() if name not in tested}
    validated = held_out(sizes)
    return {
        path: "test" if (name := person(path)) in tested else "val" if name in validated else "train"
        for path in faces
        if path not in tested_there
    }


def digest(paths: Iterable[str]) -> str:
    """The SHA-1 of a list of paths, in the order of their names: what tells one list from another."""
    return hashlib.sha1("\n".join(sorted(paths)).encode()).hexdigest()


def person(path: str) -> str:
    """Whose image it is."""
    return path.partition("/")[0]
