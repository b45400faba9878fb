"""LFW-gender and LFW-identity: who is drawn, parts that share nobody, and neither training on the other's test
faces."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers._lfw_draws import balanced, gender_parts, identity_parts, most_pictured, person
from polyface.data.writing import Record
from polyface.errors import PolyfaceError

PNG = encode_png(np.full((8, 8, 3), 90, np.uint8))


def images(sizes: dict[str, int]) -> list[str]:
    return [f"{name}/{name}_{number:04}.jpg" for name, size in sizes.items() for number in range(1, size + 1)]


MANY = images({f"P{n:02}": 60 - n for n in range(38)} | {f"T{n:02}": 22 for n in range(20)} | {"Ann": 20})
"""38 people of 60 … 23 images, twenty with 22, and one with fewer."""
LFW = MANY + images({f"S{n:03}": 1 + n % 3 for n in range(300)})
GENDERS = {path: "male" if int(hashlib.sha1(person(path).encode()).hexdigest(), 16) % 3 else "female" for path in LFW}
KNOWN = {path: gender for path, gender in GENDERS.items() if path not in {"P00/P00_0001.jpg", "P00/P00_0002.jpg"}}


def test_the_fifty_with_the_most_images_and_ties_by_name() -> None:
    chosen = most_pictured(reversed(MANY))
    people = list(dict.fromkeys(map(person, chosen)))
    assert people == [*(f"P{n:02}" for n in range(38)), *(f"T{n:02}" for n in range(12))]
    assert chosen[:20] == [f"P00/P00_{number:04}.jpg" for number in range(1, 21)]
    assert len(chosen) == 1000


def test_the_draws_are_those_of_scikit_learn() -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    chosen = np.array(most_pictured(MANY))
    splits = selection.ShuffleSplit(n_splits=10, test_size=0.1, random_state=0).split(chosen)
    for draw, (_, tested) in enumerate(splits):
        parts = identity_parts(chosen.tolist(), draw)
        assert {path for path, part in parts.items() if part == "test"} == set(chosen[tested])
        assert Counter(parts.values()) == {"train": 810, "val": 90, "test": 100}
        rest = sorted(set(chosen) - set(chosen[tested]), key=lambda path: hashlib.sha1(path.encode()).hexdigest())
        assert {path for path, part in parts.items() if part == "val"} == set(rest[:90])


def test_as_many_of_each_gender_whatever_the_order() -> None:
    faces = balanced(GENDERS)
    women = sum(gender == "female" for gender in GENDERS.values())
    assert Counter(faces.values()) == {"female": women, "male": women}
    assert balanced(dict(reversed(GENDERS.items()))) == faces
    men = [path for path, gender in GENDERS.items() if gender == "male"]
    ordered = sorted(men, key=lambda path: hashlib.sha1(path.encode()).hexdigest())
    assert {path for path, gender in faces.items() if gender == "male"} == set(ordered[:women])


@pytest.mark.parametrize("draw", range(10))
def test_neither_trains_on_faces_that_the_other_tests(draw: int) -> None:
    faces, chosen = balanced(GENDERS), most_pictured(LFW)
    genders, people = gender_parts(faces, chosen, draw), identity_parts(chosen, draw)
    of = defaultdict(set)
    for path, part in genders.items():
        of[person(path)].add(part)
    assert all(len(parts) == 1 for parts in of.values())  # nobody is in two parts
    tested = {path for path, part in genders.items() if part == "test"}
    fifth = len(faces) // 2 // 5
    assert Counter(faces[path] for path in tested) == {"male": fifth, "female": fifth}
    assert not tested & people.keys()
    asked = {path for path, part in people.items() if part == "test"}
    assert not asked & genders.keys()
    assert asked & faces.keys() == faces.keys() - genders.keys()  # and nothing else is in no part


def test_draws_differ_and_repeat() -> None:
    faces, chosen = balanced(GENDERS), most_pictured(LFW)
    draws = [frozenset(p for p, part in gender_parts(faces, chosen, n).items() if part == "test") for n in range(10)]
    assert len(set(draws)) == 10
    assert gender_parts(dict(reversed(faces.items())), chosen, 3) == gender_parts(faces, chosen, 3)


# ------------------------------------------------------------------------------------------------- on files


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of LFW in which one image is in both lists of names, and one in neither."""
    root = tmp_path_factory.mktemp("lfw")
    for path in LFW:
        (root / "lfw" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "lfw" / path).write_bytes(PNG)
    for gender in ("male", "female"):
        listed = [path.partition("/")[2] for path, said in KNOWN.items() if said == gender]
        (root / f"{gender}_names.txt").write_text("\n".join(["P00_0001.jpg", *listed]) + "\n\n")
    return root


def test_lfw_identity(lfw: Path) -> None:
    faces = [face for face in reader("lfw-identity", draw=3).records(lfw) if isinstance(face, Record)]
    assert [face.path for face in faces] == most_pictured(LFW)
    assert {face.path: face.labels["split"] for face in faces} == identity_parts(most_pictured(LFW), 3)
    assert {(face.labels["source"], face.labels["modality"]) for face in faces} == {("lfw-identity", "photo")}
    assert all(face.labels["identity"] == person(face.path) for face in faces)
    assert faces[0].labels["gender"] is None  # in both lists


def test_lfw_gender(lfw: Path, caplog: pytest.LogCaptureFixture) -> None:
    faces = [face for face in reader("lfw-gender", draw=3).records(lfw) if isinstance(face, Record)]
    assert {face.path: face.labels["gender"] for face in faces} == balanced(KNOWN)
    assert [face.path for face in faces] == sorted(face.path for face in faces)
    parts = {face.path: face.labels["split"] for face in faces if face.labels["split"]}
    assert parts == gender_parts(balanced(KNOWN), most_pictured(LFW), 3)
    told = "left out 1 images that both male_names.txt and female_names.txt name, and 1 that neither does"
    assert told in caplog.text


def test_the_lists_hash_is_told(lfw: Path) -> None:
    for name, column, paths in (
        ("lfw-identity", "identity", most_pictured(LFW)),
        ("lfw-gender", "gender", [face.path for face in reader("lfw-gender").records(lfw)]),
    ):
        found = hashlib.sha1("\n".join(sorted(paths)).encode()).hexdigest()
        assert reader(name).plan(lfw).hints == {column: f"SHA-1 of the list {found}"}


def test_what_is_refused(lfw: Path, tmp_path: Path) -> None:
    for name in ("lfw-identity", "lfw-gender"):
        for draw in (10, -1, "seed"):
            expected = f"reader '{name}': draw is '{draw}'; expected a number from 0 to 9"
            with pytest.raises(PolyfaceError, match=expected):
                list(reader(name, draw=draw).records(lfw))
    (tmp_path / "lfw").symlink_to(lfw / "lfw")
    with pytest.raises(
        PolyfaceError, match="male_names.txt: not found; reader 'lfw-gender' expects male_names.txt and"
    ):
        list(reader("lfw-gender").records(tmp_path))
    (tmp_path / "few/lfw/Ann").mkdir(parents=True)
    (tmp_path / "few/lfw/Ann/Ann_0001.jpg").write_bytes(PNG)
    expected = "not 50 people with 20 images; reader 'lfw-identity' expects the folder lfw"
    with pytest.raises(PolyfaceError, match=expected):
        list(reader("lfw-identity").records(tmp_path / "few"))
