"""Boxes to crop by: from the table, from landmarks, from a detector, with what is missing named or counted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from polyface.data.boxes import BoxSpec, boxes_of, doubts
from polyface.data.crops import CropSpec, transform
from polyface.data.detector import Detection
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError

NAN = np.nan


def table(folder: Path, *labels: dict[str, object], sizes: list[tuple[int, int]] | None = None) -> FaceTable:
    """One picture for each dict; its first pixel holds its number."""
    faces = []
    for i, given in enumerate(labels):
        height, width = sizes[i] if sizes else (60, 80)
        picture = np.zeros((height, width, 3), np.uint8)
        picture[0, 0] = i
        faces.append(Record(picture, f"row {i}", f"{i}.png", given))
    write_table(faces, folder / "t.parquet")
    return FaceTable.open(folder / "t.parquet")


class Known:
    """A detector that finds what it was told, by the picture's first pixel."""

    def __init__(self, name: str, found: dict[int, list[float]]) -> None:
        self.id, self.found, self.calls = name, found, 0

    def __call__(self, image: np.ndarray) -> list[Detection]:
        self.calls += 1
        box = self.found.get(int(image[0, 0, 0]))
        if box is None:
            return []
        points = np.full((5, 2), box[0] + 1, np.float32)
        return [Detection(np.array(box, np.float32), 0.9, points)]


def test_boxes_of_the_table(tmp_path) -> None:
    found = boxes_of(table(tmp_path, {"box": [1, 2, 30, 40]}, {"box": [5, 6, 7, 8]}), BoxSpec(source="table"))
    np.testing.assert_array_equal(found.xyxy, [[1, 2, 30, 40], [5, 6, 7, 8]])
    assert len(found.missed) == 0


def test_the_whole_image(tmp_path) -> None:
    """A square crop of the longer side, the shorter one padded: 178×218 to 224 is 20.5 pixels each side (spec 3.10)."""
    faces = table(tmp_path, {"gender": "male"}, {"gender": "male"}, sizes=[(218, 178), (50, 80)])
    found = boxes_of(faces, BoxSpec(source="image"))
    np.testing.assert_array_equal(found.xyxy, [[-0.5, -0.5, 177.5, 217.5], [-0.5, -0.5, 79.5, 49.5]])
    spec = CropSpec(size=218, channels=3, scale=1.0)
    matrix = torch.from_numpy(spec.crops(found.xyxy))
    ends = transform(matrix[:1], torch.tensor([[[0.0, 0.0], [177.0, 217.0]]]))
    torch.testing.assert_close(ends[0], torch.tensor([[20.0, 0.0], [197.0, 217.0]]), atol=1e-3, rtol=0)


def test_boxes_round_the_visible_landmarks(tmp_path) -> None:
    points = np.array([[10.0, 20], [30, 22], [20, 35], [NAN, NAN], [28, 50]])
    found = boxes_of(table(tmp_path, {"landmarks_5": points}), BoxSpec(source="landmarks"))
    np.testing.assert_array_equal(found.xyxy, [[10, 20, 30, 50]])


def test_the_named_landmarks_are_taken(tmp_path) -> None:
    both = {"landmarks_2": [[0, 0], [9, 9]], "landmarks_5": np.arange(10.0).reshape(5, 2) * 2}
    faces = table(tmp_path, both)
    assert boxes_of(faces, BoxSpec(source="landmarks", landmarks="landmarks_2")).xyxy.tolist() == [[0, 0, 9, 9]]
    assert boxes_of(faces, BoxSpec(source="landmarks", landmarks="landmarks_5")).xyxy.tolist() == [[0, 2, 16, 18]]


def test_points_in_a_line_still_make_a_box(tmp_path) -> None:
    level = np.stack([np.linspace(0, 60, 5), np.full(5, 20.0)], 1)
    found = boxes_of(table(tmp_path, {"landmarks_5": level}), BoxSpec(source="landmarks")).xyxy[0]
    assert found[2] > found[0]
    assert found[3] > found[1]
    same = boxes_of(table(tmp_path, {"landmarks_5": np.ones((5, 2))}), BoxSpec(source="landmarks")).xyxy[0]
    assert same[2] > same[0]
    assert same[3] > same[1]


@pytest.mark.parametrize(
    "source, labels",
    [
        ("table", {}),
        ("landmarks", {}),
        ("landmarks", {"landmarks_5": [[1, 2]] + [[NAN, NAN]] * 4}),
    ],
)
def test_rows_without_anything_to_crop_by_are_named(tmp_path, source, labels) -> None:
    whole = {"box": [1, 2, 30, 40], "landmarks_5": np.arange(10.0).reshape(5, 2)}
    with pytest.raises(PolyfaceError, match=r"row 1 has no (box|landmarks_5) .*1 of 2 rows.*source to detector"):
        boxes_of(table(tmp_path, whole, labels), BoxSpec(source=source))


def test_a_missed_face_gets_a_centred_box_of_the_usual_size(tmp_path) -> None:
    """Detected sides are 1/2, 3/4 and 5/8 of their pictures' shorter sides, or 1/10 of a far face's: the median of the
    five, 1/2, of the missed one's 40. (Their mean is 0.415.)"""
    sizes = [(60, 80), (80, 100), (100, 40), (64, 64), (100, 100), (90, 90)]
    faces = table(tmp_path, *[{}] * 6, sizes=sizes)
    boxes = {0: [10, 10, 40, 35], 1: [5, 5, 40, 65], 3: [0, 0, 40, 20], 4: [50, 50, 60, 58], 5: [1, 1, 10, 10]}
    found = boxes_of(faces, BoxSpec(), Known("by hand", boxes))
    assert found.missed.tolist() == [2]
    np.testing.assert_allclose(found.xyxy[:2], [[10, 10, 40, 35], [5, 5, 40, 65]])
    side = 40 / 2
    np.testing.assert_allclose(found.xyxy[2], [19.5 - side / 2, 49.5 - side / 2, 19.5 + side / 2, 49.5 + side / 2])
    assert found.points is not None
    np.testing.assert_array_equal(found.points[0], np.full((5, 2), 11))
    assert np.isnan(found.points[2]).all()


def test_detection_happens_once_for_each_table_and_detector(tmp_path) -> None:
    faces = table(tmp_path, {}, {}, {"age": 3})
    first = Known("first", {0: [10, 10, 40, 35], 2: [1, 1, 50, 50]})
    seen: list[tuple[int, int]] = []
    one = boxes_of(faces, BoxSpec(), first, lambda done, total, what: seen.append((done, total)))
    assert first.calls == 3
    assert seen == [(3, 3)]
    again = boxes_of(FaceTable.open(tmp_path / "t.parquet"), BoxSpec(), first)
    assert first.calls == 3
    np.testing.assert_array_equal(again.xyxy, one.xyxy)
    np.testing.assert_array_equal(again.missed, [1])
    np.testing.assert_array_equal(again.points, one.points)
    second = Known("second", {0: [0, 0, 9, 9]})
    boxes_of(faces, BoxSpec(), second)
    boxes_of(faces.take(np.array([2, 1, 0])), BoxSpec(), first)
    assert (first.calls, second.calls) == (6, 3)


def test_a_detector_that_finds_nothing_at_all_is_an_error(tmp_path) -> None:
    with pytest.raises(PolyfaceError, match="no face in any of 2 images"):
        boxes_of(table(tmp_path, {}, {"age": 4}), BoxSpec(), Known("blind", {}))


def test_the_annotated_points_play_no_part_in_detected_boxes(tmp_path) -> None:
    """As in the paper: where the truth lies must not leak into the crop."""
    detector = {0: [10.0, 10, 40, 35]}
    plain = boxes_of(table(tmp_path, {"age": 1}), BoxSpec(), Known("leak", detector))
    (tmp_path / "b").mkdir()
    labelled = table(tmp_path / "b", {"age": 1, "landmarks_5": np.full((5, 2), 55.0), "box": [50, 50, 60, 60]})
    np.testing.assert_array_equal(boxes_of(labelled, BoxSpec(), Known("leak", detector)).xyxy, plain.xyxy)


@pytest.mark.parametrize(
    "boxes, found, said",
    [
        ([[20, 15, 50, 45]] * 3, {0: [22, 15, 50, 45]}, None),
        ([[20, 15, 30, 31]] * 3, {0: [20, 15, 50, 46], 2: [22, 15, 50, 46]}, "x, y, width, height .*--option box=xywh"),
        ([[60, 40, 79, 59]] * 3, {0: [2, 2, 30, 30]}, "median overlap 0.00.: look at them"),
        ([[60, 40, 79, 59]] * 3, {}, None),  # no face is found: nothing to compare with
        ([[60, 40, 79, 59], [20, 15, 50, 45], None], {1: [20, 15, 50, 45]}, None),
    ],
)
def test_boxes_far_from_the_detectors_are_doubted(tmp_path, boxes, found, said) -> None:
    faces = table(tmp_path, *({"box": box, "gender": "male"} for box in boxes))
    doubt = doubts(faces, Known("k", found))
    if said is None:
        assert doubt is None
    else:
        assert re.search(said, doubt or "")
