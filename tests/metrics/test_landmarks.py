"""Landmark errors: numbers by hand, invariances, masks, intervals and paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polyface.errors import PolyfaceError
from polyface.metrics.groups import groups_of, within
from polyface.metrics.landmarks import (
    LandmarkResult,
    auc,
    ced,
    evaluate_landmarks,
    extremes,
    face_errors,
    failure_rate,
    mean_error,
    normalising_distance,
    point_errors,
)
from polyface.metrics.result import Metric, differences, paired_differences, rows
from polyface.schema import eyes

NAN = math.nan
FACE = np.array([[10.0, 20], [20, 20], [15, 25], [11, 30], [19, 30]])  # eyes 10 apart
EYES = eyes(5)
coordinates = arrays(np.float64, (3, 5, 2), elements=st.floats(-100, 100))
error_lists = arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 30))


def evaluated(predicted: np.ndarray, truth: np.ndarray, **settings: float) -> LandmarkResult:
    return evaluate_landmarks(predicted, truth, eyes=EYES, **settings)  # type: ignore[arg-type]


def moved(face: np.ndarray, point: int, dx: float, dy: float = 0.0) -> np.ndarray:
    copy = face.copy()
    copy[point] += (dx, dy)
    return copy


def faces(count: int, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and truths of `count` faces whose errors vary from face to face."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(FACE[None], count, axis=0)
    scale = spread * generator.gamma(2, 0.4, size=(count, 1, 1))
    return truth + scale * generator.normal(size=truth.shape), truth


def test_one_point_off_by_one_with_eyes_ten_apart_is_ten_percent() -> None:
    errors = point_errors(moved(FACE, 2, 0.6, 0.8)[None], FACE[None], eyes=EYES)
    np.testing.assert_allclose(errors, [[0, 0, 10, 0, 0]], atol=1e-12)
    assert face_errors(errors) == pytest.approx([2.0])


def test_all_figures_by_hand() -> None:
    """Face errors 2 %, 12 % and 0 %: mean 14/3, one failure of three, AUC (0.8 + 0 + 1) / 3."""
    truth = np.repeat(FACE[None], 3, axis=0)
    predicted = np.stack([moved(FACE, 2, 1), moved(FACE, 4, 0, 6), FACE])
    result = evaluated(predicted, truth)
    np.testing.assert_allclose(result.face_errors, [2, 12, 0], atol=1e-12)
    assert (result.n, result.excluded, result.missed) == (3, 0, 0)
    assert result.mean_error == pytest.approx(14 / 3)
    assert result.failure_rate == pytest.approx(100 / 3)
    assert result.auc == pytest.approx(60)
    assert result.per_point == pytest.approx((0, 0, 10 / 3, 0, 20))
    assert evaluated(predicted, truth, threshold=12.5).failure_rate == 0


def test_an_error_of_exactly_the_threshold_is_no_failure() -> None:
    assert failure_rate([10.0, 10.001]) == 50


def test_68_points_are_normalised_by_the_pupil_centres_or_the_outer_corners() -> None:
    truth = np.zeros((1, 68, 2))
    truth[0, :, 1] = np.arange(68)
    truth[0, 36:42] = [[0, 0], [2, -1], [4, -1], [6, 0], [4, 1], [2, 1]]  # centre (3, 0)
    truth[0, 42:48] = truth[0, 36:42] + [20, 0]
    assert normalising_distance(truth, eyes=eyes(68)) == pytest.approx([20])
    assert normalising_distance(truth, "outer corners") == pytest.approx([26])
    predicted = truth.copy()
    predicted[0, 8, 0] += 2
    assert point_errors(predicted, truth, eyes=eyes(68))[0, 8] == pytest.approx(10)


def test_box_normaliser_takes_given_boxes_or_the_visible_points() -> None:
    truth = np.stack([FACE, moved(FACE, 2, NAN)])
    assert normalising_distance(truth, "box") == pytest.approx([10, 10])
    boxes = [[0, 0, 40, 10], [5, 5, 5, 9]]
    np.testing.assert_allclose(normalising_distance(truth, "box", boxes), [20, NAN])


@given(coordinates, coordinates, st.floats(0.1, 10), st.floats(-math.pi, math.pi), st.floats(-50, 50))
def test_errors_do_not_change_under_similarity_transforms(
    predicted: np.ndarray, truth: np.ndarray, scale: float, angle: float, shift: float
) -> None:
    assume((normalising_distance(truth, eyes=EYES) > 1e-3).all())
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = point_errors(predicted, truth, eyes=EYES)
    np.testing.assert_allclose(
        point_errors(predicted @ turn.T + shift, truth @ turn.T + shift, eyes=EYES), expected, rtol=1e-6, atol=1e-6
    )


@given(st.floats(0.3, 3).filter(lambda factor: abs(factor - 1) > 0.01))
def test_swapping_prediction_and_truth_changes_the_normaliser(factor: float) -> None:
    centre = FACE.mean(0)
    resized = (centre + factor * (FACE - centre))[None]
    forth = face_errors(point_errors(resized, FACE[None], eyes=EYES))
    back = face_errors(point_errors(FACE[None], resized, eyes=EYES))
    np.testing.assert_allclose(forth, factor * back)
    assert abs(forth[0] - back[0]) > 1e-4


@given(coordinates, arrays(np.bool_, (3, 3)), st.floats(-1000, 1000))
def test_invisible_points_have_no_influence(noise: np.ndarray, hidden: np.ndarray, wild: float) -> None:
    truth = np.repeat(FACE[None], 3, axis=0)
    truth[:, 2:][hidden] = NAN
    predicted = FACE + noise
    other = predicted.copy()
    other[:, 2:][hidden] = wild
    first, second = (evaluated(p, truth) for p in (predicted, other))
    np.testing.assert_array_equal(first.face_errors, second.face_errors)
    assert first.mean_error == second.mean_error
    assert [math.isnan(error) for error in first.per_point[2:]] == hidden.all(0).tolist()
    visible = [np.linalg.norm(noise[0, i]) * 10 for i in range(5) if i < 2 or not hidden[0, i - 2]]
    assert first.face_errors[0] == pytest.approx(np.mean(visible))


def test_a_point_with_one_coordinate_is_invisible() -> None:
    truth = FACE.copy()
    truth[3, 1] = NAN
    assert np.isnan(point_errors(FACE[None], truth[None], eyes=EYES)).tolist() == [[False, False, False, True, False]]


def test_faces_without_usable_eyes_are_excluded_and_counted() -> None:
    blind, together = moved(FACE, 0, NAN), FACE.copy()
    together[1] = together[0]
    result = evaluated(np.stack([FACE + 1] * 3), np.stack([FACE, blind, together]))
    assert (result.n, result.excluded) == (1, 2)
    assert np.isnan(result.face_errors).tolist() == [False, True, True]
    assert result.mean_error == pytest.approx(10 * math.sqrt(2))
    assert result.mean_error == result.per_point[4]


@pytest.mark.parametrize("truth", [np.empty((0, 5, 2)), np.full((4, 5, 2), NAN)])
def test_nothing_to_judge_is_a_clear_error(truth: np.ndarray) -> None:
    with pytest.raises(PolyfaceError, match="no face can be evaluated"):
        evaluated(np.zeros_like(truth), truth)


def test_a_missed_face_is_a_failure_without_an_error() -> None:
    truth = np.repeat(FACE[None], 4, axis=0)
    predicted = np.stack([moved(FACE, 2, 1), FACE, FACE, np.full_like(FACE, NAN)])
    result = evaluated(predicted, truth)
    assert (result.n, result.missed) == (4, 1)
    assert result.mean_error == pytest.approx(2 / 3)
    assert result.failure_rate == 25
    assert result.auc == pytest.approx(100 * (0.8 + 1 + 1) / 4)
    assert result.per_point[2] == pytest.approx(10 / 3)
    error = rows("x", {0: result})[0]
    assert error.interval is not None
    assert error.interval[1] <= 2
    all_missed = evaluated(np.full_like(truth, NAN), truth)
    assert math.isnan(all_missed.mean_error)
    assert all_missed.failure_rate == 100
    assert [row.metric for row in rows("x", {0: all_missed})] == ["failure rate"]


@pytest.mark.parametrize("bad", [NAN, math.inf])
def test_a_diverged_network_is_an_error_not_a_better_mean(bad: float) -> None:
    with pytest.raises(PolyfaceError, match="1 faces have non-finite"):
        point_errors(moved(FACE, 3, bad)[None], FACE[None], eyes=EYES)


@pytest.mark.parametrize(
    ("predicted", "truth", "normaliser", "message"),
    [
        (FACE, FACE, "eyes", r"shape \[faces, points, 2\], found \[5, 2\]"),
        (FACE[None], np.stack([FACE, FACE]), "eyes", "do not match"),
        (FACE[None], FACE[None], "eye", "did you mean 'eyes'"),
        (FACE[None], FACE[None], "outer corners", "68 landmarks, not 5"),
        (FACE[None, :4], FACE[None, :4], "eyes", "needs the points of both eyes"),
    ],
)
def test_misuse_is_explained(predicted: np.ndarray, truth: np.ndarray, normaliser: str, message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        point_errors(predicted, truth, normaliser)
    with pytest.raises(PolyfaceError, match=r"boxes must have the shape \[1, 4\]"):
        normalising_distance(FACE[None], "box", [1, 2, 3, 4])


@given(error_lists)
def test_the_ced_rises_from_none_to_the_share_of_successes(errors: np.ndarray) -> None:
    x, fraction = ced(errors)
    assert (x[0], x[-1], len(x)) == (0, 10, 201)
    assert (np.diff(fraction) >= 0).all()
    assert fraction[0] == (errors == 0).mean()
    assert 100 * (1 - fraction[-1]) == pytest.approx(failure_rate(errors))


@given(error_lists)
def test_auc_is_the_area_under_the_ced(errors: np.ndarray) -> None:
    x, fraction = ced(errors, steps=20001)
    assert 0 <= auc(errors) <= 100
    assert auc(errors) == pytest.approx(100 * np.trapezoid(fraction, x) / 10, abs=0.01)


def test_a_perfect_predictor_has_the_whole_area_and_no_error() -> None:
    result = evaluated(FACE[None], FACE[None])
    assert (result.auc, result.mean_error, result.failure_rate) == (100, 0, 0)
    assert auc([1e6, math.inf]) == 0


def test_figures_of_a_pose_are_those_of_its_faces() -> None:
    predicted, truth = faces(60)
    truth[0] = NAN
    poses = [["right", "frontal", None, "left profile"][i % 4] for i in range(60)]
    result = evaluated(predicted, truth)
    groups = {pose: within(result, mask) for pose, mask in groups_of(poses, ("left profile", "frontal")).items()}
    assert [(pose, one.metrics[0].n) for pose, one in groups.items()] == [
        ("left profile", 15), ("frontal", 15), ("right", 14)
    ]  # fmt: skip
    error, failures = rows("frontal", {0: groups["frontal"]})
    assert error.mean == pytest.approx(result.face_errors[1::4].mean())
    assert failures.mean == pytest.approx(100 * (result.face_errors[1::4] > 10).mean())
    assert error.interval is not None
    assert error.interval[0] < error.mean < error.interval[1]


def test_intervals_surround_the_figures() -> None:
    predicted, truth = faces(300)
    result = evaluated(predicted, truth)
    for row in rows("x", {0: result}):
        assert row.interval is not None
        assert row.interval[0] < row.mean < row.interval[1]
        if row.metric == "mean error":
            spread = result.face_errors.std() / math.sqrt(300)
            assert np.ptp(row.interval) == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_a_result_shows_its_error_curve_its_points_and_its_extreme_faces() -> None:
    predicted, truth = faces(30)
    names = ("left eye", "right eye", "nose", "left corner", "right corner")
    result = evaluate_landmarks(predicted, truth, eyes=EYES, names=names)
    curve, points, shown = result.sections()
    assert [section.title for section in (curve, points, shown)] == ["error curve", "by landmark", "faces"]
    assert [line[0] for line in points.blocks[0].rows] == [*names, "all"]  # type: ignore[union-attr]
    best = shown.blocks[1].faces[0]  # type: ignore[union-attr]
    assert best.row == int(result.face_errors.argmin())
    np.testing.assert_array_equal(best.points, predicted[best.row])
    with pytest.raises(PolyfaceError, match="2 names for 5 landmarks"):
        evaluate_landmarks(predicted, truth, eyes=EYES, names=("a", "b"))


def test_extremes_skip_excluded_and_missed_faces() -> None:
    errors = [5.0, NAN, 1.0, 9.0, math.inf, 3.0, 7.0]
    assert extremes(errors, 1) == {"best": [2], "median": [0], "worst": [3]}
    assert extremes(errors, 9)["worst"] == [3, 6, 0, 5, 2]


def test_a_paired_difference_is_sharper_than_the_two_intervals() -> None:
    predicted, truth = faces(400)
    a, b = evaluated(predicted, truth), evaluated(predicted + [0.1, 0], truth)
    found = paired_differences([a], [b])[Metric("mean error")]
    assert found.difference == pytest.approx(a.mean_error - b.mean_error)
    widths = [np.ptp(row.interval) for one in (a, b) for row in rows("x", {0: one})[:1] if row.interval]
    assert len(widths) == 2
    assert np.ptp(found.interval.ends) < 0.3 * np.hypot(*widths)
    assert found.interval.low < found.difference < found.interval.high


def test_seeds_widen_the_paired_interval() -> None:
    truth = np.repeat(FACE[None], 300, axis=0)
    base = np.random.default_rng(1).gamma(2, 3, size=300)
    luck = np.array([-1.0, -0.5, 0, 0.5, 1])  # how far each training run is off

    def run(off: float) -> LandmarkResult:
        """Every point of a face is off by as much: base + 2 + off percent of the distance of 10 between the eyes."""
        return evaluated(truth + (base + 2 + off)[:, None, None] * [0.1, 0], truth)

    a, b = [run(off) for off in luck], [run(0.2 - off) for off in luck]
    mean = Metric("mean error")
    one, several = paired_differences(a[2:3], b[2:3])[mean], paired_differences(a, b)[mean]
    assert (one.runs, several.runs) == (1, 5)
    assert several.difference == pytest.approx(-0.2)
    assert one.interval.high < 0 < several.interval.high
    spread = (2 * luck).std(ddof=1)  # of the differences, seed by seed
    assert np.ptp(several.interval.ends) == pytest.approx(2 * 2.776 * spread / math.sqrt(5), rel=0.01)


def test_a_face_that_one_run_misses_is_in_no_mean_error_of_a_difference_but_fails() -> None:
    truth = np.repeat(FACE[None], 3, axis=0)
    wrong = np.stack([FACE + [1, 0], FACE + [2, 0], FACE + [3, 0]])  # 10, 20, 30 %
    missed = wrong.copy()
    missed[2] = NAN
    found = paired_differences([evaluated(wrong, truth)], [evaluated(missed + [0.5, 0], truth)])
    error, failures = found[Metric("mean error")], found[Metric("failure rate")]
    assert (error.n, error.difference) == (2, pytest.approx(-5))
    assert (failures.n, failures.difference) == (3, pytest.approx(200 / 3 - 100))


def test_rows_summarise_seeds_for_the_results_file() -> None:
    results = {seed: evaluated(*faces(200, seed)) for seed in (0, 1, 2)}
    error, failures = rows("FLD (shared)", results, published={"mean error": 8.0}, note="2,995 public faces")
    means = [result.mean_error for result in results.values()]
    assert (error.row, error.metric, error.n, error.seeds) == ("FLD (shared)", "mean error", 200, (0, 1, 2))
    assert error.mean == pytest.approx(np.mean(means))
    assert error.std == pytest.approx(np.std(means, ddof=1))
    assert error.interval is not None
    assert error.interval[0] < error.mean < error.interval[1]
    assert (error.published, failures.published, error.note) == (8.0, None, "2,995 public faces")
    assert failures.metric == "failure rate"
    assert failures.mean == pytest.approx(np.mean([result.failure_rate for result in results.values()]))
    with pytest.raises(PolyfaceError, match="same faces"):
        rows("FLD", results | {3: evaluated(*faces(100))})


def test_rows_tell_of_excluded_and_missed_faces() -> None:
    predicted, truth = faces(10)
    truth[0], predicted[1] = NAN, NAN
    found = rows("FLD", {0: evaluated(predicted, truth)})
    assert [row.note for row in found] == ["1 faces excluded; 1 faces missed"] * 2
    assert found[0].std is None
    assert found[0].mean == pytest.approx(mean_error(face_errors(point_errors(predicted, truth, eyes=EYES))))


# ------------------------------------------------------------------------------------------------------- by landmark


def test_points_with_names_have_figures_of_their_own_by_hand() -> None:
    """Eyes 10 apart: the left eye is 1 off on one of two faces that show it, the nose 2 on both; the third face, which
    is missed, has no error."""
    truth = np.repeat(FACE[None], 3, axis=0)
    guess = truth.copy()
    guess[0, 0, 0] += 1
    guess[:, 2, 1] -= 2
    guess[2] = np.nan
    names = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
    result = evaluate_landmarks(guess, truth, eyes=([0], [1]), names=names)
    figures = {row.metric: row for row in rows("x", {0: result}, resamples=0)}
    assert [figures[name].mean for name in names] == pytest.approx([5, 0, 20, 0, 0])
    assert [figures[name].n for name in names] == [2] * 5
    assert figures["mean error"].mean == pytest.approx(np.mean([5, 0, 20, 0, 0]))
    assert figures["failure rate"].mean == pytest.approx(100 / 3)
    assert next(iter(figures)) == "mean error"  # by which networks are selected


def test_a_hidden_point_is_left_out_of_its_own_figure_alone() -> None:
    truth = np.repeat(FACE[None], 4, axis=0)
    truth[1, 3] = np.nan
    guess = np.nan_to_num(truth, nan=7.0) + 1.0
    result = evaluate_landmarks(guess, truth, eyes=([0], [1]), names=("a", "b", "c", "d", "e"))
    assert [metric.n for metric in result.metrics] == [4, 4, 4, 4, 4, 3, 4]
    assert result.figure(Metric("d")) == pytest.approx(10 * math.sqrt(2))
    assert [row.metric for row in differences("x", "y", {0: result}, {0: result}, resamples=20)][2:] == list("abcde")
    assert [metric.name for metric in within(result, np.arange(4) < 2).metrics] == ["mean error", "failure rate"]
