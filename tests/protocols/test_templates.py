"""Templates: what is averaged and how it is compared, by hand; properties; bad input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lists import MadeUp, evaluation_set, figures, on_circle, table_of

from polyface import protocols
from polyface.data.readers.common import Template, TemplateSplit
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.result import Result
from polyface.protocols.base import Embedded

Media = list[list[int]]
"""The rows of each medium's faces."""


@pytest.fixture(scope="session")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> FaceTable:
    people = [person for person in ("ann", "bob", "cid") for _ in range(4)]
    return table_of(tmp_path_factory.mktemp("twelve") / "t.parquet", [(person, "photo") for person in people])


def offered(
    table: FaceTable, templates: Mapping[str, Media], pairs: str = "", probes: str = "", gallery: str = ""
) -> Any:
    """A split of templates whose names begin with a person's initial; pairs as "a1-a2 a1-b1", the rest as "a1 b1"."""
    people = {"a": "ann", "b": "bob", "c": "cid"}
    listed = {
        name: Template(people[name[0]], [[table.path(row) for row in medium] for medium in media])
        for name, media in templates.items()
    }
    compared = [(first, second) for first, _, second in (pair.partition("-") for pair in pairs.split())]
    return TemplateSplit(listed, compared, probes.split(), gallery.split())


def results(
    table: FaceTable, vectors: np.ndarray, *splits: TemplateSplit, key: str = "embedding", **options: Any
) -> Mapping[str, Result]:
    MadeUp.offered["templates"] = {str(number): split for number, split in enumerate(splits, 1)}
    protocol = protocols.build({"name": "templates", "reader": "made-up", **options})
    return protocol.evaluate({"face": {key: vectors}}, protocol.cases(evaluation_set(table)))


def vectors(table: FaceTable, embedding: np.ndarray, media: Media, similarity: str = "cosine") -> np.ndarray:
    """The vector of one template."""
    MadeUp.offered["templates"] = {"1": offered(table, {"a1": media}, "a1-a1")}
    protocol = protocols.build({"name": "templates", "reader": "made-up"})
    (split,) = protocol.cases(evaluation_set(table)).splits
    return split.pool(Embedded(embedding, similarity == "inner")).vectors[0]


CIRCLE = on_circle(0, 0, 90, 90, 45, 50, 180, 200, 270, 280, 60, 0)


def test_a_video_is_averaged_first(twelve: FaceTable) -> None:
    """Two frames at 0 and one at 90 are (2/3, 1/3); with a picture at 90, (1/3, 2/3)."""
    assert vectors(twelve, CIRCLE, [[0, 1, 2], [3]], "inner") == pytest.approx([1 / 3, 2 / 3])
    assert vectors(twelve, CIRCLE, [[0, 1, 2], [3]]) == pytest.approx(np.array([1, 2]) / np.sqrt(5))
    assert vectors(twelve, CIRCLE, [[0], [1], [2], [3]]) == pytest.approx(np.sqrt([0.5, 0.5]))
    assert vectors(twelve, CIRCLE, [[4]]) == pytest.approx(CIRCLE[4])  # one picture is itself
    assert vectors(twelve, CIRCLE, [[0], [6]]) == pytest.approx([0, 0], abs=1e-6)  # opposite faces cancel out


def test_cosine_asks_for_the_direction_of_a_mean_and_products_for_the_mean_of_products(twelve: FaceTable) -> None:
    """Ann is at 0 and 90: the mean points to 45 and is √½ long. Her other picture, at 0, is 45 from it: its cosine is
    0.71, its product the mean of 1 and 0. Bob, at 45, has 1 and √½, cid, at 60, 0.97 and 0.68."""
    split = offered(twelve, {"a1": [[0], [2]], "a2": [[1]], "b1": [[4]], "c1": [[10]]}, "a1-a2 a1-b1 a1-c1")
    for key, products in (("embedding", [0.7071, 1, 0.9659]), ("inner", [0.5, 0.7071, 0.6830])):
        verified = results(twelve, CIRCLE, split, key=key)[""]
        assert 2 - 2 * np.array(products) == pytest.approx(verified.distances, abs=1e-3)


def test_what_a_split_lacks_is_not_evaluated(twelve: FaceTable) -> None:
    templates = {"a1": [[0]], "a2": [[1]], "b1": [[4]], "b2": [[5]], "c1": [[8]]}
    verified = offered(twelve, templates, pairs="a1-a2 a1-b1")
    assert list(results(twelve, CIRCLE, verified)) == [""]
    searched = offered(twelve, templates, probes="a1 b1", gallery="a2 b2")
    found = results(twelve, CIRCLE, searched)
    assert list(found) == ["closed-set "]  # every probe's person is in the gallery
    assert figures(found["closed-set "]) == {"rank-1": 100, "rank-5": 100}
    with_stranger = offered(twelve, templates, probes="a1 b1 c1", gallery="a2 b2")
    found = results(twelve, CIRCLE, verified, with_stranger)
    assert list(found) == ["", "closed-set ", "open-set "]
    assert found["closed-set "].metrics[0].note == "1 probes without their person in the gallery"
    assert figures(found["open-set "]) == {"TPIR@FPIR 10%": 100, "TPIR@FPIR 1%": 100}


def test_a_probe_that_is_nearest_to_another_is_never_found(twelve: FaceTable) -> None:
    """Bob at 45 is nearer to ann at 60 than to himself at 0: nobody is as near as cid at 200 to somebody, who is 160
    from 0, and still only ann counts at any rate."""
    templates = {"a1": [[10]], "a2": [[10]], "b1": [[4]], "b2": [[0]], "c1": [[7]]}
    split = offered(twelve, templates, probes="a2 b1 c1", gallery="a1 b2")
    found = results(twelve, CIRCLE, split, fpirs=[50, 0.1])
    assert figures(found["closed-set "]) == {"rank-1": 50, "rank-5": 100}
    assert figures(found["open-set "]) == {"TPIR@FPIR 50%": 50, "TPIR@FPIR 0.1%": 50}
    assert found["open-set "].over == "probes"


@given(st.integers(0, 2**31), st.sampled_from(["cosine", "inner"]))
@settings(max_examples=10)
def test_the_order_of_faces_and_copies_of_a_medium_are_of_no_account(
    twelve: FaceTable, seed: int, similarity: str
) -> None:
    generator = np.random.default_rng(seed)
    embedding = generator.normal(size=(12, 5))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    media = [[0, 1, 2], [3], [4, 5]]
    own = vectors(twelve, embedding, media, similarity)
    shuffled = [generator.permutation(media[place]).tolist() for place in generator.permutation(3)]
    assert vectors(twelve, embedding, shuffled, similarity) == pytest.approx(own)
    assert vectors(twelve, embedding, media * 2, similarity) == pytest.approx(own)
    twice = [medium * 2 for medium in media]  # a video whose frames all come twice is the same video
    assert vectors(twelve, embedding, twice, similarity) == pytest.approx(own)
    means = [embedding[rows].mean(0) for rows in media]
    plain = np.mean(means, axis=0)
    assert own == pytest.approx(plain if similarity == "inner" else plain / np.linalg.norm(plain))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fars": [0]}, "a FAR is a percentage between 0 and 100, not 0"),
        ({"far": [1]}, "unknown option 'far'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        protocols.build({"name": "templates", **options})


def test_bad_input_is_explained(twelve: FaceTable) -> None:
    split = offered(twelve, {"a1": [[0]], "a2": [[1]]}, "a1-a2")
    with pytest.raises(PolyfaceError, match="all 1 pairs are right: nothing to tell"):
        results(twelve, CIRCLE, split)
    with pytest.raises(PolyfaceError, match="1 embeddings are not of length 1 .the first is 3"):
        results(twelve, CIRCLE * (1 + (np.arange(12) == 3))[:, None], split)
    stranger = TemplateSplit({"a1": Template("ann", [["photo/eve/99"]])}, [("a1", "a1")], [], [])
    with pytest.raises(PolyfaceError, match="1 of 1 images of the templates are not in the table, such as photo/eve"):
        results(twelve, CIRCLE, stranger)
    with pytest.raises(PolyfaceError, match="reader 'mtfl' has no templates"):
        protocols.build({"name": "templates", "reader": "mtfl"}).cases(evaluation_set(twelve))
    with pytest.raises(PolyfaceError, match="none of 0 splits has templates to compare"):
        results(twelve, CIRCLE)
    with pytest.raises(PolyfaceError, match="none of 1 splits has templates to compare"):
        results(twelve, CIRCLE, TemplateSplit({}, [], [], []))
