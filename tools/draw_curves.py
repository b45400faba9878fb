"""Draws curves of a paper's page, of the runs that are finished, into docs/images.

    python tools/draw_curves.py progressive:small --data DIR --out runs [--only "How soon*"]

Every plot of the page is a file there, called after the recipe, its size and the ASCII words of the section:
progressive-small-how-soon-age-is-learnt.png.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase
from pathlib import Path

from polyface.metrics.sections import Curves
from polyface.papers import paper
from polyface.report.plots import plot
from polyface.reproduce import Runs
from polyface.training.recipe import load, slug

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("recipe")
    asked.add_argument("--data", type=Path, required=True, help="the data sets that were trained on")
    asked.add_argument("--out", type=Path, required=True, help="the folder of the recipe's runs")
    asked.add_argument("--only", default="*", help="only sections whose title matches")
    given = asked.parse_args()
    recipe = load(given.recipe)
    for section in paper(recipe.name).sections(Runs(recipe, given.data, given.out)):
        if not fnmatchcase(section.title, given.only):
            continue
        plots = [block for block in section.blocks if isinstance(block, Curves)]
        for number, block in enumerate(plots, 1):
            which = f"-{number}" if len(plots) > 1 else ""
            title = " ".join(word for word in section.title.split() if word.isascii())
            file = IMAGES / f"{recipe.place}-{slug(title).lower()}{which}.png"
            file.write_bytes(plot(block))
            print(file.name)


if __name__ == "__main__":
    main()
