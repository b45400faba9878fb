"""Names and pictures of a gallery are put right, and names are compared in one form."""

from __future__ import annotations

import json
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from polyface.errors import PolyfaceError
from polyface.gallery.format import Face, batch_entry, line_of
from polyface.gallery.gallery import Gallery
from polyface.gallery.types import Precomputed

JOSE = unicodedata.normalize("NFC", "José")
DECOMPOSED = unicodedata.normalize("NFD", JOSE)
VECTORS = np.eye(8, dtype=np.float32)


@pytest.fixture
def friends(tmp_path: Path) -> Gallery:
    """Ann with three pictures, Anna with two, the first of which is Ann's first as well, Bert with one."""
    gallery = Gallery.create(tmp_path / "g", Precomputed("net", 8, "cosine"))
    gallery.enrol_embeddings(VECTORS[:3], "Ann", paths=["a.jpg", "b.jpg", "c.jpg"])
    gallery.enrol_embeddings(VECTORS[[0, 3]], "Anna", paths=["a.jpg", "d.jpg"])
    gallery.enrol_embeddings(VECTORS[4:5], "Bert", info={"year": 1999})
    return gallery


def listed(gallery: Gallery) -> list[tuple[int, str, str | None]]:
    return [(picture.id, picture.person, picture.path) for picture in gallery.pictures()]


def again(gallery: Gallery) -> Gallery:
    """Closed, erased of what was removed, and opened."""
    before, folder = listed(gallery), gallery._store.folder
    gallery.compact()
    assert listed(gallery) == before
    gallery.close()
    opened = Gallery.open(folder, write=True)
    assert listed(opened) == before
    return opened


def test_pictures_have_ids_that_stay(friends: Gallery) -> None:
    assert listed(friends)[3:] == [(3, "Anna", "a.jpg"), (4, "Anna", "d.jpg"), (5, "Bert", None)]
    assert [picture.id for picture in friends.pictures("Anna")] == [3, 4]
    assert friends.pictures("Bert")[0].to_dict() == {
        "id": 5, "person": "Bert", "path": None, "box": None, "info": {"year": 1999}
    }  # fmt: skip
    assert friends.remove(pictures=[0, "d.jpg"]) == 2
    friends = again(friends)
    friends.enrol_embeddings(VECTORS[6:7], "Carl")
    assert [picture.id for picture in friends.pictures()] == [1, 2, 3, 5, 6]


def test_a_picture_is_removed_and_can_come_again(friends: Gallery) -> None:
    assert friends.remove(pictures=["b.jpg"]) == 1
    assert friends.search_embeddings(VECTORS[1], top=1)[0][0].similarity == 0
    assert friends.enrol_embeddings(VECTORS[1:2], "Ann").faces == 1
    assert friends.remove("Bert", pictures=[5, "6"]) == 2  # Bert's own picture is no second one
    assert again(friends).people() == {"Ann": 2, "Anna": 2}


def test_a_person_is_renamed(friends: Gallery) -> None:
    assert friends.rename("Ann", "  Cleo ") == 3
    assert friends.search_embeddings(VECTORS[1], top=1)[0][0].person == "Cleo"
    assert friends.enrol_embeddings(VECTORS[:1], "Cleo").skipped[0].reason == "is the same picture as another of 'Cleo'"
    assert again(friends).people() == {"Anna": 2, "Bert": 1, "Cleo": 3}


def test_people_are_merged_and_of_equal_pictures_one_stays(friends: Gallery) -> None:
    assert friends.merge("Ann", "Anna", into="Anna") == 2
    assert listed(friends) == [
        (1, "Anna", "b.jpg"), (2, "Anna", "c.jpg"), (3, "Anna", "a.jpg"), (4, "Anna", "d.jpg"), (5, "Bert", None)
    ]  # fmt: skip
    assert again(friends).people() == {"Anna": 4, "Bert": 1}


def test_a_picture_is_moved(friends: Gallery) -> None:
    assert friends.move(1, "c.jpg", person="Dora") == 2
    assert friends.move(0, person="Anna") == 0  # which has it
    friends = again(friends)
    assert friends.people() == {"Anna": 2, "Bert": 1, "Dora": 2}
    assert friends.search_embeddings(VECTORS[2], top=1)[0][0].person == "Dora"


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda g: g.rename("An", "Cleo"), "no person is called 'An'; did you mean 'Ann'"),
        (lambda g: g.rename("Ann", "Bert"), "there is a 'Bert' already; `merge`"),
        (lambda g: g.rename("Ann", " "), "give a word or more"),
        (lambda g: g.merge("Ann", into="Ana"), "did you mean 'Anna'"),
        (lambda g: g.merge("Carla", into="Ann"), "no person is called 'Carla'"),
        (lambda g: g.move("e.jpg", person="Ann"), "no picture 'e.jpg'; `polyface gallery info --pictures`"),
        (lambda g: g.move(6, person="Ann"), "no picture '6'"),
        (lambda g: g.remove("Ann", pictures=[-1]), "no picture '-1'"),
        (lambda g: g.remove("Nobody", pictures=[1]), "no person is called 'Nobody'"),
        (lambda g: g.pictures("Bart"), "did you mean 'Bert'"),
    ],
)
def test_a_mistake_changes_nothing(friends: Gallery, wrong: Callable[[Gallery], object], words: str) -> None:
    before = listed(friends)
    with pytest.raises(PolyfaceError) as told:
        wrong(friends)
    assert words in str(told.value)
    assert listed(friends) == before


def test_a_reader_corrects_nothing(friends: Gallery) -> None:
    friends.close()
    with Gallery.open(friends._store.folder) as reader, pytest.raises(PolyfaceError, match="opened for reading"):
        reader.rename("Ann", "Cleo")


def test_names_are_of_one_form(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", Precomputed("net", 8, "cosine")) as gallery:
        gallery.enrol_embeddings(VECTORS[:3], [JOSE, DECOMPOSED, f" {DECOMPOSED}\t"])
        assert gallery.people() == {JOSE: 3}
        assert gallery.enrol_embeddings(VECTORS[:1], DECOMPOSED).faces == 0
        assert len(gallery.pictures(DECOMPOSED)) == 3
        assert gallery.remove(DECOMPOSED + " ") == 3


def earlier(folder: Path, *entries: dict[str, object]) -> None:
    """A gallery as earlier versions left it: names in any form, removals by name, no checksum in the manifest."""
    Gallery.create(folder, Precomputed("net", 8, "cosine")).close()
    (folder / "faces-0.jsonl").write_bytes(b"".join(map(line_of, entries)))
    told = json.loads((folder / "gallery.json").read_text())
    del told["sha256"]
    (folder / "gallery.json").write_text(json.dumps(told))


def test_a_gallery_that_holds_both_forms_holds_one_person(tmp_path: Path) -> None:
    crcs = [zlib.crc32(vector.data) for vector in VECTORS]
    names = [JOSE, DECOMPOSED, "Ann ", "Ann", "of\u2028two lines"]
    faces = [Face(name, f"{number:032x}") for number, name in enumerate(names)]
    entries = batch_entry(range(5), faces, crcs[:5]), {"op": "remove", "person": [DECOMPOSED]}
    earlier(tmp_path / "g", *entries)
    VECTORS[:5].tofile(tmp_path / "g" / "vectors-0.f32")
    with Gallery.open(tmp_path / "g", write=True) as gallery:
        # what was removed then was one form alone
        assert listed(gallery) == [(0, JOSE, None), (2, "Ann", None), (3, "Ann", None), (4, "of\u2028two lines", None)]
        assert gallery.compact() == 1
        assert gallery.remove(DECOMPOSED, "of\u2028two lines") == 2
        assert again(gallery).people() == {"Ann": 2}


class Killed(BaseException):
    """What a killed process does not tell."""


def reopened(gallery: Gallery, told: bool) -> Gallery:
    """Erased of what was removed, then killed before or after that was said, and opened."""
    folder = gallery._store.folder
    gallery.compact()
    gallery.__exit__(None if told else Killed, None, None)
    return Gallery.open(folder, write=True)


REMOVALS: list[Callable[[Gallery], int]] = [
    lambda gallery: gallery.remove("Anna"),
    lambda gallery: gallery.remove(pictures=["c.jpg"]),
    lambda gallery: gallery.merge("Anna", into="Ann"),
]


@pytest.mark.parametrize("change", REMOVALS)
def test_what_was_done_and_not_told_can_be_asked_for_again(friends: Gallery, change: Callable[[Gallery], int]) -> None:
    assert change(friends)
    kept = listed(friends)
    assert change(friends) == 0  # killed before what it removed was erased
    friends = reopened(friends, told=False)
    assert change(friends) == 0
    with reopened(friends, told=True) as friends, pytest.raises(PolyfaceError, match=r"no person|no picture"):
        change(friends)
    assert listed(friends) == kept
    assert "erased" in (friends._store.folder / "gallery.json").read_text(encoding="utf-8")


def test_a_picture_is_found_by_its_path_whatever_the_locale_made_of_it(friends: Gallery) -> None:
    friends.enrol_embeddings(
        VECTORS[5:7], "Carl", paths=["\udcc3\udca9.jpg", "\udce9.jpg"]
    )  # é in a C locale, in Latin-1
    assert friends.remove(pictures=["é.jpg", "\\udce9.jpg"]) == 2


def test_a_picture_that_was_removed_is_so_by_its_id_for_ever(friends: Gallery) -> None:
    assert friends.remove(pictures=[2]) == 1
    friends = reopened(friends, told=True)
    assert friends.remove(pictures=[2]) == 0
    with pytest.raises(PolyfaceError, match="there is no picture '6'"):
        friends.remove(pictures=[6])


def test_a_name_that_was_given_can_be_given_again(friends: Gallery) -> None:
    assert friends.rename("Anna", "Hanna") == 2
    assert friends.rename("Anna", "Hanna") == 0
    for old, new in (("Anna", "Nora"), ("Nobody", "Hanna")):
        with pytest.raises(PolyfaceError, match=f"no person is called '{old}'"):
            friends.rename(old, new)
    with pytest.raises(PolyfaceError, match="no person is called 'Anna'"):
        friends.remove("Anna")  # who is Hanna now, and still here
