"""The photos of the demonstration: twelve people of the Face Research Lab London Set, neutral and smiling."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

FACES = Path(__file__).parent / "faces"
CREDIT = (
    "Faces: Face Research Lab London Set, Lisa DeBruine and Benedict Jones (2017), CC BY 4.0, "
    "doi.org/10.6084/m9.figshare.5047666; reduced, with answers drawn on them."
)


@dataclass(frozen=True)
class Person:
    """One person of the set: number, gender as the set gives it, and two photos."""

    name: str
    gender: str
    neutral: Path
    smiling: Path


def people() -> list[Person]:
    """Everybody whose photos come with the package."""
    with (FACES / "people.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    places = [(row, FACES / row["person"]) for row in rows]
    return [Person(row["person"], row["gender"], at / "neutral.jpg", at / "smiling.jpg") for row, at in places]


def portrait() -> Path:
    """The photo of Grace Hopper that matplotlib ships."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
