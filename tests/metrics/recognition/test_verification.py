"""Verification: numbers by hand, its definitions word for word, oracles, properties, intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.pairs import (
    auc,
    equal_error_rate,
    pair_distances,
    roc,
    shuffled_folds,
    squared_distances,
)
from polyface.metrics.recognition.verification import (
    AUTHORS_GRID,
    mistakes,
)
from polyface.metrics.resampling import resampled_counts
from polyface.metrics.result import rows
from polyface.metrics.sections import Curves

from .verifying import evaluate, system

SAME, OTHER = [0.1, 0.2, 0.6], [0.4, 0.8, 0.9]
HAND = np.array(SAME + OTHER), np.array([True] * 3 + [False] * 3)
seeds = st.integers(0, 2**31)


@st.composite
def folded(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances with many ties, same, and folds, each with pairs of both kinds."""
    count = draw(st.integers(2, 4))
    extra = draw(st.lists(st.tuples(st.booleans(), st.integers(0, count - 1)), max_size=30))
    kinds = [(kind, fold) for fold in range(count) for kind in (True, False)] + extra
    same, folds = (np.array(values) for values in zip(*kinds, strict=True))
    distances = draw(arrays(np.int64, len(kinds), elements=st.integers(0, 12)))
    return distances.astype(float), same, folds


# ----------------------------------------------------------------------------------------------------------- curves


def test_curves_by_hand() -> None:
    """Sorted: same .1, same .2, other .4, same .6, other .8, other .9."""
    far, val = roc(*HAND)
    np.testing.assert_allclose(far, np.array([0, 0, 0, 1, 1, 2, 3]) * 100 / 3)
    np.testing.assert_allclose(val, np.array([0, 1, 2, 2, 3, 3, 3]) * 100 / 3)
    assert auc(*HAND) == pytest.approx(100 * 8 / 9)  # of nine comparisons only .6 < .4 is wrong
    assert equal_error_rate(*HAND) == pytest.approx(100 / 3)  # after .1, .2, .4


def test_equal_distances_are_accepted_together_and_count_half() -> None:
    """Same 1, 2; other 2, 3: of four comparisons three are right and one is a tie."""
    distances, same = [1, 2, 2, 3], [1, 1, 0, 0]
    np.testing.assert_allclose(roc(distances, same), [[0, 0, 50, 100], [0, 50, 100, 100]])
    assert auc(distances, same) == pytest.approx(87.5)
    assert equal_error_rate(distances, same) == pytest.approx(25)  # half way from (0, 50) to (50, 100)
    assert (auc([5] * 7, [1, 0, 0, 1, 0, 0, 0]), equal_error_rate([5] * 7, [1, 0, 0, 1, 0, 0, 0])) == (50, 50)


pairs = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


@given(pairs)
def test_auc_counts_every_pair_of_pairs(drawn: list[tuple[int, bool]]) -> None:
    near, far = ([d for d, same in drawn if same is kind] for kind in (True, False))
    assume(near and far)
    wins = sum((a < b) + (a == b) / 2 for a in near for b in far)
    distances, same = zip(*drawn, strict=True)
    found = auc(distances, same)
    assert found == pytest.approx(100 * wins / (len(near) * len(far)))
    assert found == pytest.approx(100 * mannwhitneyu(far, near).statistic / (len(near) * len(far)))
    assert 0 <= found <= 100
    assert auc(np.negative(distances), same) == pytest.approx(100 - found)
    assert 0 <= equal_error_rate(distances, same) <= 100


@given(seeds)
def test_torchmetrics_agrees(seed: int) -> None:
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    distances, same = system(60, seed, truth_seed=seed)
    assume(same.any() and not same.all())
    distances = distances.round(1)
    # Between 0 and 1, as it wants scores; its own sigmoid takes equal distances apart by a rounding error.
    scores, truth = torch.from_numpy((8 - distances) / 16), torch.from_numpy(same).int()
    assert auc(distances, same) == pytest.approx(100 * metrics.binary_auroc(scores, truth).item(), rel=1e-5)
    far, val, _ = metrics.binary_roc(scores, truth)
    np.testing.assert_allclose(roc(distances, same), 100 * np.stack([far, val]), atol=1e-4)


# ------------------------------------------------------------------------------------------------------- distances


@given(seeds, st.integers(1, 6))
def test_distances_of_unit_vectors(seed: int, width: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(2, 9, width))
    a, b = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    table = squared_distances(a, b)
    assert table.min() >= 0
    assert table.max() <= 4
    np.testing.assert_allclose(table, np.linalg.norm(a[:, None] - b, axis=-1) ** 2, atol=1e-11)
    np.testing.assert_allclose(np.diag(table), pair_distances(a, b), atol=1e-11)
    np.testing.assert_allclose(pair_distances(a, -a), 4)
    assert not pair_distances(a, a).any()
    assert not np.diag(squared_distances(a, a)).any()


def test_equal_faces_are_equally_far() -> None:
    """Copies of a face tie exactly, wherever they stand among thousands of products."""
    vectors = np.random.default_rng(0).normal(size=(700, 333)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[3, 50, 401, 699]] = vectors[3]
    table = squared_distances(vectors[:100], vectors)
    assert (np.ptp(table[:, [3, 50, 401, 699]], axis=1) == 0).all()


def test_embeddings_that_are_not_unit_vectors_are_refused() -> None:
    unit = np.eye(4)
    pair_distances(unit, unit.astype(np.float16) * np.float16(1.005))  # half precision
    with pytest.raises(PolyfaceError, match="1 embeddings of second faces .*first is 2, of length 3.*normalise"):
        pair_distances(unit, unit * [[1], [1], [3], [1]])
    with pytest.raises(PolyfaceError, match="of length nan"):
        squared_distances(unit * np.nan, unit)
    with pytest.raises(PolyfaceError, match=r"found \[4\]"):
        squared_distances(unit[0], unit)
    with pytest.raises(PolyfaceError, match=r"\[4, 4\] and \[3, 4\]"):
        pair_distances(unit, unit[:3])
    with pytest.raises(PolyfaceError, match="4 and of 5 dimensions"):
        squared_distances(unit, np.eye(5))


# ------------------------------------------------------------------------------------------------ accuracy and VAL


def test_accuracy_by_hand() -> None:
    """Fold 0: same .1, other .5; fold 1: same .2, other .4. The threshold of each is the same pair's of the other."""
    distances, same, folds = [0.1, 0.5, 0.2, 0.4], [1, 0, 1, 0], ["a", "a", "b", "b"]
    result = evaluate(distances, same, folds=folds)
    assert result.thresholds == (0.2, 0.1)
    assert result.accuracy.folds == (100, 50)  # .2 is farther than .1
    assert (result.accuracy.value, result.accuracy.std) == pytest.approx((75, 50 / math.sqrt(2)))
    assert result.accepted.tolist() == [True, False, False, False]
    assert (result.n, result.same, result.protocol) == (4, 2, "2 folds")
    assert (result.auc.value, result.auc.folds, result.eer.value) == (100, (100, 100), 0)


def test_a_grid_of_thresholds_is_tried_as_given() -> None:
    distances, same, folds = [0.1, 0.5, 0.2, 0.4], [1, 0, 1, 0], [0, 0, 1, 1]
    result = evaluate(distances, same, folds=folds, grid=AUTHORS_GRID)
    assert result.thresholds == (0.21, 0.11)  # the smallest that is strictly greater than .2, than .1
    assert result.accuracy.folds == (100, 50)
    assert evaluate(distances, same, folds=folds, grid=[0.9, 0.3]).accuracy.value == 100
    turned = evaluate(np.negative(distances), same, folds=folds, grid=[-0.9, -0.3], similarity=True)
    assert turned.thresholds == (-0.3, -0.3)
    assert (len(AUTHORS_GRID), AUTHORS_GRID[0], AUTHORS_GRID[-1]) == (400, 0, 3.99)


def naive_accuracy(distances: np.ndarray, same: np.ndarray, folds: np.ndarray) -> list[float]:
    found = []
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        rates = {t: ((distances[train] <= t) == same[train]).mean() for t in (-np.inf, *np.unique(distances[train]))}
        threshold = next(t for t, rate in rates.items() if rate == max(rates.values()))
        found.append(100 * ((distances[test] <= threshold) == same[test]).mean())
    return found


def naive_val(
    distances: np.ndarray, same: np.ndarray, folds: np.ndarray, far: float, on: str
) -> tuple[list[float], list[float]]:
    found, measured = [], []
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        others = distances[train & ~same]
        threshold = max(t for t in (*others, np.inf) if 100 * (others < t).mean() <= far + 1e-9)
        judged = train if on == "train" else test
        found.append(100 * (distances[judged & same] < threshold).mean())
        measured.append(100 * (distances[judged & ~same] < threshold).mean())
    return found, measured


@given(folded(), st.sampled_from(["test", "train"]))
def test_figures_by_fold_are_their_definitions(drawn: tuple[np.ndarray, np.ndarray, np.ndarray], val_on: str) -> None:
    distances, same, folds = drawn
    fars = (1.0, 20.0, 50.0, 75.0)
    result = evaluate(distances, same, folds=folds, fars=fars, val_on=val_on)
    np.testing.assert_allclose(result.accuracy.folds, naive_accuracy(*drawn))
    for far in fars:
        found, measured = naive_val(*drawn, far, val_on)
        np.testing.assert_allclose(result.val[far].folds, found)
        assert result.val[far].value == pytest.approx(np.mean(found))
        assert result.far[far] == pytest.approx(np.mean(measured))
        if val_on == "train":
            assert result.far[far] <= far + 1e-9
    values = [result.val[far].value for far in fars]
    assert values == sorted(values)  # VAL is non-decreasing in FAR
    right = [((result.accepted == same)[folds == fold]).mean() for fold in np.unique(folds)]
    np.testing.assert_allclose(result.accuracy.folds, 100 * np.array(right))


@given(folded(), seeds)
def test_auc_and_eer_of_each_fold_are_averaged(drawn: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int) -> None:
    """As they are, and drawn again: pairs that are there twice are as if they were listed twice."""
    distances, same, folds = drawn
    counts = np.random.default_rng(seed).integers(1, 3, len(same)).astype(np.int32)
    whole = evaluate(distances, same, folds=folds, each_fold=True)
    twice = evaluate(
        *(np.repeat(each, counts) for each in (distances, same)), folds=np.repeat(folds, counts), each_fold=True
    )
    assert whole.key != evaluate(distances, same, folds=folds).key
    for metric in whole.metrics[1:3]:
        of_one = {"AUC": auc, "EER": equal_error_rate}[metric.name]
        expected = np.mean([of_one(distances[folds == fold], same[folds == fold]) for fold in np.unique(folds)])
        assert whole.figure(metric) == pytest.approx(expected)
        assert whole.at(np.ones((1, len(same)), np.int32), [metric])[metric] == pytest.approx(expected)
        assert whole.at(counts[None], [metric])[metric] == pytest.approx(twice.figure(metric))


@given(folded(), st.randoms())
def test_only_order_and_folds_count(drawn: tuple[np.ndarray, np.ndarray, np.ndarray], random: object) -> None:
    """Any increasing function of the distances, its negative as a similarity, any order of the pairs."""
    distances, same, folds = drawn
    plain = evaluate(distances, same, folds=folds, fars=(5, 30))
    order = np.argsort([random.random() for _ in distances])  # type: ignore[attr-defined]
    others = [
        evaluate(np.exp(distances), same, folds=folds, fars=(5, 30)),
        evaluate(-np.sqrt(distances), same, folds=folds, fars=(5, 30), similarity=True),
        evaluate(distances[order], same[order], folds=folds[order], fars=(5, 30)),
    ]
    for other in others:
        assert other.figures == plain.figures
        assert other.far == plain.far
    # -inf accepts no pair, whatever the unit of the distances.
    expected = [math.exp(threshold) if threshold > -np.inf else -np.inf for threshold in plain.thresholds]
    assert others[0].thresholds == pytest.approx(expected)
    assert (others[2].accepted == plain.accepted[order]).all()
    assert 0 <= plain.accuracy.value <= 100


def test_perfect_and_random_systems() -> None:
    same = np.random.default_rng(0).random(2000) < 0.5
    perfect = evaluate(np.where(same, 0.5, 1.5), same)
    assert {name: figure.value for name, figure in perfect.figures.items()} == {
        "verification": 100, "AUC": 100, "EER": 0, "VAL@0.1%": 100, "VAL@1%": 100
    }  # fmt: skip
    # The farthest same pairs, as long as one fold has them all, are farther than any that its threshold has seen.
    distances, folds = np.where(same, 0.0, 2.0) + np.random.default_rng(1).random(2000), shuffled_folds(same, 10)
    far_first = folds[same][np.argsort(-distances[same])]
    lost = int(np.argmax(far_first != far_first[0]))
    spread = evaluate(distances, same, folds=folds)
    expected = np.full(10, 100.0)
    expected[far_first[0]] -= 100 * lost / (folds == far_first[0]).sum()
    assert lost
    np.testing.assert_allclose(spread.accuracy.folds, expected)
    guess = evaluate(np.random.default_rng(2).random(2000), same)
    assert [guess.accuracy.value, guess.auc.value, guess.eer.value] == pytest.approx([50] * 3, abs=4)
    assert guess.val[1.0].value == pytest.approx(1, abs=1)
    assert evaluate(np.where(same, 1.5, 0.5), same).auc.value == 0


def test_val_on_the_training_folds_is_a_point_of_their_roc() -> None:
    distances, same = system(600)
    folds = shuffled_folds(same, 3)
    result = evaluate(distances, same, folds=folds, val_on="train")
    expected = []
    for fold in range(3):
        far, val = roc(distances[folds != fold], same[folds != fold])
        expected.append(val[far <= 1].max())
    np.testing.assert_allclose(result.val[1.0].folds, expected)
    assert "VAL on those that gave the threshold" in result.protocol


def test_shuffled_folds_share_both_kinds_out() -> None:
    same = np.arange(103) < 41
    folds = shuffled_folds(same, 10, seed=3)
    for kind in (same, ~same):
        counts = np.bincount(folds[kind], minlength=10)
        assert np.ptp(counts) <= 1
    assert (folds == shuffled_folds(same, 10, seed=3)).all()
    assert (folds != shuffled_folds(same, 10, seed=4)).any()
    distances = np.linspace(0, 1, 103)
    assert evaluate(distances, same, seed=3).figures == evaluate(distances, same, folds=folds).figures


# ------------------------------------------------------------------------------------------ a threshold from elsewhere


def test_calibration_by_hand() -> None:
    """Validation says: the same up to .3. VAL@50%: below the second other pair of validation, at .7."""
    validation = [0.1, 0.3, 0.35, 0.7], [1, 1, 0, 0]
    result = evaluate([0.2, 0.31, 0.5, 0.9], [1, 1, 0, 0], calibration=validation, fars=(50,))
    assert (result.thresholds, result.accuracy.value, result.accuracy.std) == ((0.3,), 75, None)
    assert (result.val[50].value, result.far[50]) == (100, 50)
    assert result.accepted.tolist() == [True, False, False, False]
    assert (result.n, result.protocol) == (4, "thresholds of 4 other pairs")
    assert (result.auc.value, result.eer.value) == (100, 0)  # of the judged pairs alone


@given(seeds)
def test_judged_pairs_do_not_move_the_threshold(seed: int) -> None:
    validation, (distances, same) = system(100, 7), system(100, seed, truth_seed=5)
    result = evaluate(distances, same, calibration=validation)
    other = evaluate(distances[:7], same[:7], calibration=validation)
    assert result.thresholds == other.thresholds
    assert (result.accepted == (distances <= result.thresholds[0])).all()
    assert result.accuracy.value == pytest.approx(100 * (result.accepted == same).mean())
    assert result.auc.value == pytest.approx(auc(distances, same))


# ------------------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("calibrated", [False, True])
def test_intervals_are_those_of_resampled_pairs(calibrated: bool) -> None:
    """Against a bootstrap written out: draw pairs, each with its fold, and judge them anew."""
    distances, same = system(300)
    folds, resamples = np.zeros(300, int) if calibrated else shuffled_folds(same, 3), 400
    validation = system(200, 9, truth_seed=9)
    by: dict[str, object] = {"calibration": validation} if calibrated else {"folds": folds}
    result = evaluate(distances, same, fars=(10, 95), **by)
    drawn: dict[str, list[float]] = {name: [] for name in result.figures}
    for counts in np.concatenate(list(resampled_counts(300, resamples, seed=0))):
        drawn_pairs = np.repeat(np.arange(300), counts)
        d, s, f = (values[drawn_pairs] for values in (distances, same, folds))
        if calibrated:
            by_fold = evaluate(d, s, calibration=validation, fars=(10, 95))
            val = {far: by_fold.val[far].folds for far in (10, 95)}
        else:
            val = {far: naive_val(d, s, f, far, "test")[0] for far in (10, 95)}
        right = (result.accepted == same)[drawn_pairs]
        drawn["verification"].append(float(np.mean([100 * right[f == fold].mean() for fold in np.unique(f)])))
        drawn["AUC"].append(auc(d, s))
        drawn["EER"].append(equal_error_rate(d, s))
        drawn["VAL@10%"].append(float(np.mean(val[10])))
        drawn["VAL@95%"].append(float(np.mean(val[95])))
    for row in rows("x", {0: result}, resamples=resamples):
        assert row.interval is not None
        np.testing.assert_allclose(row.interval, np.quantile(drawn[row.metric], [0.025, 0.975]), err_msg=row.metric)
        assert row.interval[0] <= row.mean <= row.interval[1]


def test_thirteen_thousand_pairs_take_seconds() -> None:
    """A second of one core; eight are allowed, for a machine that is busy."""
    before = time.process_time()
    rows("x", {0: evaluate(*system(13_000))}, resamples=1000)
    assert time.process_time() - before < 8


# -------------------------------------------------------------------------------------------------------- mistakes


def test_the_clearest_mistakes_come_first() -> None:
    distances = np.array([0.1, 0.9, 0.8, 0.3, 0.2, 1.5, 0.5])
    same = np.array([True, True, True, False, False, False, True])
    result = evaluate(distances, same, calibration=([0.4, 0.5, 0.6], [1, 1, 0]))
    assert mistakes(result) == {"false positives": [4, 3], "false negatives": [1, 2]}
    assert mistakes(result, 1) == {"false positives": [4], "false negatives": [1]}


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d, s: (d[:5], s), r"scores \[5\] and same \[20\]"),
        (lambda d, s: (d[:0], s[:0]), "no pair to verify"),
        (lambda d, s: (np.where(np.arange(20) == 4, np.nan, d), s), "1 pairs .*first is pair 4.*diverged"),
        (lambda d, s: (np.where(np.arange(20) > 17, np.inf, d), s), "2 pairs .*first is pair 18"),
        (lambda d, s: (d, s * 2), "same must be bool"),
        (lambda d, s: (d, np.ones(20)), "one kind has 0"),
    ],
)
def test_bad_pairs_are_explained(change: Callable[..., tuple[np.ndarray, np.ndarray]], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        evaluate(*change(*system(20)), folds=2)
    assert "\n" not in str(caught.value)


def test_curves_of_one_kind_of_pairs_are_refused() -> None:
    with pytest.raises(PolyfaceError, match="all 3 pairs are same"):
        auc([1, 2, 3], [1, 1, 1])
    with pytest.raises(PolyfaceError, match="all 2 pairs are different"):
        roc([1, 2], [False, False])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"folds": [0] * 19 + [1]}, "all 1 pairs of fold 1 are (same|different): use fewer folds"),
        ({"folds": [0] * 20}, "all pairs are in one fold"),
        ({"folds": [0, 1]}, r"folds \[2\] must hold one fold for each of the 20 pairs"),
        ({"folds": 1}, "at least 2, not 1"),
        ({"folds": 15}, "15 folds need as many"),
        ({"folds": 2, "fars": (1, 0)}, "between 0 and 100, not 0"),
        ({"folds": 2, "val_on": "both"}, "not 'both'"),
        ({"calibration": ([1, 2], [0, 0])}, "all calibrating pairs are different"),
        ({"calibration": ([], [])}, "no pair to verify"),
    ],
)
def test_bad_settings_are_explained(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        evaluate(*system(20), **settings)


def test_curves_are_shown_of_many_pairs() -> None:
    """The largest VAL at each FAR, from that of a single pair on; what is never rejected has no place on a log axis."""
    distances, same = system(500)
    roc_, det_ = (section.blocks[0] for section in evaluate(distances, same).sections())
    assert isinstance(roc_, Curves)
    assert isinstance(det_, Curves)
    far, val = (np.asarray(axis) for axis in roc_.curves[""])
    whole = roc(distances, same)
    assert val.tolist() == [whole[1][whole[0] <= level * (1 + 1e-9)].max() for level in far]
    assert (far[0], far[-1]) == (pytest.approx(100 / (~same).sum()), pytest.approx(100))
    np.testing.assert_array_equal(det_.curves[""][1], np.where(val < 100, 100 - val, np.nan))
    assert roc_.legend == f"AUC {auc(distances, same):.1f} %"
