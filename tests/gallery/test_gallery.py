"""The gallery: what is enrolled is found, by embeddings and by pictures; what is asked wrongly is told in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyface import networks
from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec
from polyface.errors import PolyfaceError
from polyface.gallery import Gallery
from polyface.gallery.types import Match, Precomputed
from polyface.inference import BundleEmbedder
from polyface.models.bundle import Bundle

DIM = 12
Pictures = Callable[..., np.ndarray]


def embedder(similarity: str = "cosine", dim: int = DIM) -> Precomputed:
    return Precomputed(f"net-{similarity}", dim, similarity)


def draw(count: int, seed: int = 0, dim: int = DIM, unit: bool = True) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if unit else vectors


def network(similarity: str = "cosine", seed: int = 0, **branches: Any) -> Bundle:
    """A small random network with an embedding."""
    torch.manual_seed(seed)
    trunk = {"name": "timm", "model": "test_resnet", "size": 64, "channels": 3, "pool": "map"}
    config = {"trunk": trunk, "branches": branches or {"face": {"levels": 1, "similarity": similarity}}, "heads": {}}
    return Bundle(networks.build(config).eval(), {}, CropSpec(size=64), BoxSpec(), {"name": "tiny"})


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return network()


def names(matches: tuple[Match, ...]) -> list[str]:
    return [match.person for match in matches]


# ----------------------------------------------------------------------------------------------------------- searching


@given(
    similarity=st.sampled_from(["cosine", "euclidean"]),
    count=st.integers(1, 60),
    people=st.integers(1, 9),
    top=st.integers(1, 20),
    by=st.sampled_from(["person", "image"]),
    gone=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40)
def test_exact_search_is_brute_force(
    tmp_path_factory: pytest.TempPathFactory,
    similarity: str,
    count: int,
    people: int,
    top: int,
    by: str,
    gone: bool,
    seed: int,
) -> None:
    unit = similarity == "cosine"
    vectors, queries = draw(count, seed, unit=unit), draw(3, seed + 1, unit=unit)
    who = np.array([f"p{number}" for number in np.random.default_rng(seed).integers(people, size=count)])
    with Gallery.create(tmp_path_factory.mktemp("gallery") / "g", embedder(similarity)) as gallery:
        gallery.enrol_embeddings(vectors, who.tolist(), paths=[f"{row}.jpg" for row in range(count)])
        keep = np.ones(count, bool)
        if gone and len(set(who)) > 1:
            assert gallery.remove(who[0]) == (who == who[0]).sum()
            keep = who != who[0]
        found = gallery.search_embeddings(queries, top=top, by=by)
    for query, matches in zip(queries, found, strict=True):
        distances = np.linalg.norm(vectors.astype(float) - query, axis=1)
        order = [row for row in np.argsort(distances, kind="stable") if keep[row]]
        if by == "person":
            order = [row for place, row in enumerate(order) if who[row] not in who[order[:place]]]
        assert [match.path for match in matches] == [f"{row}.jpg" for row in order[:top]]
        assert names(matches) == who[order[:top]].tolist()
        assert np.allclose([match.distance for match in matches], distances[order[:top]], atol=2e-3)
        if unit:
            told = np.array([match.similarity for match in matches])
            assert np.allclose(told, vectors[order[:top]] @ query, atol=1e-5)
        else:
            assert all(match.similarity is None for match in matches)


def test_what_was_enrolled_comes_back_after_closing(tmp_path: Path) -> None:
    vectors = draw(4)
    with Gallery.create(tmp_path / "g", embedder()) as gallery:
        report = gallery.enrol_embeddings(
            vectors,
            ["Zoë", "Zoë", "山田", "b"],
            paths=["a.jpg", None, "ü.png", None],
            info=[{"age": 3}, None, None, {}],
        )
        assert (report.faces, report.skipped, report.remarks) == (4, [], [])
    with Gallery.open(tmp_path / "g") as gallery:
        assert (len(gallery), gallery.people()) == (4, {"Zoë": 2, "b": 1, "山田": 1})
        (first,), (third,) = gallery.search_embeddings(vectors[[0, 2]], top=1)
        assert (first.person, first.path, first.info) == ("Zoë", "a.jpg", {"age": 3})
        assert (third.person, third.path, third.info) == ("山田", "ü.png", None)
        assert first.distance == pytest.approx(0, abs=1e-3)
        info = gallery.info()
        assert (info.faces, info.people, info.removed, info.index) == (4, 3, 0, "exact")
        assert info.bytes > vectors.nbytes


def test_the_same_embedding_is_stored_once_a_person(tmp_path: Path) -> None:
    vectors = draw(3)
    with Gallery.create(tmp_path / "g", embedder()) as gallery:
        assert gallery.enrol_embeddings(np.concatenate([vectors, vectors[:1]]), "anna").faces == 3
    with Gallery.open(tmp_path / "g", write=True) as gallery:
        again = gallery.enrol_embeddings(vectors[:2], "anna", paths=["1.jpg", "2.jpg"])
        assert (again.faces, [note.where for note in again.skipped]) == (0, ["1.jpg", "2.jpg"])
        other = gallery.enrol_embeddings(vectors[:1], "bert")
        assert other.faces == 1
        assert "'anna' as well" in other.remarks[0].reason
        gallery.remove("anna")
        assert gallery.enrol_embeddings(vectors, "anna").faces == 3  # who was forgotten may come back


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (lambda g: g.enrol_embeddings(draw(2), ["a"]), "more embeddings than people (1)"),
        (lambda g: g.enrol_embeddings(draw(1), ["a", "b"]), "more people than embeddings (1)"),
        (lambda g: g.enrol_embeddings(draw(1), " "), "a person's name is ' '"),
        (lambda g: g.enrol_embeddings(draw(1), [None]), "a person's name is None"),
        (lambda g: g.enrol_embeddings(draw(1, dim=5), "a"), "the shape is [1, 5], expected [N, 12]"),
        (lambda g: g.enrol_embeddings(3 * draw(1), "a"), "row 0 has length 3, expected 1, as cosine"),
        (lambda g: g.enrol_embeddings(np.nan * draw(1), "a"), "row 0 has length nan"),
        (lambda g: g.enrol_embeddings(draw(1), "a", info={"x": object()}), "cannot be kept as JSON"),
        (lambda g: g.enrol(np.zeros((8, 8, 3), np.uint8), "a"), "pictures need the network 'net-cosine'"),
        (lambda g: g.search_embeddings(draw(1), top=0), "top is 0"),
        (lambda g: g.search_embeddings(draw(1), by="persn"), "by is 'persn'; did you mean 'person'?"),
        (lambda g: g.search_embeddings(np.inf * draw(1)), "row 0 has length inf"),
        (lambda g: g.remove("ann"), "no person is called 'ann'; did you mean 'anna'?"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(tmp_path: Path, action: Callable[[Gallery], Any], line: str) -> None:
    with Gallery.create(tmp_path / "g", embedder()) as gallery:
        gallery.enrol_embeddings(draw(2, seed=9), "anna")
        with pytest.raises(PolyfaceError) as told:
            action(gallery)
        assert line in str(told.value)
        assert "\n" not in str(told.value)
        assert gallery.people() == {"anna": 2}
        fresh = draw(1)  # what the failed call named is not taken for enrolled
        assert gallery.enrol_embeddings(fresh, "a").faces == 1


def test_an_empty_gallery_says_so(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", embedder()) as gallery, pytest.raises(PolyfaceError, match="holds no face yet"):
        gallery.search_embeddings(draw(1))


def test_wrong_settings_are_told(tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match="index is 'fast'"):
        Gallery.create(tmp_path / "g", embedder(), index="fast")
    assert not (tmp_path / "g").exists()
    with pytest.raises(PolyfaceError, match="not a gallery"):
        Gallery.open(tmp_path / "g")


# ------------------------------------------------------------------------------------------------------------ pictures


def test_pictures_are_found_again(tiny: Bundle, tmp_path: Path, told: Any, picture: Pictures) -> None:
    people = tmp_path / "people"
    for seed, name in enumerate(("anna", "anna", "bert")):
        (people / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed=seed)).save(people / name / f"{seed}.png")
    (people / "nobody").mkdir()
    (people / " ").mkdir()
    Image.fromarray(picture(seed=6)).save(people / " " / "unnamed.png")
    (people / "bert" / "broken.png").write_bytes(b"no picture")
    Image.fromarray(picture(seed=5)).save(people / "stray.png")
    detector = told([20, 15, 70, 75])
    with Gallery.create(tmp_path / "g", BundleEmbedder(tiny, detector=detector)) as gallery:
        report = gallery.enrol_folder(people)
        assert (report.faces, gallery.people()) == (3, {"anna": 2, "bert": 1})
        reasons = {Path(note.where).name: note.reason for note in report.skipped}
        assert reasons.keys() == {"nobody", "broken.png", "stray.png", "unnamed.png"}
        assert reasons["nobody"] == "holds no photo"
        before = detector.calls
        assert gallery.enrol_folder(people).faces == 0
        assert detector.calls == before  # pictures that are here already are not embedded again
        (result,) = gallery.search(people / "bert" / "2.png")
        (match, other) = result.faces[0].matches
        assert (match.person, match.box) == ("bert", (20.0, 15.0, 70.0, 75.0))
        assert match.similarity == pytest.approx(1, abs=1e-5)
        assert other.person == "anna"


def test_large_pictures_are_held_a_few_at_a_time(
    tiny: Bundle, tmp_path: Path, told: Any, picture: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyface.gallery.inputs._PIXELS", 2 * picture()[..., 0].size)
    embedder, held = BundleEmbedder(tiny, detector=told([20, 15, 70, 75])), list[int]()
    embed = embedder.embed
    monkeypatch.setattr(embedder, "embed", lambda images, *rest: held.append(len(images)) or embed(images, *rest))
    photos = [picture(seed=seed) for seed in range(5)]
    with Gallery.create(tmp_path / "g", embedder) as gallery:
        done = list[int]()
        gallery.enrol(photos, list("abcde"), progress=lambda *at: done.append(at[0]))
        assert (held, done) == ([2, 2, 1], [2, 4, 5])
        found = gallery.search(photos)
        assert [result.faces[0].matches[0].person for result in found] == list("abcde")
        assert held == [2, 2, 1] * 2


def test_a_query_without_a_face_has_no_matches(tiny: Bundle, tmp_path: Path, told: Any, picture: Pictures) -> None:
    detector = told([20, 15, 70, 75], [60, 20, 110, 80], none_at_width=50)
    with Gallery.create(tmp_path / "g", BundleEmbedder(tiny, detector=detector)) as gallery:
        empty = gallery.enrol(picture(50), "nobody")
        assert (empty.faces, empty.skipped[0].reason) == (0, "no face found")
        report = gallery.enrol([picture()], "anna")
        assert (report.faces, "shows 2 faces" in report.remarks[0].reason) == (1, True)
        (tmp_path / "bad.png").write_bytes(b"")
        none, bad, two = gallery.search([picture(50), tmp_path / "bad.png", picture()])
        assert (none.faces, none.error) == ((), None)
        assert (bad.faces, "bad.png" in str(bad.error)) == ((), True)
        assert [names(face.matches) for face in two.faces] == [["anna"], ["anna"]]
        assert two.to_dict()["faces"][0]["matches"][0]["person"] == "anna"
        with pytest.raises(PolyfaceError, match="bad.png"):
            gallery.search(tmp_path / "bad.png")


def test_boxes_of_ones_own_take_the_detectors_place(tiny: Bundle, tmp_path: Path, told: Any, picture: Pictures) -> None:
    detector, boxes = told(), [[20, 15, 70, 75], [40.5, 10, 100, 80]]
    with Gallery.create(tmp_path / "g", BundleEmbedder(tiny, detector=detector)) as gallery:
        gallery.enrol([picture(seed=1), picture(seed=2)], ["anna", "bert"], boxes=boxes)
        results = gallery.search([picture(seed=1), picture(seed=2)], boxes)
        assert [names(result.faces[0].matches)[0] for result in results] == ["anna", "bert"]
        assert all(result.faces[0].matches[0].similarity > 0.9999 for result in results)  # type: ignore[operator]
        for wrong in ([[1, 2, 3]], [[9, 9, 1, 1]], [["a", 1, 2, 3]]):
            with pytest.raises(PolyfaceError, match="image 0"):
                gallery.search([picture()], wrong)
    assert detector.calls == 0


def test_a_batch_of_faces_is_embedded_as_each_alone(tiny: Bundle, told: Any, picture: Pictures) -> None:
    engine = BundleEmbedder(tiny, detector=told([20, 15, 70, 75], [30, 5, 110, 85]), batch=2)
    images = [picture(seed=seed) for seed in range(3)]
    together = engine.embed(images)
    for image, faces in zip(images, together, strict=True):
        for one, other in zip(engine.embed([image])[0], faces, strict=True):
            assert np.allclose(one.embedding, other.embedding, atol=1e-5)
            assert np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-4)


def test_the_example_of_the_documents_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "gallery.md").read_text(encoding="utf-8")
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Precomputed" in block]
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert capsys.readouterr().out == "bert\n"


# -------------------------------------------------------------------------------------------------------- embedder ids


def test_an_index_of_another_model_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", BundleEmbedder(tiny)) as gallery:
        made = gallery.embedder.id
    with pytest.raises(PolyfaceError) as told:
        Gallery.open(tmp_path / "g", BundleEmbedder(network(seed=1)))
    assert made in str(told.value)
    assert "use that model" in str(told.value)
    Gallery.open(tmp_path / "g", BundleEmbedder(tiny), write=True).close()  # and the lock is free


def test_the_id_says_everything_that_an_embedding_depends_on(tiny: Bundle, tmp_path: Path) -> None:
    same = BundleEmbedder(tiny.save(tmp_path / "saved")).id
    assert same == BundleEmbedder(tiny).id
    others = [network(seed=1), network("euclidean"), network(), network()]
    others[2].crop = CropSpec(size=64, scale=1.6)
    others[3].boxes = BoxSpec(source="points")
    assert len({same, *(BundleEmbedder(bundle).id for bundle in others)}) == 5


def test_a_branch_is_chosen() -> None:
    options = {"levels": 0, "similarity": "cosine"}
    three = network(visual=options, caricature=options, verification=options)
    assert BundleEmbedder(three).branch == "verification"
    assert BundleEmbedder(three, branch="visual").branch == "visual"
    with pytest.raises(PolyfaceError, match="did you mean 'visual'"):
        BundleEmbedder(three, branch="visul")
    with pytest.raises(PolyfaceError, match="no embedding"):
        BundleEmbedder(network(face={"levels": 0}))
    with pytest.raises(PolyfaceError, match="device 'abacus' cannot be used"):
        BundleEmbedder(three, device="abacus")
