"""Search of a gallery, and verification of all pairs beside it: by hand, properties, lists of a reader, bad input."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lists import HAND, PEOPLE, Answers, MadeUp, evaluation_set, figures, on_circle, results, system, table_of

from polyface import protocols
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.result import differences, rows

WEB = ["C2P rank-1", "C2P rank-10", "P2C rank-1", "P2C rank-10", "VAL@1%", "AUC"]


def named(found) -> dict[str, float]:
    return {prefix + metric: value for prefix, one in found.items() for metric, value in figures(one).items()}


def test_both_ways_by_hand(six: FaceTable) -> None:
    """Who has one face of each kind is in every gallery. bob's caricature (100) is nearer to ann's photo (40) than to
    his own (190), and his photo nearer to cid's caricature (270)."""
    found = results("webcaricature", HAND, six, draws=3)
    assert list(found) == ["", "C2P ", "P2C "]
    for way in ("C2P ", "P2C "):
        assert figures(found[way]) == pytest.approx({"rank-1": 200 / 3, "rank-10": 100})
        assert (found[way].metrics[0].n, found[way].metrics[0].folds) == (3, "3 draws of the gallery")
    assert figures(found[""]) == pytest.approx({"AUC": 100 * 15 / 18, "VAL@0.1%": 200 / 3, "VAL@1%": 200 / 3})
    assert found[""].metrics[0].n == 9


def test_by_default_every_face_is_sought_among_the_others(tmp_path: Path) -> None:
    """ann at 0 and 10 degrees, bob at 90 and 100: whichever two are drawn, each finds the own one. With bob's faces a
    degree beside ann's, one who has no face so near in the gallery takes the other's."""
    table = table_of(tmp_path / "t.parquet", [("ann", "photo"), ("ann", "photo"), ("bob", "photo"), ("bob", "photo")])
    found = results("gallery-probe", {"x": {"embedding": on_circle(0, 10, 90, 100)}}, table, draws=4)
    assert list(found) == [""]
    assert figures(found[""])["rank-1"] == 100
    assert found[""].metrics[0].n == 4  # each probe is in some galleries itself, and never found there as such
    mixed = results("gallery-probe", {"x": {"embedding": on_circle(0, 50, 1, 51)}}, table, draws=8)
    assert figures(mixed[""])["rank-1"] < 100


def test_lists_of_a_reader(six: FaceTable) -> None:
    """Photos of ann and bob as the gallery; cid, whom it lacks, is excluded. Only bob is taken for ann."""
    paths = [six.path(row) for row in range(6)]
    MadeUp.offered["searches"] = {"C2P": SimpleNamespace(gallery=[paths[1], paths[3]], probes=paths[::2])}
    found = results("gallery-probe", HAND, six, reader="made-up", embedding="verification")
    assert named(found) == pytest.approx({"C2P rank-1": 50, "C2P rank-10": 100})
    assert "1 probes without their person in the gallery" in found["C2P "].metrics[0].note
    MadeUp.offered["searches"] = {"C2P": SimpleNamespace(gallery=["photo/eve/9"], probes=paths[::2])}
    with pytest.raises(PolyfaceError, match="1 of . images of the lists are not in the table, such as photo/eve/9"):
        results("gallery-probe", HAND, six, reader="made-up")


def test_the_embedding_is_that_named_or_the_only_one(many: FaceTable) -> None:
    answers = system(many)
    found = named(results("webcaricature", answers, many))
    assert named(results("webcaricature", {"dlib": answers["verification"]}, many)) == found
    assert named(results("webcaricature", answers, many, embedding="visual")) != found


def test_a_person_without_a_photo_is_excluded_and_counted(tmp_path: Path) -> None:
    faces = [(person, kind) for person in PEOPLE for kind in ("caricature", "photo")] + [("dan", "caricature")]
    table = table_of(tmp_path / "t.parquet", faces)
    answers = {"verification": {"embedding": np.concatenate([HAND["verification"]["embedding"], on_circle(230)])}}
    found = results("webcaricature", answers, table)
    assert [found[way].metrics[0].n for way in ("C2P ", "P2C ")] == [3, 3]
    assert [found[way].units for way in ("C2P ", "P2C ")] == [4, 3]
    assert found[""].metrics[0].n == 12


def test_groups_of_probes_and_of_people(tmp_path: Path) -> None:
    """A probe is of its own word; a person of that which all faces of his have, or "mixed"."""
    faces = [(person, kind) for person in PEOPLE for kind in ("caricature", "photo")]
    pose = ["left", "left", "left", "right", "right", "right"]
    table = table_of(tmp_path / "t.parquet", faces, pose=pose)
    protocol = protocols.build(protocols.settings("webcaricature"))
    cases = protocol.cases(evaluation_set(table))
    groups = {
        prefix: {word: np.flatnonzero(units).tolist() for word, units in cases.groups(prefix, "pose").items()}
        for prefix in ("", "C2P ", "P2C ")
    }
    assert groups["C2P "] == {"left": [0, 1], "right": [2]}
    assert groups["P2C "] == {"left": [0], "right": [1, 2]}
    assert groups[""] == {"left": [0], "right": [2], "mixed": [1]}


# --------------------------------------------------------------------------------------------------------- properties


@given(st.integers(0, 2**31), st.floats(0.05, 0.8))
@settings(max_examples=10)
def test_rank_10_is_no_less_than_rank_1_and_pairs_are_of_no_order(many: FaceTable, seed: int, noise: float) -> None:
    answers = system(many, seed, noise)
    found = results("webcaricature", answers, many, draws=2)
    for way in ("C2P ", "P2C "):
        values = figures(found[way])
        assert 0 <= values["rank-1"] <= values["rank-10"] <= 100
    order = np.random.default_rng(seed).permutation(len(many))
    moved = {task: {key: values[order] for key, values in answer.items()} for task, answer in answers.items()}
    assert figures(results("webcaricature", moved, many.take(order), draws=2)[""]) == figures(found[""])


def test_perfect_answers_give_100(many: FaceTable) -> None:
    assert set(named(results("webcaricature", system(many, noise=0), many)).values()) == {100}


def test_galleries_are_drawn_by_the_seed_alone(many: FaceTable) -> None:
    protocol = protocols.build(protocols.settings("webcaricature") | {"seed": 4})
    one, other = (protocol.cases(evaluation_set(many)).searches for _ in range(2))
    assert all(map(np.array_equal, one["C2P "].galleries, other["C2P "].galleries))
    assert len(one["C2P "].galleries) == 10


# ---------------------------------------------------------------------------------------------- rows, differences


def test_rows_and_differences_of_splits(many: FaceTable) -> None:
    people = sorted(set(many.words("identity")))
    halves = [many.where(identity=people[:6]), many.where(identity=people[6:])]
    a, b = (
        [results("webcaricature", system(half, split, noise), half, draws=3) for split, half in enumerate(halves)]
        for noise in (0.2, 0.7)
    )
    found = {}
    for prefix in a[0]:
        sides = [{split: one[prefix] for split, one in enumerate(side)} for side in (a, b)]
        for row in differences("a", "b", *sides, prefix=f"within {prefix}", splits=True, resamples=100):
            found[row.metric] = row
        for row in rows("a", sides[0], prefix=f"within {prefix}", splits=True, resamples=100):
            assert row.interval is not None, row.metric
    assert {f"within {metric}" for metric in WEB} <= found.keys()
    assert found["within AUC"].mean > 0
    assert found["within AUC"].n == 2 * 18 * 12
    assert found["within C2P rank-1"].n == 36


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "answers, message",
    [
        ({}, "answers of no task: none has an embedding"),
        ({"caricature": HAND["caricature"]}, "answers of caricature: none has an embedding"),
        ({"a": HAND["verification"], "b": HAND["verification"]}, "among the embeddings a, b: name one"),
        ({"x": {"embedding": HAND["verification"]["embedding"][:, 0]}}, r"embedding \[6\] for a table of 6 faces"),
        ({"x": {"embedding": HAND["verification"]["embedding"] * np.nan}}, "not of length 1"),
    ],
)
def test_bad_embeddings_are_explained(six: FaceTable, answers: Answers, message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        results("webcaricature", answers, six)
    assert "\n" not in str(caught.value)


def test_faces_that_cannot_be_compared_are_refused(six: FaceTable, tmp_path: Path) -> None:
    faces = [(person, kind) for person in PEOPLE for kind in ("caricature", "photo")] + [(None, "photo")]
    table = table_of(tmp_path / "t.parquet", faces)
    with pytest.raises(PolyfaceError, match="1 of the 4 faces of the gallery have no identity: leave them out"):
        results("webcaricature", {"x": {"embedding": on_circle(*range(7))}}, table)
    answers = {"verification": {"embedding": HAND["verification"]["embedding"][:4]}}
    with pytest.raises(PolyfaceError, match="2 people are on faces of both kinds: three are needed"):
        results("webcaricature", answers, six.where(identity=["ann", "bob"]))
    with pytest.raises(PolyfaceError, match="none of the 3 faces is one of modality photo"):
        results("webcaricature", answers, six.where(modality="caricature"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"serches": {}}, "unknown option 'serches'; did you mean 'searches'"),
        ({"searches": {"a": {"probe": {}}}}, "searches.a: unknown key 'probe'; there are probes and gallery"),
        ({"verify": "P2P"}, "verify is 'P2P', which is none of the searches C2P, P2C"),
    ],
)
def test_mistakes_in_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        protocols.build(protocols.settings("webcaricature") | options)


# -------------------------------------------------------------------------------- kinds of probes, moments, people


def cameras(tmp_path: Path) -> FaceTable:
    """ann and bob, each in the light (two cameras at one moment) and in the dark (likewise)."""
    faces = [(person, "photo") for person in ("ann", "bob") for _ in range(4)]
    pose, moment = ["frontal", "left"] * 4, [f"{p}{m}" for p in "ab" for m in (1, 1, 2, 2)]
    illumination = ["day", "day", "night", "night"] * 2
    return table_of(tmp_path / "t.parquet", faces, pose=pose, source=moment, illumination=illumination)


ONE = {"searches": {"": {"gallery": {"pose": "frontal", "illumination": "day"}}}}
TURNED = {"x": {"embedding": on_circle(0, 5, 10, 80, 90, 85, 15, 70)}}


def test_kinds_of_probes_have_figures_of_their_own(tmp_path: Path) -> None:
    """The gallery is at 0 (ann) and 90 (bob); ann at 80 and bob at 15 are taken for the other."""
    groups = {"turned": {"pose": ["left", "right"]}, "dark": {"illumination": "night"}}
    found = results("gallery-probe", TURNED, cameras(tmp_path), **ONE, groups=groups, draws=2)[""]
    assert figures(found) == pytest.approx(
        {"rank-1": 400 / 6, "rank-10": 100, "rank-1 turned": 75, "rank-1 dark": 50}, abs=1e-6
    )
    assert {metric.name: metric.n for metric in found.metrics}["rank-1 dark"] == 4
    with pytest.raises(PolyfaceError, match="groups.dim: none of the 8 probes is of it|none of the 8 faces"):
        results("gallery-probe", TURNED, cameras(tmp_path), **ONE, groups={"dim": {"illumination": "dim"}})


def test_a_probe_of_the_moment_of_the_gallery_is_not_judged(tmp_path: Path) -> None:
    found = results("gallery-probe", TURNED, cameras(tmp_path), **ONE, apart="source")[""]
    assert found.metrics[0].n == 4  # those in the dark
    assert figures(found)["rank-1"] == 50


def test_people_are_drawn_with_all_their_faces(tmp_path: Path) -> None:
    table = cameras(tmp_path)
    found = results("gallery-probe", TURNED, table, **ONE, over="people")
    assert (found[""].units, found[""].over) == (2, "people")
    cases = protocols.build({"name": "gallery-probe", **ONE, "over": "people"}).cases(evaluation_set(table))
    assert [rows.tolist() for rows in cases.units[""]] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(PolyfaceError, match="tasks needs over: people"):
        results("gallery-probe", TURNED, table, **ONE, tasks=["pose"])
    with pytest.raises(PolyfaceError, match="evaluation.protocol.over.*'persons'"):
        results("gallery-probe", TURNED, table, **ONE, over="persons")
