"""CaVI and WebCaricature as their authors publish them: counts, parts that share nothing, and what is left out."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from polyface.data.readers import reader
from polyface.data.readers.cavi import CaVI
from polyface.data.readers.webcaricature import training_people
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table

CARICATURES, PHOTOS = 0, 1


def records(name, root, **options):
    found = list(reader(name, **options).records(root))
    assert all(isinstance(face, Record) for face in found)
    return found


def by_part(found):
    """(caricatures, photos) of each part."""
    counts = Counter((face.labels["split"], face.labels["modality"]) for face in found)
    return {part: (counts[part, "caricature"], counts[part, "photo"]) for part, _ in counts}


def people(found):
    return {face.labels["identity"] for face in found}


@pytest.fixture(scope="module")
def cavi(real_data):
    return records("cavi", real_data("cavi"))


@pytest.fixture(scope="module")
def webcaricature(real_data):
    return records("webcaricature", real_data("webcaricature"))


@pytest.fixture(scope="module")
def contents(real_data):
    """Path below CaVI_Dataset → digest, of every image however deep it lies."""
    root = real_data("cavi") / "CaVI_Dataset"
    return {file.relative_to(root).as_posix(): hashlib.sha1(file.read_bytes()).digest() for file in root.rglob("*.jpg")}


@pytest.fixture(scope="module")
def listed(real_data):
    """List → the image paths in its lines, by a parse of its own."""
    root = real_data("cavi")
    found = {}
    for file in (*root.glob("train-test-files/*i*.txt"), *root.glob("data_instances/*.txt")):
        rows = [line.replace("\\", "/").split() for line in file.read_text().splitlines()]
        found[f"{file.parent.name}/{file.stem}"] = [(row[1], row[3]) for row in rows if len(row) == 5]
    return found


# ------------------------------------------------------------------------------------------- CaVI


def test_cavi_counts(cavi, caplog, real_data):
    assert by_part(cavi) == {"test": (990, 1217), "val": (909, 2108), "train": (2661, 2809)}
    assert len(people(cavi)) == 194  # of 195 names: arvind_kejriwal is there twice
    assert {part: len(people(f for f in cavi if f.labels["split"] == part)) for part in by_part(cavi)} == {
        "train": 194,
        "val": 194,
        "test": 194,
    }
    records("cavi", real_data("cavi"))
    assert [message.split("left out ")[1] for message in caplog.messages] == [
        "980 images in folders inside a person's folder",
        "671 images that are in no part of the split 'clean'",
        "30 images that are copies of another of the same person",
        "4 images that lie, as the same file, under two names",
    ]


def test_cavi_parts_share_nothing(cavi, contents):
    assert len({face.path for face in cavi}) == len(cavi)
    assert len({contents[face.path] for face in cavi}) == len(cavi)


def test_cavi_parts_are_those_of_the_lists(cavi, listed):
    lists = {"test": "train-test-files/testing_1", "val": "train-test-files/validation"}
    named = {part: {path.lower() for row in listed[name] for path in row} for part, name in lists.items()}
    assert {part: len(paths) for part, paths in named.items()} == {"test": 2207, "val": 3023}
    for face in cavi:
        parts = [part for part, paths in named.items() if face.path.lower() in paths]
        assert parts == [face.labels["split"]] or (parts == [] and face.labels["split"] == "train"), face.path


def test_cavi_letter_by_letter_some_listed_images_seem_absent(listed, contents):
    """Where 2,174 test and 2,958 validation images come from: the others are there, under names in another case."""
    lower = {path.lower() for path in contents}
    for name, exact, everything in (("testing_1", 2174, 2207), ("validation", 2958, 3023)):
        named = {path for row in listed[f"train-test-files/{name}"] for path in row}
        assert (len(named & contents.keys()), len(named)) == (exact, everything)
        assert {path.lower() for path in named} <= lower


def test_cavi_photos_of_others_in_one_persons_folder_are_copies(contents):
    inside = {path: digest for path, digest in contents.items() if path.count("/") == 3}
    assert {path.rsplit("/", 2)[0] for path in inside} == {"Real/Vladimir_Putin"}
    assert (len(inside), len({path.split("/")[2] for path in inside})) == (980, 47)
    own = {(path.split("/")[1].lower(), digest) for path, digest in contents.items() if path.count("/") == 2}
    assert {(path.split("/")[2].lower(), digest) for path, digest in inside.items()} <= own


def test_cavi_pairs(cavi, real_data, listed):
    part = {face.path: face.labels["split"] for face in cavi}
    for name, file, count, same in (("test", "testing_1", 13035, 6583), ("val", "validation", 14393, 7970)):
        found = CaVI().pairs(real_data("cavi"), name)
        assert (len(found), sum(pair.same for pair in found)) == (count, same)
        assert {part[path] for pair in found for path in (pair.first, pair.second)} == {name}
        written = [tuple(path.lower() for path in row) for row in listed[f"train-test-files/{file}"]]
        rows = iter(written)
        assert all((pair.first.lower(), pair.second.lower()) in rows for pair in found)  # and in their order


def test_cavi_authors(real_data, listed):
    found = records("cavi", real_data("cavi"), split="authors")
    assert by_part(found) == {"test": (528, 486), "val": (384, 587), "train": (3648, 5095)}
    assert len(people(found)) == 194
    drawn = CaVI("authors").pairs(real_data("cavi"), "test")
    assert (len(drawn), sum(pair.same for pair in drawn)) == (652, 330)
    assert [(pair.first.lower(), pair.second.lower()) for pair in drawn] == [
        tuple(path.lower() for path in row) for row in listed["train-test-files/testing_1"][::20]
    ]


def test_cavi_instances(real_data, contents, caplog):
    found = records("cavi", real_data("cavi"), split="instances")
    assert by_part(found) == {"test": (647, 656), "val": (586, 869), "train": (1713, 1456)}
    assert len(people(found)) == 142
    assert len({contents[face.path] for face in found}) == len(found)
    for count, what in ((1, "3469 images of training_11.txt"), (1, "3464 images of training_12.txt")):
        assert any(f"left out {count} of {what}, which are absent" in message for message in caplog.messages)
    counts = {part: len(CaVI("instances").pairs(real_data("cavi"), part)) for part in ("train", "val", "test")}
    assert counts == {"train": 36439, "val": 5127, "test": 5894}


# ------------------------------------------------------------------------------------------- WebCaricature


def test_webcaricature_counts(webcaricature, caplog):
    assert Counter(face.labels["modality"] for face in webcaricature) == {"caricature": 3099, "photo": 2984}
    assert len(people(webcaricature)) == 123
    assert not any("landmarks_17" in face.labels for face in webcaricature)


def test_webcaricature_training_people(webcaricature, real_data, caplog):
    """The one protocol file that is here names all people and counts their images; three people are not public."""
    found = training_people(real_data("webcaricature"))
    assert len(found) == 123
    named = [path for person in found for path in (*person.caricatures, *person.photos)]
    assert sorted(named) == sorted(face.path for face in webcaricature)
    identity = {face.path: face.labels["identity"] for face in webcaricature}
    assert all(identity[path] == person.identity for person in found for path in person.caricatures + person.photos)
    assert [message.split(".txt: ")[1].split(", absent")[0] for message in caplog.messages] == [
        "left out 3 of 126 people",
        "left out 45 of 6128 images",
    ]


def test_people_of_both_sets(cavi, webcaricature, real_data):
    """28 names are the same but for their case; one has a hyphen, and six are spelled in two ways."""
    folders = [file.name for file in (real_data("cavi") / "CaVI_Dataset" / "Real").iterdir()]
    names = [file.name for file in (real_data("webcaricature") / "OriginalImages").iterdir()]
    plain = {name.lower() for name in folders} & {name.lower().replace(" ", "_") for name in names}
    shared = people(cavi) & people(webcaricature)
    assert (len(plain), len(shared)) == (28, 35)


# ------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("name", ["cavi", "webcaricature"])
def test_a_table_holds_what_was_read(name, request, tmp_path):
    part = request.getfixturevalue(name)[::40]
    report = write_table(part, tmp_path / "t.parquet")
    table = FaceTable.open(tmp_path / "t.parquet")
    assert report.rows == len(table) == len(part)
    for column in ("identity", "modality", "source"):
        assert table.column(column).to_pylist() == [face.labels[column] for face in part]
