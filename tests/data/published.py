"""Made-up data sets in the layout that their authors publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

CARICATURES, PHOTOS, FOLDS, TESTED = 2, 3, 10, 6
PEOPLE = [f"Person {number:02d}" for number in range(2 * FOLDS)]
"""Two in each fold of View 2; fold X of the identification tests the six from the X-th two on."""


def webcaricature(root: Path, picture: Callable[[str, str], bytes]) -> Path:
    """WebCaricature with all lists of its protocols, of people with two caricatures and three photos each. picture: of
    a person's name and an image's."""
    lists: dict[str, list[str]] = {}
    for name in PEOPLE:
        for image in (*_images("C"), *_images("P")):
            _put(root / "OriginalImages" / name / f"{image}.jpg", picture(name, image))
    verification = "EvaluationProtocols/FaceVerification"
    twos = [PEOPLE[place : place + 2] for place in range(0, len(PEOPLE), 2)]
    for ending, folds in {"View2": twos, "View1_DevTrain": twos[:1], "View1_DevTest": twos[1:2]}.items():
        lists[f"{verification}/UnRestricted/UnRestricted{ending}"] = [line for fold in folds for line in _counted(fold)]
        lists[f"{verification}/Restricted/Restricted{ending}"] = [line for fold in folds for line in _pairs(*fold)]
    for number in range(1, FOLDS + 1):
        _identification(lists, str(number), 2 * (number - 1))
    _identification(lists, "_dev", 8)
    for name, lines in lists.items():
        _put(root / f"{name}.txt", "\r\n".join(lines).encode())
    return root


def _images(letter: str) -> list[str]:
    return [f"{letter}{number:05d}" for number in range(1, (CARICATURES if letter == "C" else PHOTOS) + 1)]


def _person(name: str) -> str:
    return f"{name}\t{CARICATURES}\t{PHOTOS}"


def _counted(people: list[str]) -> list[str]:
    return [str(len(people)), *map(_person, people)]


def _pairs(one: str, other: str) -> Iterator[str]:
    """Every caricature of a fold with every photo of it: as many match as do not."""
    yield str(2 * CARICATURES * PHOTOS)
    every = [(caricature, photo) for caricature in _images("C") for photo in _images("P")]
    yield from (f"{name}\t{caricature}\t{photo}" for name in (one, other) for caricature, photo in every)
    for a, b in ((one, other), (other, one)):
        yield from (f"{a}\t{caricature}\t{b}\t{photo}" for caricature, photo in every)


def _identification(lists: dict[str, list[str]], fold: str, first: int) -> None:
    folder = "EvaluationProtocols/FaceIdentification"
    tested = [PEOPLE[place % len(PEOPLE)] for place in range(first, first + TESTED)]
    lists[f"{folder}/FR_Train{fold}"] = [_person(name) for name in PEOPLE if name not in tested]
    for sought, searched in ("CP", "PC"):
        way = f"{folder}/{sought}2{searched}"
        lists[f"{way}/FR_Gallery_{sought}2{searched}{fold}"] = [f"{name}\t{searched}00001" for name in tested]
        lists[f"{way}/FR_Probe_{sought}2{searched}{fold}"] = [
            f"{name}\t{image}" for name in tested for image in _images(sought)
        ]


def _put(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
