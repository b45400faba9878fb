"""The approximate index: how much it finds, what it forgets, and that a search never depends on its file."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.gallery import index as neighbours
from polyface.gallery.gallery import Gallery
from polyface.gallery.types import Precomputed

DIM, PEOPLE, EACH = 64, 200, 10


def faces(people: int = PEOPLE, each: int = EACH, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings as a network makes them: people lie apart, a person's faces together, most of it in few directions."""
    draw = np.random.default_rng(seed)
    spread = np.geomspace(1, 0.05, DIM)
    centres = draw.standard_normal((people, DIM)) * spread
    vectors = centres.repeat(each, 0) + 0.6 * draw.standard_normal((people * each, DIM)) * spread
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.array([f"p{number}" for number in range(people)]).repeat(each)


def made(folder: Path, similarity: str = "cosine", index: str = "approximate") -> Gallery:
    gallery = Gallery.create(folder, Precomputed("net", DIM, similarity), index)
    vectors, who = faces()
    gallery.enrol_embeddings(vectors, who.tolist(), paths=map(str, range(len(who))))
    return gallery


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed") / "g"
    with made(folder) as gallery:
        assert gallery.info().index == "exact"
        assert gallery.build_index()
        assert not gallery.build_index()  # nothing is left to do
    return folder


@pytest.fixture
def folder(indexed: Path, tmp_path: Path) -> Path:
    """A gallery of 2,000 faces with an approximate index."""
    return Path(shutil.copytree(indexed, tmp_path / "g"))


def queries(count: int = 200) -> np.ndarray:
    """New pictures of enrolled people."""
    vectors = faces(seed=0)[0][:: PEOPLE * EACH // count]
    new = vectors + 0.3 * np.random.default_rng(7).standard_normal(vectors.shape).astype(np.float32) / DIM**0.5
    return new / np.linalg.norm(new, axis=1, keepdims=True)


def paths(gallery: Gallery, exact: bool = False, by: str = "image") -> list[list[str | None]]:
    return [[match.path for match in found] for found in gallery.search_embeddings(queries(), by=by, exact=exact)]


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_the_index_finds_what_brute_force_finds(folder: Path, tmp_path: Path, similarity: str) -> None:
    vectors, _ = faces()
    if similarity == "euclidean":
        folder = tmp_path / "euclidean"
        made(folder, similarity).close()
    with Gallery.open(folder, write=True) as gallery:
        gallery.build_index()
        info = gallery.info()
        assert info.index.startswith("approximate")
        assert (info.indexed, info.recall) == (len(vectors), pytest.approx(1, abs=0.05))
        found = paths(gallery)
        truth = np.argsort(-(queries() @ vectors.T), axis=1)[:, :10]
        hits = [len(set(map(int, some)) & set(best.tolist())) for some, best in zip(found, truth, strict=True)]  # type: ignore[arg-type]
        assert np.mean(hits) >= 9.5
        assert paths(gallery, exact=True) == [[str(row) for row in best] for best in truth]
        # of those that are found the distances are exact
        matches = gallery.search_embeddings(queries()[:1], by="image")[0]
        gaps = np.linalg.norm(vectors[[int(str(match.path)) for match in matches]] - queries()[0], axis=1)
        assert np.allclose([match.distance for match in matches], gaps, atol=1e-4)
    with Gallery.open(folder) as gallery:  # it was saved
        assert paths(gallery) == found
        assert gallery.notes() == []


def test_the_index_looks_at_a_share_of_the_faces_only(folder: Path) -> None:
    with Gallery.open(folder, write=True) as gallery:
        looked, cells = map(int, re.findall(r"(\d+) of (\d+) cells", gallery.info().index)[0])
        assert looked < cells


@pytest.mark.parametrize("exact", [True, False])
def test_of_equals_the_one_that_was_enrolled_first_comes_first(folder: Path, exact: bool) -> None:
    """Sixty people with one and the same embedding, among them some enrolled before the index was built."""
    (vector,) = queries(1)
    with Gallery.open(folder, write=True) as gallery:
        for some in (range(40), range(40, 60)):
            names = [f"equal {number}" for number in some]
            gallery.enrol_embeddings(np.tile(vector, (len(names), 1)), names)
            gallery.build_index()
        for by in ("image", "person"):
            for top in (1, 7, 60):
                (found,) = gallery.search_embeddings(vector, top=top, by=by, exact=exact)
                assert [match.person for match in found] == [f"equal {number}" for number in range(top)], (by, top)


def test_small_galleries_are_searched_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, who = faces(9)
    with Gallery.create(tmp_path / "g", Precomputed("net", DIM, "cosine"), "approximate") as gallery:
        gallery.enrol_embeddings(vectors, who.tolist())
        assert not gallery.build_index()
    with made(tmp_path / "auto", index="auto") as gallery:
        assert not gallery.build_index()
        monkeypatch.setattr(neighbours, "AUTO", PEOPLE * EACH)
        assert gallery.build_index()
    with made(tmp_path / "exact", index="exact") as gallery:
        assert not gallery.build_index()


def test_faces_that_came_after_the_index_are_found(folder: Path) -> None:
    new, who = faces(2, seed=3)
    with Gallery.open(folder, write=True) as gallery:
        gallery.enrol_embeddings(new, [f"new {name}" for name in who])
        found = gallery.search_embeddings(new, top=1, by="image")
        assert [match.person for (match,) in found] == [f"new {name}" for name in who]
        assert not gallery.build_index()  # they are less than a hundredth
        more, who = faces(5, seed=4)
        gallery.enrol_embeddings(more, [f"more {name}" for name in who])
        assert gallery.build_index()
        assert gallery.info().indexed == len(gallery) == PEOPLE * EACH + 70
        found = gallery.search_embeddings(more, top=1, by="image")
        assert [match.person for (match,) in found] == [f"more {name}" for name in who]


def test_by_person_gives_as_many_people_as_were_asked_for(folder: Path) -> None:
    with Gallery.open(folder, write=True) as gallery:
        for top in (1, 10, PEOPLE, PEOPLE + 5):
            (found,) = gallery.search_embeddings(queries()[:1], top=top)
            people = [match.person for match in found]
            assert len(people) == len(set(people)) == min(top, PEOPLE)
            assert sorted(match.distance for match in found) == [match.distance for match in found]


def test_the_removed_are_in_no_answer_and_not_in_the_index_file(folder: Path) -> None:
    faiss = pytest.importorskip("faiss")
    gone = [f"p{number}" for number in range(0, PEOPLE, 3)]
    with Gallery.open(folder, write=True) as gallery:
        assert gallery.remove(*gone) == len(gone) * EACH
        assert not {name for found in gallery.search_embeddings(queries()) for name in [m.person for m in found]} & {
            *gone
        }
        assert gallery.compact() == len(gone) * EACH
    (file,) = folder.glob("index-*.faiss")
    assert faiss.read_index(str(file)).ntotal == (PEOPLE - len(gone)) * EACH
    with Gallery.open(folder, write=True) as gallery:
        assert gallery.info().indexed == len(gallery) == (PEOPLE - len(gone)) * EACH
        found = gallery.search_embeddings(queries())
        assert {len(matches) for matches in found} == {10}
        assert not {match.person for matches in found for match in matches} & {*gone}
        gallery.remove(*gallery.people())
        gallery.compact()
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".f32", ".json", ".jsonl"]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_index_is_told_and_passed_over(folder: Path, damage: str) -> None:
    with Gallery.open(folder, write=True) as gallery:
        truth = paths(gallery, exact=True)
    (file,) = folder.glob("index-*.faiss")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    if damage != "missing":
        file.write_bytes(content if damage == "flipped" else content[:1000])
    with Gallery.open(folder, write=True) as gallery:
        assert paths(gallery) == truth
        (note,) = gallery.notes()
        assert str(file) in note
        assert "searching exactly" in note
        if damage == "missing":
            assert gallery.build_index()
            assert gallery.notes() == []
        elif damage == "flipped":
            gallery.remove("p0")
            gallery.compact()
            assert not file.exists()  # it may have held them


@given(data=st.data())
@settings(max_examples=20)
def test_any_flipped_bit_is_told_or_harmless(
    indexed: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of all files of a gallery with an index: an error that names the file, or the answers that it gave before."""
    folder = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("flipped") / "g"))
    with Gallery.open(folder) as gallery:
        truth, exact = paths(gallery), paths(gallery, exact=True)
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir() if path.stat().st_size)))
    content = bytearray((folder / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(content)
    told = ""
    try:
        with Gallery.open(folder, write=data.draw(st.booleans())) as gallery:
            assert paths(gallery) == (exact if gallery.notes() else truth)
    except PolyfaceError as error:
        told = str(error)
    assert not told or name in told


def test_the_manifest_is_not_asked_what_the_index_holds(folder: Path) -> None:
    """A gallery of an earlier version, whose manifest is under no checksum, says a wrong last id."""
    new, who = faces(2, seed=3)
    with Gallery.open(folder, write=True) as gallery:
        gallery.enrol_embeddings(new, [f"new {name}" for name in who])
    told = json.loads((folder / "gallery.json").read_text())
    del told["sha256"]
    for last in (0, 3, 99_999):
        told["built"]["last_id"] = last
        (folder / "gallery.json").write_text(json.dumps(told))
        with Gallery.open(folder) as gallery:
            found = gallery.search_embeddings(new, top=1, by="image")
            assert [match.person for (match,) in found] == [f"new {name}" for name in who]
            assert gallery.notes() == []


def test_an_index_that_lacks_faces_is_passed_over(folder: Path) -> None:
    """Whole, but of other faces: whoever copied it into this folder was told of by its checksum, or wrote one."""
    with Gallery.open(folder, write=True) as gallery:
        finder = neighbours.Neighbours(gallery._store)
        index = finder._taken()
        index.remove_ids(np.arange(7, 9))
        finder._save(index, 1.0, 50)
        truth = paths(gallery, exact=True)
    with Gallery.open(folder, write=True) as gallery:
        assert paths(gallery) == truth
        assert "lacks faces; searching exactly" in gallery.notes()[0]
        assert gallery.build_index()
        assert paths(gallery, exact=True) == truth
        assert gallery.notes() == []


def test_faces_that_came_after_the_index_are_found_after_a_removal(folder: Path) -> None:
    new, who = faces(2, seed=3)
    with Gallery.open(folder, write=True) as gallery:
        gallery.enrol_embeddings(new, [f"new {name}" for name in who])
        gallery.remove("p3")
        gallery.compact()
        found = gallery.search_embeddings(new, top=1, by="image")
        assert [match.person for (match,) in found] == [f"new {name}" for name in who]


def near(query: np.ndarray, count: int, angle: float) -> np.ndarray:
    """Unit vectors [count, D] at an angle from a query [D]."""
    other = np.random.default_rng(count).standard_normal((count, DIM))
    other -= (other @ query)[:, None] * query
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return (np.cos(angle) * query + np.sin(angle) * other).astype(np.float32)


def test_those_who_came_after_the_index_are_not_hidden_by_the_removed_or_by_one_person(folder: Path) -> None:
    """Faces that are in no answer must not fill the list of candidates from which the answer is taken."""
    (query,) = queries(1)
    with Gallery.open(folder, write=True) as gallery:
        gallery.enrol_embeddings(near(query, 5, 0.001), "gone")
        gallery.enrol_embeddings(near(query, 15, 0.01), "many")
        gallery.enrol_embeddings(near(query, 1, 0.02), "other")
        gallery.remove("gone")
        for top in (1, 2, 3):
            for by in ("person", "image"):
                exact, found = (gallery.search_embeddings(query, top=top, by=by, exact=e)[0] for e in (True, False))
                assert found == exact
        assert [match.person for match in gallery.search_embeddings(query, top=2)[0]] == ["many", "other"]


def test_the_removed_do_not_hide_others_before_they_are_erased(folder: Path) -> None:
    """The nearest 30 people of 200 are gone, with more faces than an index compares."""
    with Gallery.open(folder, write=True) as gallery:
        (nearest,) = gallery.search_embeddings(queries()[:1], top=30, exact=True)
        gallery.enrol_embeddings(-queries()[:1], "opposite")
        gallery.remove(*(match.person for match in nearest))
        exact, found = (gallery.search_embeddings(queries()[:1], top=1, exact=e)[0] for e in (True, False))
        assert found == exact
        assert "opposite" not in {match.person for match in found}


def test_an_index_that_cannot_be_saved_leaves_the_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Gallery.open(folder, write=True) as gallery:
        before = gallery.info()
        vectors, who = faces(20, seed=5)
        gallery.enrol_embeddings(vectors, [f"new {name}" for name in who])
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr("os.replace", full)
            with pytest.raises(PolyfaceError, match="No space left on device.*the index was not saved"):
                gallery.build_index()
        assert (gallery.info().indexed, gallery.info().index) == (before.indexed, before.index)
        found = gallery.search_embeddings(vectors, top=10, by="image")
        assert {found[row][0].person for row in range(EACH)} == {"new p0"}
        assert all(len({(match.person, match.distance) for match in matches}) == 10 for matches in found)
        assert gallery.build_index()


@pytest.fixture
def without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("by", ["image", "person"])
def test_without_faiss_a_search_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, similarity: str, by: str
) -> None:
    with made(tmp_path / "g", similarity, "exact") as gallery:
        gallery.remove("p3")
        with_faiss = gallery.search_embeddings(queries(20), by=by)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with Gallery.open(tmp_path / "g") as gallery:
        without = gallery.search_embeddings(queries(20), by=by)
    for one, other in zip(with_faiss, without, strict=True):
        assert [match.path for match in one] == [match.path for match in other]
        assert [m.distance for m in one] == pytest.approx([m.distance for m in other], abs=1e-3)


@pytest.mark.usefixtures("without_faiss")
def test_without_faiss_equals_come_by_enrolment(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", Precomputed("net", DIM, "cosine")) as gallery:
        vector = queries(1)
        gallery.enrol_embeddings(vector.repeat(9, 0), [f"p{number}" for number in range(9)])
        (found,) = gallery.search_embeddings(vector, top=9)
        assert [match.person for match in found] == [f"p{number}" for number in range(9)]


@pytest.mark.usefixtures("without_faiss")
def test_without_faiss_an_index_is_passed_over_and_kept(folder: Path) -> None:
    with Gallery.open(folder, write=True) as gallery:
        assert gallery.search_embeddings(queries(1))[0][0].person == "p0"
        assert any("polyface[search]" in note for note in gallery.notes())
        gallery.enrol_embeddings(-queries(100), "new")
        with pytest.raises(PolyfaceError, match=r"pip install 'polyface\[search\]'"):
            gallery.build_index()
    assert list(folder.glob("index-*.faiss"))


@pytest.mark.usefixtures("without_faiss")
def test_without_faiss_a_large_gallery_needs_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "AUTO", 100)
    monkeypatch.setattr(neighbours, "LEAST", 100)
    with made(tmp_path / "g", index="auto") as gallery:
        assert not gallery.build_index()
