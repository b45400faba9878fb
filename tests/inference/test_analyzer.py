"""The analyzer: right places, right order, every kind of input, bounded work, errors that name the image."""

from __future__ import annotations

import io
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyface.data.boxes import BoxSpec
from polyface.data.crops import cut
from polyface.data.images import encode_png
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.inference import Analyzer, FaceResult, ImageResult
from polyface.models.bundle import Bundle
from polyface.models.predict import answers

Make = Callable[..., Bundle]
Pictures = Callable[..., np.ndarray]
BOXES = np.array([[20, 15, 70, 75], [40.5, 10.25, 100, 80], [-8, -5, 30, 40]], np.float32)


def same(one: ImageResult, other: ImageResult, points: float = 1e-3) -> None:
    """Equal but for the last bits that a matrix product's batch size may change."""
    assert (one.width, one.height, one.error, len(one.faces)) == (other.width, other.height, None, len(other.faces))
    for a, b in zip(one.faces, other.faces, strict=True):
        assert np.array_equal(a.box, b.box)
        assert a.score == b.score
        assert a.points.keys() == b.points.keys()
        for task in a.points:
            np.testing.assert_allclose(a.points[task], b.points[task], atol=points)
        for task in a.probabilities:
            assert a.probabilities[task] == pytest.approx(b.probabilities[task], abs=1e-5)


# --------------------------------------------------------------------------------------------------- right places


def constant(make: Make, points: np.ndarray, **crop: Any) -> Bundle:
    """A model that answers the same points of its crop (in input pixels) whatever it sees."""
    bundle = make(name="constant", **crop)
    head = bundle.network.heads["landmarks"]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.from_numpy((points.ravel() + 0.5) / bundle.crop.size).float())
    return bundle


@given(
    corner=st.tuples(st.floats(-30, 110), st.floats(-30, 80)),
    extent=st.tuples(st.floats(5, 120), st.floats(5, 120)),
    scale=st.floats(0.8, 2.0),
    shift=st.floats(-0.2, 0.2),
)
@settings(max_examples=25)
def test_points_land_where_the_crop_says(
    make: Make,
    picture: Pictures,
    corner: tuple[float, float],
    extent: tuple[float, float],
    scale: float,
    shift: float,
) -> None:
    inside = np.array([[0, 0], [39, 39], [19.5, 19.5], [10, 30], [-0.5, 39.5]])
    box = np.float32([*corner, corner[0] + extent[0], corner[1] + extent[1]])
    (result,) = Analyzer(constant(make, inside, scale=scale, shift_y=shift))(picture(), box)
    side = float(max(box[2:] - box[:2]))
    centre = (box[:2] + box[2:]).astype(float) / 2 + [0, shift * side]
    # The crop is a square of `scale` sides about the centre; 40 input pixels span it from edge to edge.
    expected = centre + (inside + 0.5 - 20) / 40 * scale * side
    np.testing.assert_allclose(result.faces[0].points["landmarks"], expected, atol=5e-3)


def test_points_of_several_boxes_by_hand(make: Make, picture: Pictures) -> None:
    inside = np.array([[19.5, 19.5], [-0.5, -0.5], [39.5, 39.5], [29.5, 9.5], [19.5, 39.5]])
    bundle = constant(make, inside, scale=2.0)
    (result,) = Analyzer(bundle)(picture(), np.float32([[20, 30, 60, 50], [0, 0, 10, 10]]))
    by_hand = [
        [[40, 40], [0, 0], [80, 80], [60, 20], [40, 80]],  # a square of 80 about (40, 40)
        [[5, 5], [-5, -5], [15, 15], [10, 0], [5, 15]],  # a square of 20 about (5, 5)
    ]
    for face, expected in zip(result.faces, by_hand, strict=True):
        np.testing.assert_allclose(face.points["landmarks"], expected, atol=1e-4)


def test_averaging_shifts_points_there_and_back(make: Make, picture: Pictures) -> None:
    # Points fixed in the crop move with the crop; over all translations they average out but for the spiral's mean.
    inside = np.full((5, 2), 19.5)
    bundle = constant(make, inside)
    (plain,) = Analyzer(bundle)(picture(), BOXES)
    (averaged,) = Analyzer(bundle, average=20, spread=0.02)(picture(), BOXES)
    for a, b in zip(plain.faces, averaged.faces, strict=True):
        side = 1.3 * max(a.box[2:] - a.box[:2])
        assert np.abs(a.points["landmarks"] - b.points["landmarks"]).max() < 0.02 * side


def test_averaging_without_spread_is_plain(five: Bundle, picture: Pictures) -> None:
    (plain,) = Analyzer(five)(picture(), BOXES)
    (averaged,) = Analyzer(five, average=20, spread=0)(picture(), BOXES)
    same(plain, averaged)


def test_equals_the_network_by_hand(five: Bundle, picture: Pictures) -> None:
    image = picture()
    (result,) = Analyzer(five)(image, BOXES)
    cuts = torch.from_numpy(np.stack([cut(image, box, five.crop) for box in BOXES]))
    crops = torch.from_numpy(five.crop.crops(BOXES))
    expected = answers(five.network.eval(), five.tasks, cuts, crops, five.crop)
    for i, face in enumerate(result.faces):
        assert np.array_equal(face.points["landmarks"], expected["landmarks"]["points"][i])
        for task in ("pose", "smile"):
            chances = expected[task]["probabilities"][i]
            assert face.labels[task] == (expected[task]["label"][i], float(chances.max()))
            assert list(face.probabilities[task].values()) == [float(c) for c in chances]
            assert max(face.probabilities[task], key=face.probabilities[task].__getitem__) == face.labels[task][0]
            assert sum(face.probabilities[task].values()) == pytest.approx(1, abs=1e-5)


def test_turned_photo_is_analysed_as_displayed(five: Bundle, picture: Pictures, tmp_path: Path) -> None:
    upright = picture(120, 90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "turned.png", exif=exif)
    analyzer = Analyzer(five)
    (expected,) = analyzer(upright, BOXES)
    (from_file,) = analyzer(tmp_path / "turned.png", BOXES)
    assert (from_file.width, from_file.height) == (120, 90)
    same(from_file, expected)
    with Image.open(tmp_path / "turned.png") as image:
        (from_pil,) = analyzer(image, BOXES)
    same(from_pil, expected)


# --------------------------------------------------------------------------------------------- batches and models


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_many_images_equal_one_by_one(five: Bundle, picture: Pictures, told: Any, batch: int) -> None:
    images = [picture(100 + 10 * i, 90, seed=i) for i in range(5)]
    detector = told([20, 15, 70, 75], [5, 5, 45, 50], none_at_width=120)
    together = Analyzer(five, detector=detector, batch=batch)(images)
    assert [len(result.faces) for result in together] == [2, 2, 0, 2, 2]
    assert [result.width for result in together] == [100, 110, 120, 130, 140]
    for image, result in zip(images, together, strict=True):
        (alone,) = Analyzer(five, detector=detector)(image)
        same(result, alone)


def test_one_forward_for_all_faces_of_a_chunk(five: Bundle, picture: Pictures, told: Any) -> None:
    analyzer = Analyzer(five, detector=told([20, 15, 70, 75], [5, 5, 45, 50]), batch=64)
    sizes: list[int] = []
    analyzer._models[0].network.register_forward_hook(lambda module, given, output: sizes.append(len(given[0])))
    analyzer([picture(seed=i) for i in range(5)])
    assert sizes == [10]


def test_averaging_keeps_to_the_batch(five: Bundle, picture: Pictures) -> None:
    analyzer = Analyzer(five, batch=64, average=20)
    sizes: list[int] = []
    analyzer._models[0].network.register_forward_hook(lambda module, given, output: sizes.append(len(given[0])))
    analyzer(picture(), np.tile(BOXES, (3, 1)))
    assert sizes == [60, 60, 60]


def test_models_answer_together_each_in_its_own_crop(five: Bundle, sixty_eight: Bundle, picture: Pictures) -> None:
    image = picture()
    both = Analyzer(five, sixty_eight)
    assert list(both.tasks) == ["landmarks_5", "pose", "smile", "landmarks_68"]
    (together,) = both(image, BOXES)
    (first,), (second,) = Analyzer(five)(image, BOXES), Analyzer(sixty_eight)(image, BOXES)
    for face, a, b in zip(together.faces, first.faces, second.faces, strict=True):
        assert np.array_equal(face.points["landmarks_5"], a.points["landmarks"])
        assert np.array_equal(face.points["landmarks_68"], b.points["landmarks"])
        assert face.points["landmarks_68"].shape == (68, 2)
        assert face.labels == a.labels


def test_models_of_the_same_labels_answer_under_their_names(make: Make, picture: Pictures) -> None:
    analyzer = Analyzer(make(name="a"), make(name="b", seed=5))
    assert set(analyzer.tasks) == {f"{m}/{t}" for m in "ab" for t in ("landmarks", "pose", "smile")}
    with pytest.raises(PolyfaceError, match="give each model once"):
        Analyzer(make(name="a"), make(name="a"))


def test_a_task_that_others_share_takes_no_name_that_is_taken(make: Make) -> None:
    """Both answer "points"; the first's label column, landmarks_5, is what the second calls a task of its own."""
    first = make({"points": {"kind": "landmarks", "points": 5}}, name="a")
    second = make(
        {
            "points": {"kind": "landmarks", "points": 68},
            "landmarks_5": {"kind": "classification", "column": "smile"},
        },
        name="b",
    )
    for models in ((first, second), (second, first)):
        found = Analyzer(*models).tasks
        assert {name: task.column for name, task in found.items()} == {
            "a/points": "landmarks_5",
            "landmarks_68": "landmarks_68",
            "landmarks_5": "smile",
        }


def test_a_given_bundle_is_left_as_it_is(five: Bundle, picture: Pictures) -> None:
    five.network.train()
    analyzer = Analyzer(five)
    (before,) = analyzer(picture(), BOXES)
    with torch.no_grad():
        five.network.heads["landmarks"].bias.add_(1)
    (after,) = analyzer(picture(), BOXES)
    assert five.network.training
    same(before, after, points=0)


@pytest.mark.timeout(120)
def test_ten_thousand_boxes(five: Bundle, picture: Pictures) -> None:
    image = picture(320, 240)
    corners = np.random.default_rng(0).uniform(0, 200, (10_000, 2))
    boxes = np.concatenate([corners, corners + 40], axis=1).astype(np.float32)
    analyzer = Analyzer(five)
    analyzer(image, boxes[:64])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    (result,) = analyzer(image, boxes)
    assert time.monotonic() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB
    assert len(result.faces) == 10_000
    for index in (0, 63, 64, 9_999):
        (alone,) = analyzer(image, boxes[index])
        np.testing.assert_allclose(
            result.faces[index].points["landmarks"], alone.faces[0].points["landmarks"], atol=1e-3
        )


def test_results_come_before_all_images_are_read(five: Bundle, picture: Pictures, told: Any) -> None:
    read = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal read
        while True:
            read += 1
            yield picture()

    results = Analyzer(five, detector=told([20, 15, 70, 75]), batch=8).stream(endless())
    assert len(next(results).faces) == 1
    assert read <= 9
    nobody = Analyzer(five, detector=told(), batch=8).stream(endless())
    assert next(nobody).faces == ()
    assert read <= 12


def test_progress_is_told(five: Bundle, picture: Pictures, told: Any) -> None:
    calls: list[tuple[int, int, str]] = []
    Analyzer(five, detector=told())([picture()] * 3, progress=lambda *call: calls.append(call))
    assert [(done, total) for done, total, _ in calls] == [(1, 3), (2, 3), (3, 3)]


# --------------------------------------------------------------------------------------------------------- inputs


def test_every_kind_of_input_gives_the_same(five: Bundle, picture: Pictures, tmp_path: Path) -> None:
    image = picture()
    path = tmp_path / "photo.png"
    path.write_bytes(encode_png(image))
    analyzer = Analyzer(five)
    (expected,) = analyzer(image, BOXES)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    for given_image in (path, str(path), Image.fromarray(image), tensor):
        (result,) = analyzer(given_image, BOXES)
        same(result, expected, points=0)
    assert analyzer(path, BOXES)[0].path == str(path)
    assert expected.path is None
    for several in ([image, path], (x for x in [image, tensor]), np.stack([image] * 2), torch.stack([tensor] * 2)):
        results = analyzer(several, [BOXES, BOXES[:1]])
        same(results[0], expected)
        assert [len(result.faces) for result in results] == [3, 1]


def test_encoded_pictures_in_memory_are_pictures(five: Bundle, picture: Pictures, tmp_path: Path) -> None:
    """What a web form, a database or a row of a face table holds; one alone, and among others."""
    data, path = encode_png(picture()), tmp_path / "photo.png"
    path.write_bytes(data)
    write_table([Record(picture(), "row 0", "0.png", {})], tmp_path / "faces.parquet")
    rows = pq.read_table(tmp_path / "faces.parquet")
    row = rows.to_pylist()[0]
    analyzer = Analyzer(five)
    (expected,) = analyzer(path, BOXES)
    with path.open("rb") as file:
        (from_file,) = analyzer(file, BOXES)
    same(from_file, expected, points=0)
    assert from_file.path == str(path)
    for given_image, name in (
        (data, None),
        (bytearray(data), None),
        (memoryview(data), None),
        (io.BytesIO(data), None),
        ({"bytes": data, "path": "0.png"}, "0.png"),
        ({"bytes": data, "path": None}, None),
        ({"bytes": None, "path": str(path)}, str(path)),
        (row, "0.png"),
        (row["image"], "0.png"),
        (rows.column("image")[0], "0.png"),
        ({"image": Image.fromarray(picture()), "smile": 1}, None),  # as Hugging Face datasets decode it
    ):
        (alone,) = analyzer(given_image, BOXES)
        same(alone, expected, points=0)
        assert alone.path == name
        if hasattr(given_image, "seek"):
            given_image.seek(0)
        among = analyzer([path, given_image], [BOXES, BOXES])
        same(among[1], expected)
    assert [result.path for result in analyzer(rows.column("image"), [BOXES])] == ["0.png"]


@pytest.mark.parametrize(
    "image, what",
    [
        (b"", "is empty"),
        (b"not a picture", "is not an image"),
        (io.BytesIO(b"not a picture"), "is not an image"),
        (io.StringIO("text"), "was opened as text; open it in binary mode"),
        ({"a": 1}, "is a dict without bytes and path; give a path"),
        ({"bytes": None, "path": ""}, "is a dict without bytes and path"),
        ({"image": {"bytes": b"not a picture", "path": None}}, "is not an image"),
    ],
)
def test_encoded_things_that_are_no_pictures_are_refused(five: Bundle, image: Any, what: str) -> None:
    for given_image, where in ((image, "image: "), ([image], "image 0: ")):
        if hasattr(image, "seek"):
            image.seek(0)
        with pytest.raises(PolyfaceError, match=what) as caught:
            Analyzer(five)(given_image)
        assert str(caught.value).startswith(where)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "I;16"])
def test_pil_modes_equal_their_files(five: Bundle, picture: Pictures, tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture())
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    path = tmp_path / "photo.tif"
    image.save(path)
    analyzer = Analyzer(five)
    (from_memory,), (from_file,) = analyzer(image, BOXES), analyzer(path, BOXES)
    same(from_memory, from_file, points=0)
    assert len(from_file.faces) == 3


def test_grey_arrays_are_pictures(five: Bundle, picture: Pictures) -> None:
    grey = picture()[..., 0]
    analyzer = Analyzer(five)
    (expected,) = analyzer(np.repeat(grey[..., None], 3, axis=2), BOXES)
    for image in (grey, grey[..., None], torch.from_numpy(grey.copy()), torch.from_numpy(grey.copy())[None]):
        (result,) = analyzer(image, BOXES)
        same(result, expected, points=0)


@pytest.mark.parametrize(
    "image, found",
    [
        (np.zeros((8, 8, 3)), "float64"),
        (np.zeros((8, 8, 4), np.uint8), "[8, 8, 4]"),
        (np.zeros((0, 8, 3), np.uint8), "[0, 8, 3]"),
        (torch.zeros(3, 8, 8), "float32"),
        (torch.zeros(8, 9, 3, dtype=torch.uint8), "[8, 9, 3]"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(five: Bundle, image: Any, found: str) -> None:
    for given_image, where in ((image, "image"), ([image], "image 0")):
        with pytest.raises(PolyfaceError, match="expected a uint8") as caught:
            Analyzer(five)(given_image)
        assert found in str(caught.value)
        assert str(caught.value).startswith(where)


def test_other_things_are_refused(five: Bundle) -> None:
    for thing in (3, None, [3], [None]):
        with pytest.raises(PolyfaceError, match="give a path"):
            Analyzer(five)(thing)


def test_no_image_gives_no_result(five: Bundle) -> None:
    assert Analyzer(five)([]) == []


# ---------------------------------------------------------------------------------------------- folders and errors


def test_folder_goes_on_past_an_unreadable_image(five: Bundle, picture: Pictures, told: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(picture()))
    (tmp_path / "b.jpg").write_bytes(b"not a picture")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.PNG").write_bytes(encode_png(picture(80, 80)))
    (tmp_path / "notes.txt").write_text("left alone")
    analyzer = Analyzer(five, detector=told([20, 15, 70, 75]))
    results = analyzer(tmp_path)
    assert [Path(r.path or "").name for r in results] == ["a.png", "b.jpg", "c.PNG"]
    assert [len(r.faces) for r in results] == [1, 0, 1]
    assert results[0].error is None
    assert "b.jpg" in str(results[1].error)
    listed = analyzer([tmp_path / "b.jpg", tmp_path / "sub"])
    assert [bool(r.error) for r in listed] == [True, False]


def test_a_single_unreadable_image_is_an_error(five: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    with pytest.raises(PolyfaceError, match="broken.jpg"):
        Analyzer(five)(broken)
    with pytest.raises(PolyfaceError, match="absent.jpg"):
        Analyzer(five)(tmp_path / "absent.jpg")


def test_truncated_pil_image_is_an_error(five: Bundle, picture: Pictures, tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(picture(400, 300)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with Image.open(path) as image, pytest.raises(PolyfaceError, match="cut.jpg"):
        Analyzer(five)(image)


def test_folder_without_images_is_an_error(five: Bundle, tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match="holds no image"):
        Analyzer(five)(tmp_path)


def test_no_face(five: Bundle) -> None:
    (result,) = Analyzer(five)(np.full((120, 160, 3), 128, np.uint8))  # the real detector
    assert result.faces == ()
    assert (result.width, result.height, result.error) == (160, 120, None)


@pytest.mark.parametrize(
    "source, what", [("landmarks", "boxes around landmarks"), ("image", "whole pictures of faces that are aligned")]
)
def test_models_trained_on_other_boxes_warn_once(
    make: Make, picture: Pictures, told: Any, source: str, what: str
) -> None:
    bundle = make()
    bundle.boxes = BoxSpec.model_validate({"source": source})
    analyzer = Analyzer(bundle, detector=told([20, 15, 70, 75]))
    with pytest.warns(UserWarning, match=f"toy: trained on {what}"):
        analyzer(picture())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analyzer(picture())
        Analyzer(bundle)(picture(), BOXES)


# ---------------------------------------------------------------------------------------------------- one's own boxes


def test_own_boxes_need_no_detector(five: Bundle, picture: Pictures, told: Any) -> None:
    detector = told([0, 0, 9, 9])
    (result,) = Analyzer(five, detector=detector)(picture(), BOXES)
    assert detector.calls == 0
    assert [face.score for face in result.faces] == [None] * 3
    assert np.array_equal(np.stack([face.box for face in result.faces]), BOXES)


def test_no_boxes_mean_no_faces_and_none_means_detect(five: Bundle, picture: Pictures, told: Any) -> None:
    analyzer = Analyzer(five, detector=told([20, 15, 70, 75]))
    images = [picture(), picture(), picture(), picture()]
    results = analyzer(images, [np.zeros((0, 4)), None, [], [1, 2, 30, 40]])
    assert [len(result.faces) for result in results] == [0, 1, 0, 1]
    assert [[face.score for face in result.faces] for result in results] == [[], [0.9], [], [None]]


def test_box_column_of_a_table(five: Bundle, picture: Pictures, told: Any, tmp_path: Path) -> None:
    records = [
        Record(picture(seed=i), f"row {i}", f"{i}.png", {"box": None if i == 1 else [10 + i, 10, 60, 70]})
        for i in range(3)
    ]
    write_table(records, tmp_path / "faces.parquet")
    table = FaceTable.open(tmp_path / "faces.parquet")
    assert pa.types.is_fixed_size_list(table.column("box").type)
    analyzer = Analyzer(five, detector=told([5, 5, 50, 50]))
    for boxes in (table.column("box"), table.numbers("box"), table.labels.column("box")):
        results = analyzer([table.image(i) for i in range(3)], boxes)
        assert [result.faces[0].box[0] for result in results] == [10, 5, 12]


@pytest.mark.parametrize(
    "boxes, message",
    [
        ([[10, 10, 5, 20]], "box 0 is .* expected finite x0 < x1"),
        ([[1, 1, 5, 20], [1, 1, np.nan, 20]], "box 1"),
        ([[1, 2, 3]], r"shape \[1, 3\]"),
        ([["a", "b", "c", "d"]], "not numbers"),
        ([[0, 0, 1e5, 1e5]], "far larger"),
    ],
)
def test_boxes_that_do_not_fit_are_named(five: Bundle, picture: Pictures, boxes: Any, message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        Analyzer(five)([picture(), picture()], [BOXES, boxes])
    assert str(caught.value).startswith("image 1: ")


def test_boxes_and_images_must_pair(five: Bundle, picture: Pictures) -> None:
    with pytest.raises(PolyfaceError, match="more images than boxes"):
        Analyzer(five)([picture(), picture()], [BOXES])
    with pytest.raises(PolyfaceError, match="more boxes than images"):
        Analyzer(five)([picture()], [BOXES, BOXES])


# ------------------------------------------------------------------------------------------------------- settings


def test_settings_are_checked(five: Bundle) -> None:
    for wrong in ({"batch": 0}, {"average": 0}, {"spread": -1}):
        with pytest.raises(PolyfaceError, match="give at least"):
            Analyzer(five, **wrong)
    with pytest.raises(PolyfaceError, match="device 'abacus'"):
        Analyzer(five, device="abacus")


def test_folders_and_bundles_are_models(five: Bundle, saved: Path, picture: Pictures) -> None:
    (expected,) = Analyzer(five)(picture(), BOXES)
    for model in (saved, str(saved)):
        same(Analyzer(model)(picture(), BOXES)[0], expected, points=0)


def test_results_are_frozen(five: Bundle, picture: Pictures) -> None:
    (result,) = Analyzer(five)(picture(), BOXES)
    with pytest.raises(AttributeError):
        result.width = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        result.faces[0].box = BOXES[0]  # type: ignore[misc]
    assert isinstance(result.faces[0], FaceResult)
