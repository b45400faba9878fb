"""Search of a gallery: places by hand, ties that lose, galleries drawn, probes that are excluded, rows and pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.retrieval import (
    RetrievalResult,
    cmc,
    draw_gallery,
    evaluate_retrieval,
)
from polyface.metrics.resampling import PairedDifference
from polyface.metrics.result import paired_differences, rows

PROBES, FACES = ["ann", "bob", "eve"], ["ann", "bob", "cat", "bob"]
# ann's own face is nearest; bob's nearer one is third; nobody shows eve.
DISTANCES = np.array([[0.1, 0.5, 0.9, 0.7], [0.2, 0.9, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]])


def rates(distances: Any, probes: Any, faces: Any, *ranks: int, **options: Any) -> list[float]:
    found = evaluate_retrieval(distances, probes, faces, ranks=ranks or (1,), **options)
    return [figure.value for figure in found.rate.values()]


# ------------------------------------------------------------------------------------------------------------- places


def test_by_hand() -> None:
    found = evaluate_retrieval(DISTANCES, PROBES, FACES, ranks=(1, 2, 3))
    np.testing.assert_array_equal(found.places, [[1, 3, np.nan]])
    assert {rank: figure.value for rank, figure in found.rate.items()} == {1: 50, 2: 50, 3: 100}
    assert (found.n, found.excluded, found.draws, found.gallery) == (2, 1, 1, 4)


def test_a_face_of_another_person_that_is_as_near_counts_as_nearer() -> None:
    """Whatever the order of the gallery: a network that answers the same for everybody finds nobody."""
    for faces in (["ann", "bob", "cat"], ["cat", "bob", "ann"]):
        assert rates(np.zeros((1, 3)), ["ann"], faces, 1, 2, 3) == [0, 0, 100]
    # two strangers at ann's distance and one behind her: she is third
    assert rates([[0.5, 0.5, 0.5, 0.6]], ["ann"], ["bob", "ann", "cat", "dan"], 2, 3) == [0, 100]


def test_equal_faces_of_ones_own_do_not_push_each_other_back() -> None:
    assert rates([[0.5, 0.5, 0.7]], ["ann"], ["ann", "ann", "bob"]) == [100]


def test_a_probe_never_finds_itself() -> None:
    people = ["ann", "ann", "bob", "bob"]
    distances = np.abs(np.subtract.outer([0.0, 3, 1, 5], [0.0, 3, 1, 5]))  # places on a line
    assert rates(distances, people, people) == [100]
    # without itself: ann's other picture is second for 0 and third for 3, bob's third for 1 and second for 5
    assert rates(distances, people, people, 1, 2, 3, never=np.eye(4, dtype=bool)) == [0, 50, 100]
    assert rates(distances[:1], people[:1], people, never=np.zeros((1, 4), bool)) == [100]


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 1000))
def test_the_place_is_one_more_than_the_strangers_that_are_not_farther(probes: int, faces: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    distances = draw.integers(0, 4, (probes, faces)).astype(float)  # many ties
    asked, known = draw.choice(list("abc"), probes), draw.choice(list("abc"), faces)
    if not set(asked) & set(known):
        return
    found = evaluate_retrieval(distances, asked, known).places[0]
    for probe, place in enumerate(found):
        own = [distances[probe, face] for face in range(faces) if known[face] == asked[probe]]
        strangers = [distances[probe, face] for face in range(faces) if known[face] != asked[probe]]
        expected = 1 + sum(other <= min(own) for other in strangers) if own else np.nan
        np.testing.assert_equal(place, expected)


# ---------------------------------------------------------------------------------------------------------- galleries


def test_a_drawn_gallery_holds_one_face_a_person_and_depends_on_seed_and_number_alone() -> None:
    people = ["bob", "ann", "ann", "cat", "ann", "bob"]
    drawn = draw_gallery(people, 40, seed=3)
    for faces in drawn:
        assert [people[face] for face in faces] == ["ann", "bob", "cat"]
    assert {int(faces[0]) for faces in drawn} == {1, 2, 4}  # every face of a person comes up
    for faces, again in zip(drawn, draw_gallery(people, 5, seed=3), strict=False):
        np.testing.assert_array_equal(faces, again)
    assert any(not np.array_equal(a, b) for a, b in zip(drawn, draw_gallery(people, 40, seed=4), strict=True))


def test_rates_are_means_over_galleries_and_their_spread_is_over_galleries() -> None:
    """In the first gallery both are found at once, in the second ann alone, in the third nobody."""
    distances = [[0, 5, 6, 1, 2, 7], [5, 0, 7, 1, 6, 2]]
    faces = ["ann", "bob", "bob", "cat", "ann", "bob"]
    galleries = [[0, 1, 3], [0, 2, 3], [4, 5, 3]]
    found = evaluate_retrieval(distances, ["ann", "bob"], faces, galleries=galleries, ranks=(1, 2))
    np.testing.assert_array_equal(found.places, [[1, 1], [1, 3], [2, 2]])
    assert found.rate[1].value == pytest.approx(50)
    assert found.rate[1].std == pytest.approx(50)  # of 100, 50 and 0
    assert found.rate[2].value == pytest.approx(250 / 3)
    assert (found.draws, found.gallery) == (3, 3)


def test_the_cmc_rises_to_all_and_passes_through_every_rank() -> None:
    draw = np.random.default_rng(0)
    people = np.repeat(list("abcdef"), 3)
    found = evaluate_retrieval(
        draw.random((18, 18)), people, people, galleries=draw_gallery(people, 4), ranks=(1, 3, 6)
    )
    ranks, curve = cmc(found)
    assert ranks.tolist() == [1, 2, 3, 4, 5, 6]
    assert (np.diff(curve) >= 0).all()
    for rank, figure in found.rate.items():
        assert curve[rank - 1] == pytest.approx(figure.value)
    assert curve[-1] == 100
    assert len(cmc(found, 2)[1]) == 2


def test_the_interval_is_that_of_a_share_of_probes() -> None:
    """400 probes of which a quarter is found: ± 1.96 √(.25 · .75 / 400) = ± 4.2 points."""
    (row, _) = rows("ours", {0: run([*range(100)], n=400)})
    assert row.mean == 25
    assert row.interval == pytest.approx((20.8, 29.2), abs=0.8)


# ------------------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    "change, message",
    [
        ({"distances": DISTANCES[:, :3]}, r"distances must be \[3 probes, 4 faces\], found \[3, 3\]"),
        ({"distances": np.where(DISTANCES == 0.9, np.nan, DISTANCES)}, "2 probes .* not finite .*first is probe 0"),
        ({"probe_people": ["ann", None, None]}, "probes: 2 have no person .the first is 1"),
        ({"gallery_people": []}, "gallery: expected a person for each of at least one face"),
        ({"probe_people": ["x", "y", "z"]}, "a gallery holds nobody that a probe shows"),
        ({"ranks": (0, 1)}, "ranks count from 1"),
        ({"galleries": []}, "no gallery to search"),
        ({"galleries": [[0, 0]]}, "different ones from 0 to 3"),
        ({"galleries": [[0.5]]}, "a gallery is a list of rows, found float64"),
        ({"never": [0, 1, 4]}, r"never must be bool \[3, 4\], found int64 \[3\]"),
        ({"groups": {"dark": [True, False]}}, r"group dark must be bool \[3\], found bool \[2\]"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"distances": DISTANCES, "probe_people": PROBES, "gallery_people": FACES} | change
    with pytest.raises(PolyfaceError, match=message):
        evaluate_retrieval(**given)


# ---------------------------------------------------------------------------------------------- rows and differences


def run(found: list[int], n: int = 100, prefix: str = "") -> RetrievalResult:
    """A run that finds these of `n` probes at rank 1, and all others at rank 2."""
    distances = np.tile([1.0, 2.0], (n, 1))
    distances[found] = [2.0, 1.0]
    return evaluate_retrieval(distances, ["ann"] * n, ["bob", "ann"], ranks=(1, 2), prefix=prefix)


def test_rows_are_means_over_seeds() -> None:
    runs = {0: run([*range(50)], prefix="C2P "), 1: run([*range(60)], prefix="C2P ")}
    first, second = rows("ours", runs)
    assert [first.metric, second.metric] == ["C2P rank-1", "C2P rank-2"]
    assert (first.mean, first.n, first.seeds) == (55, 100, (0, 1))
    assert first.std == pytest.approx(50**0.5)  # of 50 and 60
    assert first.interval is not None
    assert first.interval[0] < 55 < first.interval[1]
    assert second.mean == 100


def difference(a: RetrievalResult, b: RetrievalResult, rank: int = 1) -> PairedDifference:
    return {metric.name: found for metric, found in paired_differences([a], [b]).items()}[f"rank-{rank}"]


def test_the_difference_is_paired_over_probes() -> None:
    """b finds what a finds and ten more: the rates spread by 5 points over probes, their difference by 3."""
    a, b = run([*range(60)]), run([*range(50)])
    found = difference(a, b)
    assert (found.difference, found.n) == (pytest.approx(10), 100)
    assert found.interval.ends == pytest.approx((4.5, 16), abs=1.5)
    assert difference(b, a).difference == pytest.approx(-10)
    assert difference(a, b, rank=2).difference == 0
    with pytest.raises(PolyfaceError, match="same probes"):
        difference(a, run([1], n=99))
