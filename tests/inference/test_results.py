"""What was found, written down: JSON lines, Parquet, pictures; and imports that stay light."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import polyface
from polyface.errors import PolyfaceError
from polyface.inference import Analyzer, FaceResult, ImageResult, draw, to_json_lines, to_parquet
from polyface.models.bundle import Bundle

Pictures = Callable[..., np.ndarray]


def face(x: float = 20.0, score: float | None = 0.875) -> FaceResult:
    return FaceResult(
        np.float32([x, 10, x + 40, 60]),
        score,
        {"landmarks": np.float32([[x + 1.234, 2], [3, 4], [5, 6], [7, 8], [9, 10]])},
        {"smile": ("yes", 0.75)},
        {"smile": {"no": 0.25, "yes": 0.75}},
    )


RESULTS = [
    ImageResult("a.jpg", 120, 90, (face(), face(50, None))),
    ImageResult("b.jpg", 64, 48),
    ImageResult("c.jpg", 0, 0, error="c.jpg: is empty (0 bytes)"),
    ImageResult(None, 120, 90, (face(0),)),
]


# ------------------------------------------------------------------------------------------------------ JSON lines


def test_json_lines() -> None:
    lines = to_json_lines(RESULTS).splitlines()
    first, second, third, fourth = map(json.loads, lines)
    assert first["path"] == "a.jpg"
    assert (first["width"], first["height"]) == (120, 90)
    assert "error" not in first
    assert first["faces"][0] == {
        "box": [20, 10, 60, 60],
        "score": 0.875,
        "points": {"landmarks": [[21.23, 2], [3, 4], [5, 6], [7, 8], [9, 10]]},
        "labels": {"smile": {"label": "yes", "probability": 0.75}},
        "probabilities": {"smile": {"no": 0.25, "yes": 0.75}},
    }
    assert first["faces"][1]["score"] is None
    assert second["faces"] == []
    assert third["error"] == "c.jpg: is empty (0 bytes)"
    assert fourth["path"] is None


def test_json_of_nothing_is_nothing() -> None:
    assert to_json_lines([]) == ""


def test_json_survives_odd_values_and_names() -> None:
    odd = FaceResult(np.float32([np.nan, 0, 1, np.inf]), 0.5, other={"age": {"value": np.float32(31.5), "n": 3}})
    (line,) = to_json_lines([ImageResult("a\udcff\n.jpg", 1, 1, (odd,))]).splitlines()
    line.encode("utf-8")
    read = json.loads(line)
    assert read["path"] == "a\\udcff\n.jpg"
    assert read["faces"][0]["box"] == [None, 0, 1, None]
    assert read["faces"][0]["other"] == {"age": {"value": 31.5, "n": 3}}


def test_numbers_of_further_kinds_are_in_tables_and_parquet(tmp_path: Path) -> None:
    odd = FaceResult(np.float32([0, 0, 1, 1]), 0.5, other={"age": {"value": np.float32(31.5), "n": 3, "word": "x"}})
    result = ImageResult("a.jpg", 1, 1, (odd,))
    assert odd.numbers == {"age": 31.5, "age_n": 3}
    assert result.table()[0][">age"] == "31.5"
    to_parquet([result], tmp_path / "faces.parquet")
    (row,) = pq.read_table(tmp_path / "faces.parquet").to_pylist()
    assert (row["age"], row["age_n"]) == (31.5, 3)


def test_what_json_tells_can_be_read_again() -> None:
    odd = FaceResult(
        np.float32([np.nan, 0.1, 1, 2]),
        None,
        {"landmarks": np.float32([[1 / 3, np.nan], [3, 4]])},
        {"who": ("ann", 2 / 3)},
        {"who": {"ann": 2 / 3, "bob": 0.1}},
        {"attributes": ("Bald", "Chubby")},
        {"attributes": {"Bald": 0.9, "Chubby": 0.8}},
        {"age": {"value": 31.25, "word": "x"}},
        {"who": 20_000},
    )
    for result in (*RESULTS, ImageResult("odd.jpg", 1, 1, (odd,))):
        for exact in (False, True):
            told = json.loads(json.dumps(result.to_dict(exact)))
            assert ImageResult.from_dict(told).to_dict(exact) == told
        again = ImageResult.from_dict(json.loads(json.dumps(result.to_dict(exact=True))))
        assert (again.path, again.width, again.height, again.error) == (
            *(result.path, result.width, result.height, result.error),
        )
        for one, other in zip(result.faces, again.faces, strict=True):
            assert np.array_equal(one.box, other.box, equal_nan=True)
            for task in one.points:
                assert np.array_equal(one.points[task], other.points[task], equal_nan=True)
            for name in ("score", "labels", "probabilities", "attributes", "scores", "other", "best_of"):
                assert getattr(one, name) == getattr(other, name)


def test_table_for_people() -> None:
    first, second = RESULTS[0].table()
    assert first == {">face": "1", ">score": "0.88", "box": "20, 10 – 60, 60", "smile": "yes (75 %)"}
    assert second[">score"] == ""
    assert RESULTS[1].table() == []


# --------------------------------------------------------------------------------------------------------- Parquet


def test_parquet_has_a_row_a_face(tmp_path: Path) -> None:
    assert to_parquet(iter(RESULTS), tmp_path / "faces.parquet") == 3
    table = pq.read_table(tmp_path / "faces.parquet")
    assert table.column_names == [
        *("path", "width", "height", "face", "box", "score", "landmarks"),
        *("smile", "smile_probability", "smile_probabilities"),
    ]
    rows = table.to_pylist()
    assert [(row["path"], row["face"], row["score"]) for row in rows] == [
        ("a.jpg", 0, 0.875),
        ("a.jpg", 1, None),
        (None, 0, 0.875),
    ]
    assert rows[1]["box"] == [50, 10, 90, 60]
    assert np.array_equal(rows[0]["landmarks"], RESULTS[0].faces[0].points["landmarks"].ravel())
    assert rows[0]["smile"] == "yes"
    assert rows[0]["smile_probabilities"] == {"no": 0.25, "yes": 0.75}


def test_the_best_of_many_are_a_list_of_names_and_numbers(tmp_path: Path) -> None:
    best = {"zoe": 0.5, "ann": 0.25}
    known = FaceResult(
        np.float32([0, 0, 1, 1]),
        0.5,
        labels={"who": ("zoe", 0.5)},
        probabilities={"who": best},
        attributes={"tags": ("hat",)},
        scores={"tags": {"hat": 0.75, "scarf": 0.5}},
        best_of={"who": 20_000, "tags": 500},
    )
    other = FaceResult(
        known.box, 0.5, {}, {"who": ("bob", 1.0)}, {"who": {"bob": 1.0}}, {"tags": ()}, {"tags": {}}, {}, known.best_of
    )
    to_parquet([ImageResult("a.jpg", 1, 1, (known, other))], tmp_path / "faces.parquet")
    one, two = pq.read_table(tmp_path / "faces.parquet").to_pylist()
    assert (one["who"], one["who_probability"], one["tags"]) == ("zoe", 0.5, ["hat"])
    assert one["who_probabilities"] == [{"name": "zoe", "probability": 0.5}, {"name": "ann", "probability": 0.25}]
    assert one["tags_scores"] == [{"name": "hat", "score": 0.75}, {"name": "scarf", "score": 0.5}]
    assert (two["who_probabilities"], two["tags_scores"]) == ([{"name": "bob", "probability": 1.0}], [])


def test_parquet_of_no_face_can_be_read(tmp_path: Path) -> None:
    assert to_parquet(RESULTS[1:3], tmp_path / "faces.parquet") == 0
    table = pq.read_table(tmp_path / "faces.parquet")
    assert (len(table), table.column_names[0]) == (0, "path")


def test_parquet_of_more_than_a_row_group(tmp_path: Path) -> None:
    crowd = ImageResult("crowd.jpg", 9, 9, (face(),) * 9000)
    assert to_parquet([crowd], tmp_path / "faces.parquet") == 9000
    assert pq.read_table(tmp_path / "faces.parquet").column("face").to_pylist() == list(range(9000))


def test_parquet_is_whole_or_absent(tmp_path: Path) -> None:
    def failing() -> Any:
        yield RESULTS[0]
        raise PolyfaceError("stopped")

    (tmp_path / "faces.parquet").write_bytes(b"the earlier file")
    with pytest.raises(PolyfaceError, match="not made by Polyface"):
        to_parquet(RESULTS, tmp_path / "faces.parquet")
    with pytest.raises(PolyfaceError, match="stopped"):
        to_parquet(failing(), tmp_path / "faces.parquet", overwrite=True)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("faces.parquet", b"the earlier file")]
    for _ in range(2):  # the second time it is Polyface's own
        assert to_parquet(RESULTS, tmp_path / "faces.parquet", overwrite=True) == 3
    assert to_parquet(RESULTS[:1], tmp_path / "faces.parquet") == 2
    with pytest.raises(PolyfaceError, match="is a folder"):
        to_parquet(RESULTS, tmp_path)


def test_an_analysis_can_be_written(five: Bundle, sixty_eight: Bundle, picture: Pictures, tmp_path: Path) -> None:
    results = Analyzer(five, sixty_eight)([picture()], [[[20, 15, 70, 75]]])
    read = json.loads(to_json_lines(results))
    assert len(read["faces"][0]["points"]["landmarks_68"]) == 68
    to_parquet(results, tmp_path / "faces.parquet")
    (row,) = pq.read_table(tmp_path / "faces.parquet").to_pylist()
    assert len(row["landmarks_68"]) == 136
    assert row["pose"] in row["pose_probabilities"]


# -------------------------------------------------------------------------------------------------------- pictures


def changed(picture: Image.Image, image: np.ndarray) -> np.ndarray:
    """Where the drawing differs: (ys, xs)."""
    return np.abs(np.asarray(picture).astype(int) - image).max(-1) > 30


def test_drawing_marks_the_points(picture: Pictures) -> None:
    image = picture(300, 200)
    points = np.float32([[60, 60], [100, 60], [80, 80], [65, 100], [95, 100]])
    result = ImageResult(None, 300, 200, (FaceResult(np.float32([40, 30, 120, 120]), 0.9, {"landmarks": points}),))
    before = image.copy()
    found = draw(image, result)
    assert found.size == (300, 200)
    assert np.array_equal(image, before)
    marked = changed(found, image)
    for x, y in points.astype(int):
        assert marked[y, x]
    ys, xs = np.nonzero(marked)
    assert xs.min() >= 35
    assert xs.max() <= 125
    assert ys.min() >= 25
    assert ys.max() <= 125


def test_drawing_nothing_is_the_picture(picture: Pictures) -> None:
    image = picture()
    assert np.array_equal(np.asarray(draw(image, ImageResult(None, 120, 90))), image)


def test_drawing_words_can_be_left_out(picture: Pictures) -> None:
    image = picture(300, 200)
    result = ImageResult(None, 300, 200, (face(),))
    with_words, without = changed(draw(image, result), image), changed(draw(image, result, labels=False), image)
    assert with_words.sum() > without.sum()
    assert not without[65:].any()
    assert with_words[62:85].any()


def test_faces_at_and_beyond_the_edge_are_drawn(picture: Pictures) -> None:
    faces = tuple(
        FaceResult(np.float32(box), 0.5) for box in ([-30, -30, 20, 20], [100, 70, 160, 140], [500, 0, 600, 90])
    )
    found = draw(picture(), ImageResult(None, 120, 90, faces))
    marked = changed(found, picture())
    assert marked[:21, :21].any()
    assert marked[70:, 100:].any()
    assert not marked[30:60, 30:90].any()


# --------------------------------------------------------------------------------------------------------- imports


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_package_itself_is_light() -> None:
    assert not loaded("import polyface") & {"torch", "numpy", "PIL", "pyarrow", "onnxruntime"}
    assert "torch" not in loaded("import polyface; polyface.__version__; dir(polyface)")
    assert "torch" not in loaded("from polyface.models import models; models()")


def test_inference_loads_no_training_library(saved: Path) -> None:
    code = (
        "import numpy as np, polyface\n"
        "from polyface.inference import *\n"
        f"polyface.analyze(np.zeros((50, 50, 3), np.uint8), [5, 5, 40, 40], models={str(saved)!r})"
    )
    assert not loaded(code) & {"lightning", "pytorch_lightning", "torchmetrics", "timm", "cv2", "matplotlib"}


def test_names_of_the_package() -> None:
    assert callable(polyface.analyze)
    assert callable(polyface.load)
    assert polyface.Analyzer is Analyzer
    assert isinstance(polyface.__version__, str)
    assert {"analyze", "load", "__version__"} <= set(dir(polyface))
    with pytest.raises(AttributeError, match="analyse"):
        polyface.analyse  # noqa: B018
    with pytest.raises(AttributeError, match="Analyser"):
        polyface.inference.Analyser  # noqa: B018
