"""Many people and many pictures: the best few are told, and one picture's error is its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from polyface.data.images import encode_png
from polyface.errors import PolyfaceError
from polyface.inference import Analyzer, draw, to_json_lines, to_parquet
from polyface.models.bundle import Bundle

Make = Callable[..., Bundle]
Pictures = Callable[..., np.ndarray]
BOX = [20.0, 15, 70, 75]


def knows(make: Make, count: int, **task: Any) -> Bundle:
    """A model of `count` people or words whose k-th has the logit −|k − 7|: 7, then 6 and 8, then 5 and 9, …"""
    names = [f"person_{number:06}" for number in range(count)]
    asked = {"kind": "identity", "people": names} if not task else task | {"vocabulary": names}
    bundle = make({"who": asked})
    with torch.no_grad():
        bundle.network.heads["who"].weight.zero_()
        bundle.network.heads["who"].bias.copy_(-(torch.arange(count) - 7.0).abs())
    return bundle


@pytest.mark.parametrize("task", [{}, {"kind": "classification", "column": "identity"}])
def test_of_many_people_or_words_the_best_few_are_told(
    make: Make, picture: Pictures, tmp_path: Path, task: dict[str, Any]
) -> None:
    bundle = knows(make, 20_000, **task)
    results = Analyzer(bundle)(picture(), BOX)
    (face,) = results[0].faces
    best = [f"person_{number:06}" for number in (7, 6, 8, 5, 9)]
    assert list(face.probabilities["who"]) == best
    # softmax of -|k - 7|: 1, e^-1 twice, ... over k from -7 to infinity
    total = 1 + sum(np.exp(-k) for k in range(1, 8)) + sum(np.exp(-k) for k in range(1, 60))
    assert face.probabilities["who"][best[2]] == pytest.approx(np.exp(-1) / total, rel=1e-5)
    assert face.labels["who"] == (best[0], face.probabilities["who"][best[0]])
    assert face.best_of == {"who": 20_000}
    assert len(to_json_lines(results)) < 1000
    to_parquet(results, tmp_path / "few.parquet")
    assert (tmp_path / "few.parquet").stat().st_size < 10_000
    assert [row["name"] for row in pq.read_table(tmp_path / "few.parquet")["who_probabilities"][0].as_py()] == best
    draw(picture(), results[0])

    every = Analyzer(bundle, top=None)(picture(), BOX)
    assert len(every[0].faces[0].probabilities["who"]) == 20_000
    assert sum(every[0].faces[0].probabilities["who"].values()) == pytest.approx(1, abs=1e-4)
    to_parquet(every, tmp_path / "all.parquet")
    table = pq.read_table(tmp_path / "all.parquet")
    assert table.schema == pq.read_table(tmp_path / "few.parquet").schema
    assert len(table["who_probabilities"][0].as_py()) == 20_000
    (one,) = Analyzer(bundle, top=1)(picture(), BOX)[0].faces
    assert list(one.probabilities["who"]) == best[:1]
    with pytest.raises(PolyfaceError, match="top is 0: give at least 1, or None for all"):
        Analyzer(bundle, top=0)


def test_a_few_words_are_all_told_in_their_order_and_a_few_people_best_first(make: Make, picture: Pictures) -> None:
    words = knows(make, 40, kind="classification", column="identity")
    (face,) = Analyzer(words)(picture(), BOX)[0].faces
    assert list(face.probabilities["who"]) == [f"person_{number:06}" for number in range(40)]
    assert face.best_of == {}
    (face,) = Analyzer(knows(make, 3))(picture(), BOX)[0].faces
    assert list(face.probabilities["who"]) == ["person_000002", "person_000001", "person_000000"]
    assert face.best_of == {"who": 3}


# ------------------------------------------------------------------------------------------------- one picture's error


class Failing:
    """A detector that fails on pictures 64 pixels wide, and finds boxes that lead nowhere on those of 65."""

    id = "failing"

    def __init__(self, told: Any, error: Exception) -> None:
        self.told, self.error = told, error

    def __call__(self, image: np.ndarray) -> list[Any]:
        if image.shape[1] == 64:
            raise self.error
        boxes = [BOX, [0.0, 0, 1e6, 1e6]] if image.shape[1] == 65 else [BOX]
        return list(self.told(*boxes)(image))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("bad allocation\nat 0x0"), PolyfaceError("no\nface")])
def test_whatever_goes_wrong_with_a_picture_the_others_are_answered(
    make: Make, told: Any, picture: Pictures, tmp_path: Path, error: Exception
) -> None:
    for number, width in enumerate((100, 64, 65, 101, 102)):
        (tmp_path / f"{number}.png").write_bytes(encode_png(picture(width, 90)))
    (tmp_path / "3.png").write_bytes(b"not a picture")
    analyzer = Analyzer(make(), detector=Failing(told, error), batch=2)
    results = analyzer(tmp_path)
    assert [len(result.faces) for result in results] == [1, 0, 0, 0, 1]
    assert [bool(result.error) for result in results] == [False, True, True, True, False]
    lines = [json.loads(line) for line in to_json_lines(results).splitlines()]
    assert [Path(line["path"]).name for line in lines] == [f"{number}.png" for number in range(5)]
    for line, said in zip(lines[1:4], ("", "far larger than its", "is not an image"), strict=True):
        assert said in line["error"]
        assert "\n" not in line["error"]
    with pytest.raises(type(error)):
        analyzer(tmp_path / "1.png")


def test_a_forward_that_fails_is_one_line(make: Make, told: Any, picture: Pictures) -> None:
    analyzer = Analyzer(make(), detector=told(BOX))

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory\nof the device")

    analyzer._models[0].network.register_forward_hook(fail)
    with pytest.raises(
        PolyfaceError, match=r"^toy: failed on 3 faces at once \(out of memory\); give a smaller batch$"
    ):
        analyzer([picture()] * 3)


def test_large_photos_do_not_wait_for_a_whole_batch(
    make: Make, told: Any, picture: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the pixels of three photos at once, the fourth is not read before the first is answered."""
    read: list[int] = []

    def photos() -> Iterator[np.ndarray]:
        for number in range(9):
            read.append(number)
            yield picture(100, 100)

    monkeypatch.setattr("polyface.inference.analyzer._HELD_BACK", 25_000)
    next(Analyzer(make(), detector=told(BOX)).stream(photos()))
    assert len(read) == 3


@pytest.mark.slow
def test_a_close_up_of_88_megapixels_is_answered(make: Make, told: Any) -> None:
    photo = np.full((9818, 9000, 3), 128, np.uint8)
    (result,) = Analyzer(make(), detector=told([500, 300, 8600, 9600]))(photo)
    assert result.error is None
    assert len(result.faces) == 1
