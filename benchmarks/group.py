"""How many faces of a group photo the detector finds, by their width, and what looking for small ones costs.

    python benchmarks/group.py --data DIR [--out FILE] [--quick]

DIR holds london/. A group photo is a mosaic of 4000×3000 pixels: photos of the set, reduced so that their faces have
the width told, side by side. A face is found where a box overlaps by 40 % (intersection over union) with where the
detector finds it on the photo itself, at its own size. The peer, as before large pictures were searched at their own
size: the whole picture at 640 pixels. Both take turns on one thread; the cost is the median of the pairs. --quick tries
every part and writes nothing.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polyface.data.detector import Detection, RetinaFace
from polyface.data.images import decode
from polyface.metrics.result import Row
from polyface.report.results import write_results
from speed import turns

SIZE = 4000, 3000
WIDTHS = (24, 40, 56, 83)
OVERLAP = 0.4
Floats = NDArray[np.float64]


def photos(folder: Path) -> list[tuple[Image.Image, Floats]]:
    """The photos of the set, each with the box [4] of its face."""
    detector, found = RetinaFace(threads=1), []
    for path in sorted(folder.rglob("*.jpg")):
        pixels = decode(path.read_bytes())
        (face, *_) = detector(pixels)
        found.append((Image.fromarray(pixels), face.box.astype(float)))
    return found


def mosaic(known: list[tuple[Image.Image, Floats]], width: int) -> tuple[NDArray[np.uint8], Floats]:
    """A picture [H, W, 3] with as many faces of a width as it holds, and their boxes [N, 4]."""
    side = max(round(image.width * width / (box[2] - box[0])) for image, box in known)
    canvas, boxes = Image.new("RGB", SIZE, (128, 128, 128)), []
    for number, (row, column) in enumerate(np.ndindex(SIZE[1] // side, SIZE[0] // side)):
        image, box = known[number % len(known)]
        scale = width / (box[2] - box[0])
        small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        corner = column * side, row * side
        canvas.paste(small, corner)
        boxes.append((box + 0.5) * scale - 0.5 + np.tile(corner, 2))
    return np.asarray(canvas), np.array(boxes)


def overlaps(found: list[Detection], boxes: Floats) -> Floats:
    """Intersection over union of what was found with each face, [found, N]."""
    own = np.array([face.box for face in found], dtype=float).reshape(-1, 4)
    low, high = np.maximum(own[:, None, :2], boxes[:, :2]), np.minimum(own[:, None, 2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (own, boxes)]
    found_over: Floats = shared / (areas[0][:, None] + areas[1] - shared)
    return found_over


def measure(picture: NDArray[np.uint8], boxes: Floats, name: str, rounds: int) -> list[Row]:
    detectors = {"": RetinaFace(threads=1), " at 640": RetinaFace(threads=1, max_side=640)}
    rows = []
    for label, detector in detectors.items():
        hits = overlaps(detector(picture), boxes) >= OVERLAP
        recall, wrong = 100 * float(hits.any(axis=0).mean()), int((~hits.any(axis=1)).sum())
        rows += [
            Row(name, f"recall{label}", recall, unit="%", n=len(boxes)),
            Row(name, f"no face{label}", float(wrong), unit="boxes", n=len(boxes)),
        ]
    own, peer = turns(rounds, *(partial(detector, picture) for detector in detectors.values()), warm=1)
    rows.append(Row(name, "time", 1e3 * float(np.median(own)), unit="ms", n=len(boxes)))
    rows.append(Row(name, "cost", float(np.median(own / peer)), unit="×", n=len(boxes)))
    print(*(f"{row.metric} {row.mean:.4g} {row.unit}" for row in rows), sep=" · ", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with london/")
    parser.add_argument("--out", type=Path, default=Path("docs/results/group.json"))
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is written")
    given = parser.parse_args()
    known, rounds = photos(given.data / "london"), 2 if given.quick else 7
    rows: list[Row] = []
    for width in WIDTHS[-1:] if given.quick else WIDTHS:
        rows += measure(*mosaic(known, width), f"4000×3000, faces {width} pixels wide", rounds)
    image, box = known[0]
    rows += measure(np.asarray(image), box[None], f"{image.width}×{image.height}, one face", 5 * rounds)
    if not given.quick:
        command = "python benchmarks/group.py --data DIR"
        write_results(given.out, rows, command=command, data="Face Research Lab London Set, 1 thread")
        print(f"written: {given.out}")


if __name__ == "__main__":
    main()
