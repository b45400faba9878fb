"""Regions of a face from 68 points, the pointing game and shares of mass: by hand and on drawn faces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyface.data.synthetic import render
from polyface.errors import PolyfaceError
from polyface.explain.regions import REGIONS, mass_by_region, pointed, region_masks
from polyface.schema import mirror_landmarks

SIDE = 96


def frontal() -> np.ndarray:
    fixed = {"yaw": 0.0, "roll": 0.0, "glasses": "no", "expression": "neutral", "identity": 3}
    return np.asarray(render(1, SIDE, fixed=fixed).labels["landmarks_68"][0])


def region_at(masks: np.ndarray, place: np.ndarray) -> str:
    x, y = np.round(place).astype(int)
    return REGIONS[int(masks[:, y, x].argmax())]


def test_every_pixel_is_in_one_region() -> None:
    masks = region_masks(frontal(), SIDE)
    assert (masks.sum(0) == 1).all()
    assert masks.sum((1, 2)).min() > 20


def test_each_part_of_the_face_is_where_its_name_says() -> None:
    points, masks = frontal(), region_masks(frontal(), SIDE)
    assert region_at(masks, points[36:42].mean(0)) == region_at(masks, points[42:48].mean(0)) == "eyes"
    assert region_at(masks, points[19]) == region_at(masks, points[[21, 22]].mean(0)) == "eyes"
    assert region_at(masks, points[30]) == "nose"
    assert region_at(masks, points[[62, 66]].mean(0)) == "mouth"
    assert region_at(masks, points[[3, 31]].mean(0)) == region_at(masks, points[[13, 35]].mean(0)) == "cheeks"
    assert region_at(masks, points[8] - [0, 2]) == region_at(masks, np.array([1, 1])) == "rest"


def test_what_glasses_change_lies_on_the_eyes() -> None:
    """The same faces drawn with them and without: nearly all that differs is in the region."""
    fixed = {"yaw": 0.0, "roll": 0.0}
    bare, worn = (render(20, SIDE, modality="photo", fixed=fixed | {"glasses": word}) for word in ("no", "yes"))
    changed = np.abs(bare.images.astype(int) - worn.images).sum(-1)
    masks = np.stack([region_masks(points, SIDE) for points in worn.labels["landmarks_68"]])
    share = sum(mass_by_region(*one) for one in zip(changed, masks, strict=True)) / changed.sum()
    assert share[REGIONS.index("eyes")] > 0.8


def test_a_mirrored_face_has_mirrored_regions() -> None:
    points = frontal()
    mirrored = points[mirror_landmarks(68)] * [-1, 1] + [SIDE - 1, 0]
    same = region_masks(mirrored, SIDE) == region_masks(points, SIDE)[:, :, ::-1]
    assert same.mean() > 0.98  # but for how edges of polygons are rounded


def test_a_turned_head_with_hidden_points_still_has_regions() -> None:
    points = render(1, SIDE, fixed={"yaw": 70.0, "roll": 0.0}).labels["landmarks_68"][0]
    assert np.isnan(points[42:48]).any()
    masks = region_masks(points, SIDE)
    assert (masks.sum(0) == 1).all()
    assert masks[REGIONS.index("mouth")].any()
    with pytest.raises(PolyfaceError, match=r"68 points \[68, 2\], found \[5, 2\]"):
        region_masks(np.zeros((5, 2)), SIDE)


def test_the_pointing_game_by_hand() -> None:
    masks = np.zeros((3, 4, 4), bool)
    masks[:, :2, :2] = True
    heat = np.zeros((3, 4, 4))
    heat[0, 1, 1] = 1
    heat[1, 3, 3] = 1
    assert pointed(heat, masks).tolist() == [1, 0, 0.25]  # a flat map points as chance does: the region's share
    heat[2, 0, 0] = heat[2, 3, 3] = 5
    assert pointed(heat, masks)[2] == 0.5


def test_mass_by_hand() -> None:
    masks = np.stack([np.eye(2, dtype=bool), ~np.eye(2, dtype=bool)])
    assert mass_by_region(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).numpy(), masks).tolist() == [5, 5]
