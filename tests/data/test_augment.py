"""Augmentation: a pure function of (seed, stage, epoch, row), within its stated ranges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from polyface.data.augment import DRAWS, AugmentSpec, draws, geometry, photometry
from polyface.data.crops import is_mirrored, transform

TO_INPUT = torch.eye(2, 3)
uniform = st.integers(0, 2**31).map(lambda seed: torch.rand(4, DRAWS, generator=torch.Generator().manual_seed(seed)))


@given(st.integers(0, 2**31), st.text(max_size=12), st.integers(0, 1000), st.integers(1, 50))
def test_draws_repeat_and_lie_in_the_unit_interval(seed: int, stage: str, epoch: int, rows: int) -> None:
    found = draws(seed, stage, epoch, rows)
    assert found.shape == (rows, DRAWS)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found < 1)).all()
    np.testing.assert_array_equal(found, draws(seed, stage, epoch, rows))
    np.testing.assert_array_equal(found, draws(seed, stage, epoch, rows + 3)[:rows])  # a row's own, not its pool's


def test_draws_depend_on_each_of_seed_stage_epoch_and_row() -> None:
    base = draws(1, "five", 2, 10)
    for other in (draws(2, "five", 2, 10), draws(1, "dense", 2, 10), draws(1, "five", 3, 10)):
        assert not np.isclose(base, other).any()
    assert len(np.unique(base)) > 0.99 * base.size


def test_draws_are_uniform() -> None:
    found = draws(0, "x", 0, 20000)
    np.testing.assert_allclose(found.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(found.var(0), 1 / 12, atol=0.005)
    assert np.abs(np.corrcoef(found.T) - np.eye(DRAWS)).max() < 0.03


@given(uniform)
def test_all_off_changes_nothing(u: torch.Tensor) -> None:
    spec = AugmentSpec()
    torch.testing.assert_close(geometry(spec, u, TO_INPUT, 40), TO_INPUT.expand(4, 2, 3), atol=1e-5, rtol=0)
    images = torch.rand(4, 1, 8, 8) * 255
    assert torch.equal(photometry(spec, u, images), images)


@given(uniform, st.floats(0, 180), st.floats(0, 0.5), st.floats(0, 0.3))
def test_geometry_stays_within_its_ranges(u: torch.Tensor, rotate: float, zoom: float, shift: float) -> None:
    matrices = geometry(AugmentSpec(rotate=rotate, zoom=zoom, shift=shift), u, TO_INPUT, 40)
    linear = matrices[:, :, :2]
    scale = linear.det().sqrt()
    assert (scale.log().abs() <= zoom + 1e-5).all()
    cosine = (linear[:, 0, 0] / scale).clamp(-1, 1)
    assert (torch.rad2deg(cosine.arccos()) <= rotate + 0.1).all()
    centre = torch.full((4, 1, 2), 19.5)
    assert ((transform(matrices, centre) - centre).abs() <= shift * 40 + 1e-3).all()
    assert not is_mirrored(matrices).any()


def test_ends_of_the_ranges_by_hand() -> None:
    """u = 1 − ε: +30°, zoom e^0.2, shifted by (+0.1, +0.1) sides; u = 0: the other ends."""
    spec = AugmentSpec(rotate=30, zoom=0.2, shift=0.1)
    u = torch.stack([torch.full((DRAWS,), 1.0), torch.zeros(DRAWS), torch.full((DRAWS,), 0.5)])
    high, low, middle = geometry(spec, u, TO_INPUT, 40)
    centre = torch.tensor([[19.5, 19.5]])
    torch.testing.assert_close(transform(high, centre), centre + 4)
    torch.testing.assert_close(transform(low, centre), centre - 4)
    zoom, cos, sin = np.exp(0.2), np.cos(np.pi / 6), np.sin(np.pi / 6)
    torch.testing.assert_close(high[:, :2], torch.tensor([[zoom * cos, -zoom * sin], [zoom * sin, zoom * cos]]).float())
    torch.testing.assert_close(low[:, :2], torch.tensor([[cos / zoom, sin / zoom], [-sin / zoom, cos / zoom]]).float())
    torch.testing.assert_close(middle, TO_INPUT, atol=1e-5, rtol=0)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_mirroring_happens_as_often_as_asked(probability: float) -> None:
    u = torch.from_numpy(draws(0, "x", 0, 4000))
    share = is_mirrored(geometry(AugmentSpec(mirror=probability), u, TO_INPUT, 40)).float().mean().item()
    assert share == pytest.approx(probability, abs=0.03 if 0 < probability < 1 else 0)


def test_contrast_and_brightness_by_hand() -> None:
    u = torch.full((1, DRAWS), 0.5)
    u[0, 5], u[0, 6] = 1.0, 0.0  # contrast 1 + 0.4, brightness −0.1·255
    images = torch.tensor([0.0, 100, 127.5, 255]).view(1, 1, 2, 2)
    out = photometry(AugmentSpec(contrast=0.4, brightness=0.1), u, images)
    expected = [0.0, (100 - 127.5) * 1.4 + 127.5 - 25.5, 127.5 - 25.5, 255.0]
    assert out.flatten().tolist() == pytest.approx(expected)


def test_erasing_hides_a_square_of_its_size_for_some_faces() -> None:
    u = torch.full((2, DRAWS), 0.5)
    u[:, 8], u[:, 9], u[:, 10] = 1.0, 0.25, 0.75
    u[1, 7] = 0.9  # not this one
    images = torch.zeros(2, 3, 41, 41)
    out = photometry(AugmentSpec(erase=0.6, erase_size=0.2), u, images)
    assert (out[1] == 0).all()
    hidden = (out[0] == 127.5).all(0)
    rows, columns = hidden.nonzero().unbind(1)
    assert hidden.sum() == 9 * 9  # ± 0.1·41 about (10, 30) in whole pixels
    assert (rows.float().mean().item(), columns.float().mean().item()) == (10, 30)


@pytest.mark.parametrize("wrong", [{"rotate": -1}, {"mirror": 1.5}, {"rotat": 3}, {"contrast": 1}, {"erase_size": 0}])
def test_ranges_are_checked(wrong) -> None:
    with pytest.raises(ValidationError):
        AugmentSpec(**wrong)
