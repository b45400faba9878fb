"""Draws the picture of the README, docs/images/faces.jpg: what the shipped models answer about four people.

python tools/draw_faces.py
"""

from pathlib import Path

from PIL import Image

import polyface
from polyface.demo.photos import people
from polyface.inference import draw

CHOSEN = ("094", "042", "013", "105")
SIDE, WIDE, HIGH = 600, 400, 540  # pixels: of a photo, enlarged so that points are drawn finely, and of what is shown


def main() -> None:
    photos = {person.name: person.smiling for person in people()}
    sheet = Image.new("RGB", (WIDE * len(CHOSEN), HIGH), "white")
    for place, name in enumerate(CHOSEN):
        photo = Image.open(photos[name]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        (found,) = polyface.analyze(photo)
        left, top = (SIDE - WIDE) // 2, 60
        sheet.paste(draw(photo, found).crop((left, top, left + WIDE, top + HIGH)), (place * WIDE, 0))
    sheet.save(Path(__file__).parents[1] / "docs" / "images" / "faces.jpg", quality=80)


if __name__ == "__main__":
    main()
