"""What pictures come as: the order of their colours, files that are no pictures, and what is said of those taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from polyface.errors import PolyfaceError
from polyface.gallery import Gallery
from polyface.inference import Analyzer, BundleEmbedder, analyze, draw
from polyface.inference.inputs import count, image_files, pixels, sources
from polyface.models.bundle import Bundle

Pictures = Callable[..., np.ndarray]
BOX = np.array([20, 15, 70, 75], np.float32)


# ------------------------------------------------------------------------------------------- the order of colours


@pytest.mark.parametrize("make", [np.array, np.asfortranarray, lambda array: torch.tensor(array.transpose(2, 0, 1))])
def test_bgr_is_rgb_the_other_way_round(picture: Pictures, make: Callable[[np.ndarray], Any]) -> None:
    rgb = picture()
    bgr = np.ascontiguousarray(rgb[..., ::-1])  # as OpenCV reads a file
    found = pixels(make(bgr), channels="bgr")
    np.testing.assert_array_equal(found, rgb)
    np.testing.assert_array_equal(found, pixels(make(rgb)))
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(bgr, rgb[..., ::-1])  # what was given is left as it is


def test_grey_and_what_knows_its_colours_are_the_same_either_way(picture: Pictures, tmp_path: Path) -> None:
    rgb, path = picture(), tmp_path / "a.png"
    Image.fromarray(rgb).save(path)
    for given in (path, path.read_bytes(), Image.fromarray(rgb), {"bytes": path.read_bytes(), "path": "a.png"}):
        (source,) = sources(given, "bgr")
        np.testing.assert_array_equal(source.pixels(), rgb)
    np.testing.assert_array_equal(pixels(rgb[..., 1], channels="bgr"), pixels(rgb[..., 1]))


def test_an_unknown_order_is_refused(picture: Pictures, five: Bundle) -> None:
    for call in (Analyzer(five), BundleEmbedder().embed):
        with pytest.raises(PolyfaceError, match="channels names 'bgra'; did you mean 'bgr'"):
            call([picture()], channels="bgra")


def test_an_array_of_another_form_is_told_its_order() -> None:
    with pytest.raises(PolyfaceError, match=r"expected a uint8 array .* in BGR, found uint8 \[4, 4, 4\]"):
        pixels(np.zeros((4, 4, 4), np.uint8), channels="bgr")  # OpenCV's with transparency


def test_analyzer_embedder_and_gallery_take_bgr(five: Bundle, picture: Pictures, told: Any, tmp_path: Path) -> None:
    rgb, detector = picture(), told(BOX.tolist())
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    analyzer = Analyzer(five, detector=detector)
    (wanted,), (other,) = analyzer(rgb), analyzer(bgr)
    for found in (
        analyzer(bgr, channels="bgr"),
        [*analyzer.stream([bgr], channels="bgr")],
        analyze(bgr, models=five, detector=detector, channels="bgr"),
    ):
        assert found[0].to_dict() == wanted.to_dict()
    assert other.to_dict() != wanted.to_dict()
    assert draw(bgr, wanted, channels="bgr").tobytes() == draw(rgb, wanted).tobytes()

    embedder = BundleEmbedder(detector=detector)
    ((face,),), ((same,),) = embedder.embed([rgb]), embedder.embed([bgr], channels="bgr")
    np.testing.assert_array_equal(face.embedding, same.embedding)
    with Gallery.create(tmp_path / "gallery", embedder) as gallery:
        gallery.enrol(bgr, "Ann", channels="bgr")
        (result,) = gallery.search([bgr], channels="bgr")
        assert result.faces[0].matches[0].similarity == pytest.approx(1, abs=1e-5)
        assert gallery.enrol(rgb, "Ann").faces == 0  # the same picture


# ---------------------------------------------------------------------------------------------------- files and folders


def test_a_pipe_is_refused_where_a_picture_is_expected(five: Bundle, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PolyfaceError, match=r"pipe\.jpg: not a regular file"):
        Analyzer(five)(tmp_path / "pipe.jpg")
    (result,) = Analyzer(five)([tmp_path / "pipe.jpg"])
    assert "not a regular file" in str(result.error)


def test_what_a_folder_passes_over_is_said_once(
    five: Bundle, picture: Pictures, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpe", "JPEG")
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / ".c.jpg").write_bytes(b"")
    assert count(tmp_path) == 1
    assert len(Analyzer(five)(tmp_path, boxes=[BOX])) == 1
    assert caplog.messages == [f"{tmp_path}: passed over: 1 .txt, 1 hidden"]
    assert image_files(tmp_path / "b.txt") == [tmp_path / "b.txt"]  # a file that is named is read, or refused


def test_the_first_frame_of_an_animation_is_said_to_be_that(
    picture: Pictures, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.fromarray(picture(seed=seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    (source,) = sources(tmp_path / "a.webp")
    np.testing.assert_array_equal(source.pixels(), picture(seed=0))
    assert caplog.messages == [f"{tmp_path}/a.webp: holds several pictures, frames or pages; the first is taken"]
