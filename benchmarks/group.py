"""How many faces of a group photo the detector finds, by their width, and what looking for small ones costs.

    python benchmarks/group.py --data DIR [--out FILE] [--quick]

DIR holds london/ (faces in a studio) and lfw/ (news photos). A group photo is a mosaic of 4000×3000 pixels: photos of a
set side by side, reduced so that the faces they are about have the width told. A face is found where a box overlaps by
40 % (intersection over union) with where the detector finds it on the photo itself; a box that overlaps so with nothing
that it finds there is no face. The peer is a search of the whole picture at 640 pixels. Both take turns on one thread;
the cost is the median of the pairs. --quick tries every part and writes nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polyface.data.detector import Detection, RetinaFace, face_of
from polyface.data.images import decode
from polyface.metrics.result import Row
from polyface.report.results import write_results
from speed import turns

SIZE = 4000, 3000
SETS = {"london": "studio", "lfw": "news"}
WIDTHS = (24, 40, 56, 83)
OVERLAP = 0.4
MOST = 400  # photos of a set
Floats = NDArray[np.float64]


@dataclass
class Photo:
    """A photo, and the boxes [N, 4] of its faces; that of whom it is about comes first."""

    image: Image.Image
    boxes: Floats

    def shrunk(self, width: int) -> Photo:
        """The same with the first face so many pixels wide."""
        scale = width / (self.boxes[0, 2] - self.boxes[0, 0])
        size = round(self.image.width * scale), round(self.image.height * scale)
        return Photo(self.image.resize(size, Image.Resampling.BICUBIC), (self.boxes + 0.5) * scale - 0.5)


def photos(folder: Path) -> list[Photo]:
    """Up to `MOST` photos of a set, spread over it, of those in which the detector finds a face."""
    detector, found, paths = RetinaFace(threads=1), [], sorted(folder.rglob("*.jpg"))
    for path in paths[:: -(-len(paths) // MOST)]:
        image = Image.fromarray(decode(path.read_bytes()))
        faces = detector(np.asarray(image))
        if subject := face_of(faces, *image.size):
            faces.sort(key=lambda face: face is not subject)
            found.append(Photo(image, np.array([face.box for face in faces], dtype=float)))
    return found


def mosaic(known: list[Photo], width: int) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """A picture [H, W, 3] with as many faces of a width as it holds, their boxes [N, 4], and those of all faces."""
    small = [photo.shrunk(width) for photo in known]
    side = max(max(photo.image.size) for photo in small)
    canvas, boxes, all_boxes = Image.new("RGB", SIZE, (128, 128, 128)), [], []
    for number, (row, column) in enumerate(np.ndindex(SIZE[1] // side, SIZE[0] // side)):
        photo, corner = small[number % len(small)], (column * side, row * side)
        canvas.paste(photo.image, corner)
        boxes.append(photo.boxes[0] + np.tile(corner, 2))
        all_boxes.append(photo.boxes + np.tile(corner, 2))
    return np.asarray(canvas), np.array(boxes), np.concatenate(all_boxes)


def overlaps(found: list[Detection], boxes: Floats) -> Floats:
    """Intersection over union of what was found with each face, [found, N]."""
    own = np.array([face.box for face in found], dtype=float).reshape(-1, 4)
    low, high = np.maximum(own[:, None, :2], boxes[:, :2]), np.minimum(own[:, None, 2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (own, boxes)]
    found_over: Floats = shared / (areas[0][:, None] + areas[1] - shared)
    return found_over


def measure(name: str, picture: NDArray[np.uint8], boxes: Floats, all_boxes: Floats, rounds: int) -> list[Row]:
    detectors = {"": RetinaFace(threads=1), " at 640": RetinaFace(threads=1, max_side=640)}
    rows = []
    for label, detector in detectors.items():
        found = detector(picture)
        recall = 100 * float((overlaps(found, boxes) >= OVERLAP).any(axis=0).mean())
        wrong = int((overlaps(found, all_boxes) < OVERLAP).all(axis=1).sum())
        rows += [
            Row(name, f"recall{label}", recall, unit="%", n=len(boxes)),
            Row(name, f"no face{label}", float(wrong), unit="boxes", n=len(boxes)),
        ]
    if not rounds:
        return rows
    own, peer = turns(rounds, *(partial(detector, picture) for detector in detectors.values()), warm=1)
    rows.append(Row(name, "cost", float(np.median(own / peer)), unit="×", n=len(boxes)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with london/ and lfw/")
    parser.add_argument("--out", type=Path, default=Path("docs/results/group.json"))
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is written")
    given = parser.parse_args()
    rounds, rows = 2 if given.quick else 5, []
    for folder, name in SETS.items():
        known = photos(given.data / folder)
        for width in WIDTHS[-1:] if given.quick else WIDTHS:
            row = f"{name}, 4000×3000, faces {width} pixels wide"
            rows += measure(row, *mosaic(known, width), rounds if folder == "london" else 0)
        if folder == "london":
            image, boxes = known[0].image, known[0].boxes
            rows += measure(
                f"{name}, {image.width}×{image.height}, one face", np.asarray(image), boxes, boxes, 5 * rounds
            )
    for row in rows:
        print(f"{row.row:44} {row.metric:14} {row.mean:8.4g} {row.unit}")
    if not given.quick:
        command = "python benchmarks/group.py --data DIR"
        write_results(given.out, rows, command=command, data="Face Research Lab London Set, LFW; 1 thread")
        print(f"written: {given.out}")


if __name__ == "__main__":
    main()
