"""Geometry: matrices against plain arithmetic, and blobs of light that must lie where `transform` says, sub-pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from polyface.data.crops import CropSpec, around_centre, compose, cut, invert, is_mirrored, sample, scaled, transform
from polyface.errors import PolyfaceError

number = st.floats(-3, 3, width=32)
similarity = st.tuples(st.floats(-180, 180), st.floats(0.2, 4), number, number, st.booleans()).map(
    lambda n: around_centre(
        40, torch.tensor([n[0]]), torch.tensor([n[1]]), torch.tensor([n[2:4]]), torch.tensor([n[4]])
    )[0].double()
)
dots = st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=5).map(
    lambda found: torch.tensor(found, dtype=torch.double)
)


def blob(width: int, height: int, x: float, y: float, sigma: float) -> np.ndarray:
    """A soft round light at (x, y) on black, uint8 RGB."""
    rows, columns = np.mgrid[:height, :width]
    light = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(light.round().astype(np.uint8)[..., None], 3, axis=2)


def centre_of_light(picture: Tensor | np.ndarray) -> tuple[float, float]:
    """(x, y) of the centre of brightness of [..., H, W]."""
    light = np.asarray(picture, dtype=float).reshape(-1, *picture.shape[-2:]).sum(0)
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]]
    return float((columns * light).sum() / light.sum()), float((rows * light).sum() / light.sum())


# -------------------------------------------------------------------------------------------------- matrices


@given(similarity, dots)
def test_inverse_undoes(matrix: Tensor, points: Tensor) -> None:
    torch.testing.assert_close(transform(invert(matrix), transform(matrix, points)), points)
    torch.testing.assert_close(invert(invert(matrix)), matrix)
    identity = torch.eye(2, 3, dtype=torch.double)
    torch.testing.assert_close(compose(matrix, invert(matrix)), identity, atol=1e-6, rtol=0)


@given(similarity, similarity, similarity, dots)
def test_composition_is_one_after_the_other(a: Tensor, b: Tensor, c: Tensor, points: Tensor) -> None:
    torch.testing.assert_close(transform(compose(a, b), points), transform(a, transform(b, points)))
    torch.testing.assert_close(compose(compose(a, b), c), compose(a, compose(b, c)))


@given(similarity, similarity)
def test_two_mirrors_are_none(a: Tensor, b: Tensor) -> None:
    assert bool(is_mirrored(compose(a, b))) == (bool(is_mirrored(a)) != bool(is_mirrored(b)))
    assert bool(is_mirrored(invert(a))) == bool(is_mirrored(a))


def test_around_centre_by_hand() -> None:
    """A 41-pixel input has its centre at (20, 20): 90° clockwise, doubled, moved by (0.1, 0) sides, mirrored first."""
    turned, moved, mirrored, all_at_once = around_centre(
        41,
        torch.tensor([90.0, 0, 0, 90]),
        torch.tensor([1.0, 1, 1, 2]),
        torch.tensor([[0.0, 0], [0.1, 0], [0, 0], [0.1, 0]]),
        torch.tensor([False, False, True, True]),
    )
    right = torch.tensor([[30.0, 20]])
    torch.testing.assert_close(transform(turned, right), torch.tensor([[20.0, 30]]))  # y points down: clockwise
    torch.testing.assert_close(transform(moved, right), torch.tensor([[34.1, 20]]))
    torch.testing.assert_close(transform(mirrored, right), torch.tensor([[10.0, 20]]))
    torch.testing.assert_close(transform(all_at_once, right), torch.tensor([[24.1, 0]]))


@given(st.floats(-200, 200), st.floats(-200, 200), st.floats(1, 300), st.floats(1, 300), st.floats(0.5, 3), number)
def test_crop_maps_the_square_round_the_box_onto_the_input(
    x: float, y: float, width: float, height: float, scale: float, shift_y: float
) -> None:
    """Its edges (not pixel centres) become the input's edges, −0.5 and size − 0.5."""
    spec = CropSpec(size=40, scale=scale, shift_y=shift_y)
    matrix = torch.from_numpy(spec.crops(np.array([[x, y, x + width, y + height]]))).double()
    longer = max(width, height)
    middle = np.array([x + width / 2, y + height / 2 + shift_y * longer])
    corners = torch.from_numpy(np.stack([middle - longer * scale / 2, middle + longer * scale / 2]))[None]
    torch.testing.assert_close(
        transform(matrix, corners), torch.tensor([[[-0.5, -0.5], [39.5, 39.5]]]).double(), atol=2e-2, rtol=0
    )


@pytest.mark.parametrize(
    "spec", [CropSpec(), CropSpec(size=61, margin=1.3, oversample=0.7), CropSpec(margin=1, oversample=1)]
)
def test_cut_to_input_is_what_lies_between_cut_and_crop(spec: CropSpec) -> None:
    """Edges of the cut are `margin` inputs apart, about the same centre."""
    corners = torch.tensor([[-0.5, -0.5], [spec.cut_size - 0.5, spec.cut_size - 0.5]])
    middle, half = (spec.size - 1) / 2, spec.size * spec.margin / 2
    expected = torch.tensor([[middle - half] * 2, [middle + half] * 2])
    torch.testing.assert_close(transform(torch.from_numpy(spec.cut_to_input()), corners), expected, atol=1e-3, rtol=0)


# -------------------------------------------------------------------------------- pictures and points agree

specs = st.builds(
    CropSpec,
    size=st.sampled_from([40, 41, 60]),
    channels=st.sampled_from([1, 3]),
    scale=st.floats(1, 1.5),
    margin=st.floats(1.2, 2),
    oversample=st.floats(0.8, 2),
    shift_y=st.floats(-0.1, 0.1),
)


@settings(max_examples=80)
@given(
    spec=specs,
    side=st.floats(20, 260),
    off=st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
    spot=st.tuples(st.floats(120, 180), st.floats(120, 180)),
    vary=st.tuples(st.floats(-40, 40), st.floats(0.85, 1.15), *[st.floats(-0.05, 0.05)] * 2, st.booleans()),
)  # fmt: skip
def test_a_blob_lies_where_transform_says(spec, side, off, spot, vary) -> None:
    """Cut, then sampled with rotation, zoom, shift and mirror: enlarged or reduced, to a tenth of an input pixel."""
    x, y = spot
    box = np.array([x + off[0] * side - side / 2, y + off[1] * side - side / 2] * 2) + [0, 0, side, side]
    light = blob(300, 300, x, y, sigma=max(side / 20, 1.5))
    cuts = torch.from_numpy(cut(light, box, spec))[None]
    angle, zoom, dx, dy, mirror = vary
    varied = around_centre(
        spec.size, torch.tensor([angle]), torch.tensor([zoom]), torch.tensor([[dx, dy]]), torch.tensor([mirror])
    )
    to_input = torch.from_numpy(spec.cut_to_input())[None]
    images = sample(cuts, compose(varied, to_input), spec.size)
    assert images.shape == (1, spec.channels, spec.size, spec.size)
    crop = compose(varied, torch.from_numpy(spec.crops(box[None])))
    expected = transform(crop, torch.tensor([[[x, y]]]))[0, 0].tolist()
    assert centre_of_light(images) == pytest.approx(expected, abs=0.1)


def test_sampling_where_nothing_moves_gives_the_cut_back() -> None:
    spec = CropSpec(size=24, channels=3, margin=1.0, oversample=1.0)
    cuts = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    still = sample(cuts, torch.from_numpy(spec.cut_to_input()).expand(2, 2, 3), 24)
    torch.testing.assert_close(still, cuts.float(), atol=1e-2, rtol=0)
    mirrored = sample(
        cuts, around_centre(24, torch.zeros(2), torch.ones(2), torch.zeros(2, 2), torch.tensor([True, False])), 24
    )
    torch.testing.assert_close(mirrored[0], cuts[0].float().flip(-1), atol=1e-2, rtol=0)
    torch.testing.assert_close(mirrored[1], cuts[1].float(), atol=1e-2, rtol=0)


def test_sampling_outside_the_cut_is_black_and_each_face_has_its_own_matrix() -> None:
    cuts = torch.full((2, 1, 20, 20), 200, dtype=torch.uint8)
    shift = torch.tensor([[0.5, 0.0], [0, 0]])
    images = sample(cuts, around_centre(20, torch.zeros(2), torch.ones(2), shift, torch.zeros(2).bool()), 20)
    torch.testing.assert_close(images[0, 0, :, :10], torch.zeros(20, 10), atol=1e-2, rtol=0)
    torch.testing.assert_close(images[0, 0, :, 10:], torch.full((20, 10), 200.0))
    torch.testing.assert_close(images[1], cuts[1].float())


def test_no_face_is_no_picture() -> None:
    assert sample(torch.zeros(0, 3, 20, 20, dtype=torch.uint8), torch.zeros(0, 2, 3), 16).shape == (0, 3, 16, 16)


# ---------------------------------------------------------------------------------------------------- the cut


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("box", [(40, 30, 72, 62), (41.5, 30.25, 75.5, 64.25), (20, 20, 100, 100)])
def test_cut_is_pillows_resize_of_the_square(channels: int, box: tuple[float, ...]) -> None:
    """Pillow counts box edges from the picture's corner, half a pixel from the first pixel's centre."""
    picture = np.random.default_rng(0).integers(0, 256, (120, 130, 3), np.uint8)
    spec = CropSpec(size=40, channels=channels, scale=1.0, margin=1.0, oversample=1.0)
    ours = cut(picture, np.array(box), spec)
    image = Image.fromarray(picture).convert("L" if channels == 1 else "RGB")
    theirs = np.asarray(image.resize((40, 40), Image.Resampling.BILINEAR, box=tuple(x + 0.5 for x in box)))
    theirs = theirs[None] if channels == 1 else theirs.transpose(2, 0, 1)
    assert ours.shape == (channels, 40, 40)
    assert ours.dtype == np.uint8
    # One pixel off the rim, where our cut has no pixels of the picture beyond its own to weigh in.
    assert np.abs(ours.astype(int) - theirs)[:, 1:-1, 1:-1].max() <= 1


def test_cut_of_whole_pixels_copies_them() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    spec = CropSpec(size=16, scale=1.0, margin=1.0, oversample=1.0)
    out = cut(picture, np.array([9.5, 19.5, 25.5, 35.5]), spec)  # edges of pixels 10 … 25 and 20 … 35
    np.testing.assert_array_equal(out, picture[20:36, 10:26].transpose(2, 0, 1))


@pytest.mark.parametrize(
    "box", [(-20, -20, 30, 30), (40, 30, 90, 80), (-100, -100, -60, -60), (500, 10, 540, 50), (-60, -60, 110, 110)]
)
def test_outside_the_image_is_black(box: tuple[float, ...]) -> None:
    white = np.full((50, 60, 3), 255, np.uint8)
    spec = CropSpec(size=20, channels=1, scale=1.0, margin=1.0, oversample=1.0)
    out = cut(white, np.array(box, float), spec)[0]
    edges = np.linspace(box[0] + 0.5, box[2] + 0.5, 21), np.linspace(box[1] + 0.5, box[3] + 0.5, 21)
    step = (box[2] - box[0]) / 20
    inside = (
        (edges[0][:-1] >= step) & (edges[0][1:] <= 60 - step),
        (edges[1][:-1] >= step) & (edges[1][1:] <= 50 - step),
    )
    outside = (
        (edges[0][1:] <= -step) | (edges[0][:-1] >= 60 + step),
        (edges[1][1:] <= -step) | (edges[1][:-1] >= 50 + step),
    )
    assert (out[np.ix_(inside[1], inside[0])] == 255).all()
    assert (out[outside[1]] == 0).all()
    assert (out[:, outside[0]] == 0).all()
    assert inside[0].any() or outside[0].any()


@pytest.mark.parametrize(
    "box, expected",
    [
        ((0, 0, 1e5, 1e5), "far larger than its 60×50 image"),
        ((0, 0, 1e9, 10), "far larger"),
        ((5, 5, 5, 9), "expected finite x0 < x1"),
        ((9, 5, 5, 9), "expected finite x0 < x1"),
        ((math.nan, 5, 6, 9), "expected finite"),
        ((0, 0, math.inf, 9), "expected finite"),
    ],
)
def test_absurd_boxes_are_refused(box: tuple[float, ...], expected: str) -> None:
    with pytest.raises(PolyfaceError, match=expected):
        cut(np.zeros((50, 60, 3), np.uint8), np.array(box), CropSpec())


def test_the_bad_box_of_many_is_named() -> None:
    boxes = np.array([[0, 0, 5, 5], [3, 3, 3, 9.0]])
    with pytest.raises(PolyfaceError, match=r"box 1 is \[3.0, 3.0, 3.0, 9.0\]"):
        CropSpec().crops(boxes)


def test_reducing_averages() -> None:
    """Stripes finer than the cut's pixels become grey: the cut is antialiased."""
    stripes = np.zeros((320, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    out = cut(stripes, np.array([60, 60, 260, 260.0]), CropSpec(size=20, scale=1.0, margin=1.0, oversample=1.0))
    assert out.min() > 115
    assert out.max() < 140


def test_a_whole_aligned_picture_is_padded_as_dmm_cnns() -> None:
    """178×218 → 224×224 with 21 black columns on either side; x from 21/224 to 203/224 (Mao et al. 2020), to a rounding
    of half a pixel: the authors cut the width of 182.9 down to 182."""
    spec = CropSpec(size=224, channels=3, scale=1.0, margin=1.0, oversample=1.0)
    box = np.array([-0.5, -0.5, 177.5, 217.5], dtype=np.float32)
    picture = cut(np.full((218, 178, 3), 255, np.uint8), box, spec)
    bright = np.flatnonzero((picture > 127).all((0, 1)))
    assert abs(bright[0] - 21) <= 1
    assert abs(bright[-1] - 202) <= 1
    assert (picture[:, :, 30:190] == 255).all()
    ends = torch.tensor([[-0.5, -0.5], [177.5, 217.5]])
    moved = (transform(torch.from_numpy(spec.crops(box[None]))[0], ends) + 0.5) / 224
    assert moved[:, 0].tolist() == pytest.approx([21 / 224, 203 / 224], abs=0.5 / 224)
    assert moved[:, 1].tolist() == pytest.approx([0, 1], abs=1e-5)


def test_a_crop_at_another_size_keeps_its_edges() -> None:
    """Twice as wide: from −½ to −½, from side − ½ to 2 · side − ½; a plain crop at half the side is the mean of 2×2."""
    crop = torch.tensor([[[0.5, 0.0, 1.0], [0.0, 0.5, 2.0]]])
    edges = torch.tensor([[[-0.5, -0.5], [39.5, 39.5]]])
    found = transform(scaled(crop, 2.0), transform(invert(crop), edges))
    torch.testing.assert_close(found, torch.tensor([[[-0.5, -0.5], [79.5, 79.5]]]))
    assert torch.equal(scaled(crop, 1.0), crop)
    faces = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    plain = torch.eye(3)[None, :2].expand(2, 2, 3)
    halved = sample(faces, scaled(plain, 0.5), 8)
    torch.testing.assert_close(halved, torch.nn.functional.avg_pool2d(faces.float(), 2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("angle", [(), (30.0,)])
def test_a_close_up_of_many_pixels_is_shrunk_and_then_cut_as_any(
    monkeypatch: pytest.MonkeyPatch, angle: tuple[float, ...]
) -> None:
    """A face that fills a picture of 88 megapixels reaches beyond 12,000 pixels with its margin; here it is 300."""
    picture = blob(317, 411, 150, 190, 60)
    box, spec = np.array([-20.0, 5, 290, 380, *angle]), CropSpec(size=32, channels=3)
    whole = cut(picture, box, spec)
    sizes = []
    new = Image.new
    monkeypatch.setattr(Image, "new", lambda mode, size, *fill: sizes.append(size) or new(mode, size, *fill))
    monkeypatch.setattr("polyface.data.crops._WIDEST", 300)
    shrunk = cut(picture, box, spec)
    assert max(max(size) for size in sizes if size != (317, 411)) <= 302  # the picture itself was there before
    assert np.abs(shrunk.astype(int) - whole).mean() < 1
    assert np.abs(shrunk.astype(int) - whole).max() < 12
