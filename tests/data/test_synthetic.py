"""The synthetic renderer: what it says of a face is what it drew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface.data.synthetic import ILLUMINATIONS, SyntheticFaces, records, render
from polyface.data.synthetic.head import mean_face
from polyface.data.synthetic.paint import Raster
from polyface.data.table import FaceTable
from polyface.data.writing import write_table
from polyface.errors import PolyfaceError
from polyface.schema import VOCABULARIES, five_of_68, is_column, mirror_landmarks

# A face about which nothing but the identity varies.
PLAIN = {"yaw": 0, "roll": 0, "expression": "neutral", "glasses": "no", "age": 30, "illumination": "front"}


def plain(n: int, size: int = 128, **factors: Any) -> SyntheticFaces:
    return render(n, size, seed=3, identities=500, fixed=PLAIN | {"modality": "photo"} | factors)


def normalised(points: np.ndarray) -> np.ndarray:
    """Landmarks [N, 68, 2] moved to the eyes' middle and scaled by their distance."""
    left, right = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    scale = np.linalg.norm(right - left, axis=1)[:, None, None]
    return (points - ((left + right) / 2)[:, None]) / scale


def at(images: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The pixels [N, 3] nearest to points [N, 2]."""
    x, y = np.rint(points).astype(int).T
    return images[np.arange(len(images)), y, x].astype(float)


def brightness(images: np.ndarray, boxes: np.ndarray, x: tuple[float, float], y: tuple[float, float]) -> np.ndarray:
    """Mean brightness [N] of a part of each box, given as shares of its width and height."""
    result = []
    for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        columns = slice(int(x0 + (x1 - x0) * x[0]), int(x0 + (x1 - x0) * x[1]))
        result.append(image[int(y0 + (y1 - y0) * y[0]) : int(y0 + (y1 - y0) * y[1]), columns].mean())
    return np.array(result)


@settings(max_examples=15)
@given(n=st.integers(0, 40), first=st.integers(0, 90), seed=st.integers(0, 3))
def test_a_face_does_not_depend_on_how_many_are_drawn(n: int, first: int, seed: int) -> None:
    everything, part = render(130, 24, seed), render(n, 24, seed, first=first)
    wanted = slice(first, first + n)
    np.testing.assert_array_equal(part.images, everything.images[wanted])
    np.testing.assert_array_equal(part.roll, everything.roll[wanted])
    assert part.labels.keys() == everything.labels.keys()
    for name, values in part.labels.items():
        np.testing.assert_array_equal(values, everything.labels[name][wanted], err_msg=name)


def test_seeds_and_numbers_give_different_faces() -> None:
    first, second = render(64, 24, seed=1).images, render(64, 24, seed=2).images
    assert len({image.tobytes() for image in np.concatenate([first, second])}) == 128


def test_labels_are_columns_and_words_of_the_schema() -> None:
    faces = render(600, 16)
    assert faces.images.shape == (600, 16, 16, 3)
    assert faces.images.dtype == np.uint8
    for name, values in faces.labels.items():
        assert is_column(name), name
        assert len(values) == 600
        if name in VOCABULARIES:  # every word that a renderer can mean does occur
            assert set(values) == set(VOCABULARIES[name]) - {"sketch"}, name
    assert set(faces.labels["illumination"]) == set(ILLUMINATIONS)
    assert len(set(faces.labels["identity"])) == 100
    attributes = faces.labels["attributes"]
    assert set(np.unique(attributes)) == {-1, 0, 1}
    np.testing.assert_array_equal(attributes[:, 15] == 1, faces.labels["glasses"] == "yes")  # Eyeglasses
    np.testing.assert_array_equal(attributes[:, 20] == 1, faces.labels["gender"] == "male")  # Male


def test_age_group_contains_the_age() -> None:
    labels = render(300, 16).labels
    for age, group in zip(labels["age"], labels["age_group"], strict=True):
        low, _, high = group.rstrip("+").partition("-")
        assert int(low) <= int(age) <= int(high or 200)


def test_an_identity_is_one_shape_under_every_seed() -> None:
    def shapes(identity: int) -> np.ndarray:
        options = {"fixed": PLAIN | {"identity": identity}, "modality": "photo"}
        return np.concatenate([normalised(render(4, 64, seed, **options).labels["landmarks_68"]) for seed in (0, 9)])

    one, other = shapes(5), shapes(6)
    np.testing.assert_allclose(one, np.broadcast_to(one[:1], one.shape), atol=1e-4)
    assert np.abs(one[0] - other[0]).max() > 0.02


def test_an_identity_keeps_its_gender() -> None:
    labels = render(400, 16, identities=12).labels
    pairs = set(zip(labels["identity"], labels["gender"], strict=True))
    assert len(pairs) == len({identity for identity, _ in pairs}) == 12
    assert {gender for _, gender in pairs} == {"male", "female"}


@pytest.mark.parametrize(
    "yaw, pose",
    [(-75, "left profile"), (-46, "left profile"), (-44, "left"), (-16, "left"), (-14, "frontal"), (0, "frontal")]
    + [(14, "frontal"), (16, "right"), (44, "right"), (46, "right profile"), (90, "right profile")],
)
def test_pose_is_the_band_of_the_yaw(yaw: float, pose: str) -> None:
    assert set(render(3, 16, fixed={"yaw": yaw}).labels["pose"]) == {pose}


@given(yaw=st.floats(1, 90))
@settings(max_examples=10)
def test_the_opposite_yaw_is_the_mirror_image(yaw: float) -> None:
    def boxed(angle: float) -> np.ndarray:
        labels = plain(20, yaw=angle).labels
        box = labels["box"][:, None]
        return (labels["landmarks_68"] - box[..., :2]) / (box[..., 2:] - box[..., :2])

    right, left = boxed(yaw), boxed(-yaw)[:, mirror_landmarks(68)]
    left[..., 0] = 1 - left[..., 0]
    np.testing.assert_allclose(right, left, atol=2e-3)
    # Who looks to the viewer's right has the nose right of the jaw's middle.
    assert (right[:, 30, 0] > right[:, [0, 16], 0].mean(1)).all()


def test_a_turned_head_hides_its_far_side_only() -> None:
    frontal, turned = plain(50).labels["landmarks_68"], plain(50, yaw=70).labels["landmarks_68"]
    assert np.isfinite(frontal).all()
    hidden = np.isnan(turned[..., 0])
    assert hidden[:, [26, 45, 54]].mean() > 0.9
    assert not hidden[:, [*range(22), *range(27, 32), *range(36, 42), 48, 60]].any()


@pytest.mark.parametrize("modality", ["photo", "caricature"])
def test_box_is_tight_and_within_the_picture(modality: str) -> None:
    faces = render(300, 64, modality=modality)
    box = faces.labels["box"]
    assert (box[:, :2] >= 0.5).all()
    assert (box[:, 2:] <= 62.5).all()
    assert ((box[:, 2:] - box[:, :2]).max(1) > 24).all()
    points, corners = faces.labels["landmarks_68"], box[:, None]
    outside = (points < corners[..., :2] - 0.5) | (points > corners[..., 2:] + 0.5)  # NaN compares false
    assert not outside.any()
    labels = plain(100, 64, modality=modality).labels
    jaw, box = labels["landmarks_68"][:, :17], labels["box"]
    np.testing.assert_allclose(jaw[..., 0].min(1), box[:, 0], atol=0.5)
    np.testing.assert_allclose(jaw[..., 0].max(1), box[:, 2], atol=0.5)
    np.testing.assert_allclose(jaw[:, 8, 1], box[:, 3], atol=0.5)


def test_five_points_are_those_of_the_68() -> None:
    labels = render(200, 64).labels
    known = np.isfinite(labels["landmarks_68"]).all((1, 2))
    assert known.sum() > 50
    np.testing.assert_allclose(five_of_68(labels["landmarks_68"])[known], labels["landmarks_5"][known], atol=1e-3)
    assert np.isfinite(labels["landmarks_5"]).all()


@pytest.mark.parametrize("roll", [0, 25])
def test_eye_centres_lie_on_dark_pupils(roll: float) -> None:
    faces = plain(150, roll=roll, expression="surprise")
    points = faces.labels["landmarks_68"]
    for eye, corner in ((0, 36), (1, 45)):
        centre = faces.labels["landmarks_5"][:, eye]
        white = at(faces.images, centre + 0.62 * (points[:, corner] - centre)).mean(1)
        assert (at(faces.images, centre).mean(1) < 0.5 * white).mean() > 0.97


def test_lips_are_redder_than_the_chin_and_an_open_mouth_is_dark() -> None:
    faces = plain(150, expression="surprise")
    points = faces.labels["landmarks_68"]
    chin, lip = at(faces.images, points[:, [57, 8]].mean(1)), at(faces.images, points[:, [57, 66]].mean(1))
    assert (lip[:, 0] / lip[:, 1] > chin[:, 0] / chin[:, 1]).mean() > 0.95
    inside = at(faces.images, points[:, [62, 66]].mean(1))
    assert (inside.mean(1) < 0.8 * chin.mean(1)).mean() > 0.95


def test_brows_are_where_their_points_are() -> None:
    faces = plain(150, expression="surprise", identity=1)  # one person, light-skinned and dark-haired
    points = faces.labels["landmarks_68"]
    brow, lid = at(faces.images, points[:, 19]), at(faces.images, 0.5 * points[:, 19] + 0.5 * points[:, 37])
    assert (brow.mean(1) < 0.8 * lid.mean(1)).mean() > 0.95


def test_jaw_points_lie_on_the_drawn_outline_of_a_caricature() -> None:
    faces = plain(100, modality="caricature", age=12)  # no beard
    points = faces.labels["landmarks_68"]
    middle = points[:, [30]]
    for share, dark in ((0.025, True), (0.15, False)):
        inner = points + share * (middle - points)
        cheeks = np.stack([at(faces.images, inner[:, k]).mean(1) for k in (3, 4, 5, 11, 12, 13)], 1).mean(1)
        if dark:
            line = cheeks
    assert (line < 0.6 * cheeks).mean() > 0.95


def test_glasses_change_only_pixels_at_the_height_of_the_eyes() -> None:
    bare, worn = plain(60), plain(60, glasses="yes")
    # One level of rounding apart, which a sum of other parts may move anywhere.
    changed = (np.abs(bare.images.astype(int) - worn.images) > 1).any((2, 3))
    assert changed.any(1).all()
    eyes, box = bare.labels["landmarks_5"][:, :2, 1].mean(1), bare.labels["box"]
    far = np.abs(np.arange(128) - eyes[:, None]) > 0.2 * (box[:, 3] - box[:, 1])[:, None]
    assert not (changed & far).any()
    np.testing.assert_array_equal(bare.labels["landmarks_68"], worn.labels["landmarks_68"])
    assert set(worn.labels["glasses"]) == {"yes"}


def test_a_smile_lifts_the_corners_of_the_mouth() -> None:
    faces = render(400, 64, fixed={"yaw": 0, "roll": 0})
    points = normalised(faces.labels["landmarks_68"])
    lift = points[:, [51, 57], 1].mean(1) - points[:, [48, 54], 1].mean(1)
    smiling = faces.labels["smile"] == "yes"
    np.testing.assert_array_equal(smiling, faces.labels["expression"] == "happiness")
    assert lift[smiling].min() > np.median(lift[~smiling])
    assert lift[smiling].mean() > np.quantile(lift[~smiling], 0.9)


def test_expressions_move_what_they_are_known_by() -> None:
    def shape(expression: str) -> np.ndarray:
        return normalised(plain(40, expression=expression).labels["landmarks_68"])

    neutral = shape("neutral")
    surprise, anger, sadness, contempt = (shape(name) for name in ("surprise", "anger", "sadness", "contempt"))
    assert (surprise[:, 66, 1] - surprise[:, 62, 1] > neutral[:, 66, 1] - neutral[:, 62, 1] + 0.1).all()
    assert (surprise[:, 17:27, 1] < neutral[:, 17:27, 1]).all()
    assert (anger[:, [21, 22], 1] > neutral[:, [21, 22], 1]).all()
    assert (sadness[:, [48, 54], 1] > neutral[:, [48, 54], 1]).all()
    corners = contempt[:, [48, 54], 1] - neutral[:, [48, 54], 1]
    assert (np.abs(corners[:, 0] - corners[:, 1]) > 0.05).all()
    assert {-1.0, 1.0} == set(np.sign(corners[:, 0] - corners[:, 1]))  # on either side


def test_a_caricature_keeps_the_identity_and_exaggerates_it() -> None:
    photo, drawing = plain(200), plain(200, modality="caricature")
    np.testing.assert_array_equal(photo.labels["identity"], drawing.labels["identity"])
    mean = normalised(mean_face()[None, :, :2])
    deviations = [normalised(faces.labels["landmarks_68"]) - mean for faces in (photo, drawing)]
    for gender in ("male", "female"):  # age and gender move the shape too, and are not exaggerated
        own = [d[photo.labels["gender"] == gender] for d in deviations]
        own = [d - own[0].mean(0) for d in own]
        size = [np.linalg.norm(d, axis=(1, 2)) for d in own]
        assert (size[1] > 1.3 * size[0]).mean() > 0.95
        assert (sum(own[0][k].ravel() @ own[1][k].ravel() > 0 for k in range(len(own[0]))) / len(own[0])) > 0.95


@pytest.mark.parametrize("modality", ["photo", "caricature"])
def test_light_falls_from_where_the_label_says(modality: str) -> None:
    def sides(light: str) -> list[np.ndarray]:
        faces = plain(80, 64, illumination=light, modality=modality)
        images, box = faces.images, faces.labels["box"]
        parts = (((0.1, 0.4), (0.4, 0.9)), ((0.6, 0.9), (0.4, 0.9)), ((0.2, 0.8), (0.4, 0.5)), ((0.2, 0.8), (0.8, 0.9)))
        return [brightness(images, box, x, y) for x, y in parts]

    left, right, _, _ = sides("left")
    assert (left > 1.15 * right).mean() > 0.98
    left, right, _, _ = sides("right")
    assert (right > 1.15 * left).mean() > 0.98
    contrast = {light: np.divide(*sides(light)[2:]) for light in ("top", "bottom", "front")}
    assert (contrast["top"] > contrast["front"]).mean() > 0.95
    assert (contrast["bottom"] < contrast["front"]).mean() > 0.95
    assert (sides("dim")[0] < 0.6 * sides("front")[0]).all()


def test_fixing_one_factor_leaves_the_others() -> None:
    free, fixed = render(64, 32), render(64, 32, fixed={"illumination": "top"})
    for name in set(free.labels) - {"illumination"}:
        np.testing.assert_array_equal(free.labels[name], fixed.labels[name], err_msg=name)
    np.testing.assert_array_equal(free.roll, fixed.roll)
    assert (free.images != fixed.images).any((1, 2, 3)).sum() > 32


def test_the_old_are_grey_and_lined() -> None:
    young, old = plain(60), plain(60, age=75)
    assert (old.labels["attributes"][:, 17] == 1).mean() > 0.9 > 0.1 > (young.labels["attributes"][:, 17] == 1).mean()
    assert set(old.labels["age_group"]) == {"57+"}

    def fold(faces: SyntheticFaces) -> np.ndarray:  # brightness between nose and mouth corner, against the cheek beside
        points = faces.labels["landmarks_68"]
        unit = (points[:, 16, :1] - points[:, 0, :1]) / 2
        middle = points[:, [31, 48]].mean(1) + unit * [0, 0.025]
        return np.asarray(at(faces.images, middle).mean(1) / at(faces.images, middle - unit * [0.12, 0]).mean(1))

    assert (fold(old) < fold(young)).mean() > 0.9


def test_a_given_list_of_identities_is_used() -> None:
    assert set(render(64, 16, identities=[7, 1000]).labels["identity"]) == {"synthetic-7", "synthetic-1000"}


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), corners=st.integers(3, 12), size=st.sampled_from([16, 33]))
def test_coverage_is_the_area_of_the_polygon(seed: int, corners: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))[:: rng.choice([-1, 1])]
    x, y = (size * (rng.uniform(0.45, 0.5) + 0.4 * wave(angle)).astype(np.float32) for wave in (np.cos, np.sin))
    contour = np.stack([x, y])[:, None]
    raster = Raster([(contour, np.ones((1, 1), np.float32))], lambda points: points, size)
    cover = raster.plane(np.empty((size, 1, size), np.float32), 0, 1)
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    assert cover.sum() == pytest.approx(area, rel=0.01, abs=0.5)
    assert cover.min() > -0.35  # an edge's slope within one pixel is approximate, but nothing leaks beyond the shape
    columns = np.arange(size)
    beyond = (columns < np.floor(x.min())) | (columns > np.ceil(x.max()) + 1)
    np.testing.assert_allclose(cover[:, 0, beyond], 0, atol=1e-4)
    np.testing.assert_allclose(cover[-1], 0, atol=1e-4)


def test_records_make_a_face_table(tmp_path: Path) -> None:
    report = write_table(records(30, 24, seed=2, identities=5), tmp_path / "faces.parquet")
    assert report.rows == 30
    table = FaceTable.open(tmp_path / "faces.parquet")
    faces = render(30, 24, seed=2, identities=5)
    np.testing.assert_array_equal(np.stack([table.image(row) for row in range(30)]), faces.images)
    assert table.column("identity").to_pylist() == faces.labels["identity"].tolist()
    assert table.column("split").to_pylist() == (["train"] * 8 + ["val", "test"]) * 3
    assert set(table.column("source").to_pylist()) == {"synthetic"}
    points = np.array(table.column("landmarks_68").to_pylist(), dtype=float).reshape(30, 68, 2)
    np.testing.assert_allclose(points, faces.labels["landmarks_68"], rtol=1e-6)
    assert table.column("attributes").to_pylist()[0].count(None) == (faces.labels["attributes"][0] == 0).sum() > 20
    names = [record.path for record in records(3, 16, seed=2, first=31)]
    assert names == ["synthetic/2/31.png", "synthetic/2/32.png", "synthetic/2/33.png"]


def test_none_at_all() -> None:
    faces = render(0, 16)
    assert faces.images.shape == (0, 16, 16, 3)
    assert faces.labels["landmarks_68"].shape == (0, 68, 2)
    assert list(records(0)) == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n": -1}, "n is -1"),
        ({"size": 8}, "size is 8"),
        ({"seed": -4}, "seed is -4"),
        ({"modality": "sketch"}, "modality 'sketch': known: caricature, photo"),
        ({"identities": 0}, "identities"),
        ({"identities": [3, -1]}, "identities"),
        ({"fixed": {"jaw": 1}}, "unknown factor 'jaw': did you mean 'yaw'?"),
        ({"fixed": {"yaw": 91}}, "yaw is 91, expected -90 to 90"),
        ({"fixed": {"expression": "hapiness"}}, "did you mean 'happiness'?"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError) as caught:
        render(**({"n": 1} | options))
    assert message in str(caught.value)
