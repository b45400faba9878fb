"""Draws the picture of docs/explain.md, docs/images/weights.png: which dimensions the heads of a shipped model read.

python tools/draw_weights.py
"""

from pathlib import Path

import polyface
from polyface.explain.energy import common_heads
from polyface.models import find
from polyface.report.energy import weights_figure

MODEL = "face5"


def main() -> None:
    heads = common_heads(polyface.load(find(MODEL)).network)
    picture = Path(__file__).parents[1] / "docs" / "images" / "weights.png"
    picture.write_bytes(weights_figure(heads, heads.energies()).image)


if __name__ == "__main__":
    main()
