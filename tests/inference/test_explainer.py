"""Photos in, heat maps out: which faces, in which pixels, of what; and the line that answers a mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec
from polyface.errors import PolyfaceError
from polyface.explain.maps import METHODS
from polyface.explain.questions import question
from polyface.inference.analyzer import Analyzer
from polyface.inference.explainer import ExplainedFace, Explainer, FoundCrop
from polyface.models.bundle import Bundle
from polyface.networks import build
from polyface.tasks import build as task_of

BOX = [30.0, 20.0, 70.0, 60.0]


def test_the_faces_are_the_analyzers_and_so_are_the_answers(
    five: Bundle, told: Any, picture: Callable[..., Any]
) -> None:
    detector, photo = told(BOX, [5.0, 5.0, 45.0, 45.0]), picture()
    (result,) = Analyzer(five, detector=detector)(photo)
    (found,) = Explainer(five, detector=detector)(photo, tasks=["smile", "pose=left"], methods=["cam", "gradients"])
    assert [face.face.box.tolist() for face in found.faces] == [face.box.tolist() for face in result.faces]
    for face, answered in zip(found.faces, result.faces, strict=True):
        smile = f"smile: {answered.labels['smile'][0]}"
        assert list(face.maps) == [
            (asked, method) for asked in (smile, "pose: left") for method in ("cam", "gradients")
        ]
        assert face.face.picture.shape == (40, 40, 3)
        one = question(five.network, five.tasks, "pose=left")
        expected = METHODS["cam"](five.network, face.face.inputs[None], one, "")[0]
        np.testing.assert_array_equal(face.maps["pose: left", "cam"], expected.numpy())


@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_a_map_comes_back_in_the_photos_pixels(angle: float) -> None:
    """A spot at a place of the crop is at the place that the crop's matrix names, turned boxes too."""
    spec = CropSpec(size=40, scale=1.2)
    matrix = spec.crops(np.array([[*BOX, angle]], np.float32))[0]
    spot = np.array([30, 12])
    heat = np.zeros((40, 40), np.float32)
    heat[spot[1] - 1 : spot[1] + 2, spot[0] - 1 : spot[0] + 2] = 1
    face = ExplainedFace(FoundCrop(np.array(BOX, np.float32), matrix, torch.zeros(3, 40, 40)), {})
    moved = face.in_photo(heat, 120, 90)
    assert moved.shape == (90, 120)
    rows, columns = np.indices(moved.shape)
    centre = np.array([(moved * columns).sum(), (moved * rows).sum()]) / moved.sum()
    np.testing.assert_allclose(matrix[:, :2] @ centre + matrix[:, 2], spot, atol=0.1)
    assert (moved[:10] == 0).all()  # outside the crop


def embedder() -> Bundle:
    torch.manual_seed(0)
    heads: dict[str, Any] = {}
    config = {"trunk": {"name": "tcdcn"}, "heads": heads, "embeddings": {"who": {"reads": ["trunk"]}}}
    return Bundle(build(config), {}, CropSpec(size=40, channels=1), BoxSpec(), {"name": "who"})


def test_a_match_of_two_photos(told: Any, picture: Callable[..., Any]) -> None:
    explainer = Explainer(embedder(), detector=told(BOX))
    first, second = picture(), picture(seed=1)
    (found,) = explainer(first, methods=["cam", "gradients"], like=second)
    maps = found.faces[0].maps
    assert list(maps) == [("who: similarity", "cam"), ("who: similarity", "gradients")]
    (same,) = explainer(first, methods=["gradients"], like=first)
    assert maps["who: similarity", "gradients"].max() > 100 * same.faces[0].maps["who: similarity", "gradients"].max()
    with pytest.raises(PolyfaceError, match="'who' is an embedding, which two faces are compared by: give another"):
        next(explainer(first))
    crowd = Explainer(embedder(), detector=told(BOX, BOX))
    with pytest.raises(PolyfaceError, match="shows 2 faces; give a photo of one"):
        next(crowd(first, like=second))


def test_another_photo_is_for_what_compares_faces(five: Bundle, told: Any, picture: Callable[..., Any]) -> None:
    alone = embedder()
    config = {**alone.network.config, "heads": {"smile": {"reads": ["trunk"], "outputs": 2}}}
    tasks = {"smile": task_of("smile", {"kind": "classification", "column": "smile"})}
    both = Explainer(Bundle(build(config), tasks, alone.crop, alone.boxes, {"name": "both"}), detector=told(BOX))
    first, second = picture(), picture(seed=1)
    (found,) = both(first, methods=["gradients"], like=second)
    assert [what for what, _ in found.faces[0].maps] == ["who: similarity"]
    (found,) = both(first, methods=["gradients"], like=second, tasks=["smile", "who"])
    assert [what.partition(":")[0] for what, _ in found.faces[0].maps] == ["smile", "who"]
    with pytest.raises(PolyfaceError, match="none of smile compares faces: leave --like out, or ask who"):
        next(both(first, like=second, tasks=["smile"]))
    with pytest.raises(PolyfaceError, match="no embedding to compare faces by: leave the other photo"):
        next(Explainer(five, detector=told(BOX))(first, like=second))


def test_a_photo_that_cannot_be_read_stops_none_of_a_folder(
    five: Bundle, told: Any, picture: Callable[..., Any], tmp_path: Path
) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    Image.fromarray(picture(width=77)).save(tmp_path / "c.png")
    explainer = Explainer(five, detector=told(BOX, none_at_width=77))
    found = list(explainer(tmp_path, tasks=["smile"]))
    assert [len(photo.faces) for photo in found] == [1, 0, 0]
    assert [photo.error is None for photo in found] == [True, False, True]
    with pytest.raises(PolyfaceError, match=r"b\.png"):
        list(explainer(tmp_path / "b.png", tasks=["smile"]))


@pytest.mark.parametrize(
    "options, line",
    [
        ({"tasks": ["smil"]}, "task names 'smil'; did you mean 'smile'"),
        ({"methods": ["cams"]}, "methods names 'cams'; did you mean 'cam'"),
        ({"layer": "trunk.conv9"}, "layer names 'trunk.conv9'; did you mean"),
    ],
)
def test_a_mistake_is_told_before_any_photo_is_read(five: Bundle, options: dict[str, Any], line: str) -> None:
    with pytest.raises(PolyfaceError, match=line):
        next(Explainer(five)("there-is-no-such-photo.jpg", **options))


def test_one_s_own_boxes(five: Bundle, picture: Callable[..., Any]) -> None:
    (found,) = Explainer(five)(picture(), np.array([BOX]), tasks=["smile"])
    assert found.faces[0].face.box.tolist() == BOX


def test_the_check_is_over_all_faces_of_all_photos(five: Bundle, told: Any, picture: Callable[..., Any]) -> None:
    explainer = Explainer(five, detector=told(BOX, BOX))
    found = explainer.checked([picture(), picture(seed=1)], tasks=["smile"], methods=["cam"], draws=1)
    assert {key: one.shape for key, one in found.items()} == {("smile", "cam"): (5, 4)}
    with pytest.raises(PolyfaceError, match="no face was found in the photos"):
        Explainer(five, detector=told()).checked([picture()])
