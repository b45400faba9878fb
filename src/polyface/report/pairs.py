"""Pairs of faces that a network has wrong, one over the other."""

from __future__ import annotations

from polyface.data.table import FaceTable
from polyface.explain.mistakes import Wrong, WrongPair, apart
from polyface.report.faces import Picture, contact_sheet
from polyface.report.page import Section, faces_section


def mistakes_section(title: str, wrong: Wrong, table: FaceTable, count: int = 12) -> Section:
    """The most confident wrong pairs of faces of a table (Ming et al. 2021, Fig. 8). No face is shown twice."""
    people = table.words("identity")

    def shown(pair: WrongPair) -> tuple[Picture, str]:
        rows = pair.first, pair.second
        names = " / ".join(dict.fromkeys(str(people[row]).replace("_", " ") for row in rows))
        return contact_sheet([table.image(row) for row in rows], columns=1, cell=240), f"{names}: {pair.distance:.2f}"

    text = (
        "Two faces over each other, with their squared distance, the clearest mistakes first. False positives are "
        "different people who were taken for one, false negatives one person who was taken for two."
    )
    groups = {kind: list(apart(found))[:count] for kind, found in wrong.items()}
    return faces_section(title, {kind.capitalize(): list(map(shown, pairs)) for kind, pairs in groups.items()}, text)
