"""CelebA and LFWA as their authors publish them: counts, splits, and every attribute against a parse of its own."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest

from polyface.data.images import decode
from polyface.data.readers import reader
from polyface.data.readers.lfwa import score_columns
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.schema import ATTRIBUTES


def records(name, root, **options):
    found = list(reader(name, **options).records(root))
    assert all(isinstance(face, Record) for face in found)
    return found


def attributes(found):
    return np.array([face.labels["attributes"] for face in found])


def people_by_part(found):
    whose = {}
    for face in found:
        whose.setdefault(face.labels["split"], set()).add(face.labels["identity"])
    return whose


@pytest.fixture(scope="module")
def celeba(real_data):
    return records("celeba", real_data("celeba"))


@pytest.fixture(scope="module")
def lfwa(real_data):
    return records("lfwa", real_data("lfw"))


@pytest.fixture(scope="module")
def scores(real_data):
    """Rows of the score file as dictionaries, by Python's own reader of tables."""
    with open(real_data("lfw") / "lfw_attributes.txt", newline="") as file:
        next(file)
        names = next(file).rstrip("\n").split("\t")[1:]
        return [dict(zip(names, row, strict=True)) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


# ------------------------------------------------------------------------------------------- CelebA


def test_celeba_counts(celeba):
    assert len(celeba) == 15956
    assert Counter(face.labels["split"] for face in celeba) == {"train": 12774, "val": 1579, "test": 1603}
    assert len({face.labels["identity"] for face in celeba}) == 5561
    assert [face.path for face in celeba] == sorted({face.path for face in celeba})
    assert {(face.labels["source"], face.labels["modality"]) for face in celeba} == {("celeba", "photo")}


def test_celeba_parts_share_no_person(celeba):
    whose = people_by_part(celeba)
    assert sum(len(people) for people in whose.values()) == len(set.union(*whose.values())) == 5561


def test_celeba_attributes_are_those_of_the_list(celeba, real_data):
    lines = (real_data("celeba") / "list_attr_celeba.txt").read_text().splitlines()
    header = lines[1].split()
    listed = {name: dict(zip(header, values, strict=True)) for name, *values in map(str.split, lines[2:])}
    for name, column in zip(ATTRIBUTES, attributes(celeba).T, strict=True):
        expected = [int(listed[face.path.split("/")[1]][name]) for face in celeba]
        np.testing.assert_array_equal(column, expected, err_msg=name)


def test_celeba_frequencies_are_plausible(celeba):
    positive = dict(zip(ATTRIBUTES, (attributes(celeba) == 1).mean(axis=0), strict=True))
    # Those of all 202,599 images, to which this part is close.
    known = {"Male": 0.417, "Smiling": 0.482, "Young": 0.774, "Eyeglasses": 0.065, "Bald": 0.022, "No_Beard": 0.835}
    for name, frequency in known.items():
        assert positive[name] == pytest.approx(frequency, abs=0.03), name
    beards = attributes(celeba)[:, [ATTRIBUTES.index("No_Beard"), ATTRIBUTES.index("Goatee")]]
    assert (beards == 1).all(axis=1).mean() < 0.01  # hardly a goatee on a face without a beard


def test_celeba_half_size_images_have_no_points(celeba):
    assert {decode(face.image).shape for face in celeba[::2000]} == {(109, 89, 3)}
    assert not any({"landmarks_5", "box"} & face.labels.keys() for face in celeba)


# ------------------------------------------------------------------------------------------- LFWA


def test_lfwa_counts(lfwa):
    assert len(lfwa) == 2999
    assert len({face.path for face in lfwa}) == 2999
    faces_of = Counter(face.labels["identity"] for face in lfwa)
    assert len(faces_of) == 62
    assert faces_of["George_W_Bush"] == 524
    assert min(faces_of.values()) == 19


def test_lfwa_columns_are_the_published_ones(scores):
    names = list(scores[0])[2:]
    assert len(names) == 73
    pairs = {a: [names[i] for i in indices] for a, indices in zip(ATTRIBUTES, score_columns(names, ""), strict=True)}
    named = {a: [a.replace("_", " ")] for a in ATTRIBUTES}
    assert pairs == named | {
        "5_o_Clock_Shadow": ["5 o' Clock Shadow"],
        "Attractive": ["Attractive Man", "Attractive Woman"],
        "Young": ["Youth"],
    }
    published = (
        "65 36 56 60 13 30 41 39 10 11 21 12 35 20 49 15 47 59 61 69 1 43 17 37 46 51 64 40 29 62 31 18 28 27 71"
    )
    published += " 50 67 73 72 7"
    assert [names[int(i) - 1] for i in published.split()] == [pairs[attribute][0] for attribute in ATTRIBUTES]


def test_lfwa_attributes_are_the_signs_of_the_scores(lfwa, scores):
    by_path = {f"{r['person']}/{r['person']}_{int(r['imagenum']):04d}.jpg".replace(" ", "_"): r for r in scores}
    assert by_path.keys() == {face.path for face in lfwa}
    for face in lfwa:
        row = by_path[face.path]
        expected = {a: row.get(a.replace("_", " ")) for a in ATTRIBUTES}
        expected["5_o_Clock_Shadow"], expected["Young"] = row["5 o' Clock Shadow"], row["Youth"]
        expected["Attractive"] = max(row["Attractive Man"], row["Attractive Woman"], key=float)
        assert face.labels["attributes"] == [1 if float(expected[a]) >= 0 else -1 for a in ATTRIBUTES], face.where


def test_lfwa_gender_by_names_agrees_with_the_scores(lfwa):
    # Two sources that know nothing of each other: a shifted column would agree on about half.
    male = attributes(lfwa)[:, ATTRIBUTES.index("Male")] == 1
    assert Counter(face.labels["gender"] for face in lfwa)[None] == 0
    assert (male == [face.labels["gender"] == "male" for face in lfwa]).mean() > 0.95


def test_lfwa_splits(lfwa, real_data):
    whose = people_by_part(lfwa)
    assert {part: len(people) for part, people in whose.items()} == {"train": 29, "val": 10, "test": 23}
    assert len(set.union(*whose.values())) == 62
    assert Counter(face.labels["split"] for face in lfwa) == {"train": 1606, "val": 491, "test": 902}
    kumar = records("lfwa", real_data("lfw"), split="kumar")
    assert Counter(face.labels["split"] for face in kumar) == {"train": 1350, "val": 150, "test": 1499}
    assert {face.path for face in kumar if face.labels["split"] == "test"} == {face.path for face in lfwa[1::2]}


# ------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("name", ["celeba", "lfwa"])
def test_a_table_holds_what_was_read(name, request, tmp_path):
    part = request.getfixturevalue(name)[::40]
    report = write_table(part, tmp_path / "t.parquet")
    table = FaceTable.open(tmp_path / "t.parquet")
    assert report.rows == len(table) == len(part)
    np.testing.assert_array_equal(table.numbers("attributes"), attributes(part))
    assert table.column("identity").to_pylist() == [face.labels["identity"] for face in part]


def test_lfwa_is_found_where_lfw_lies(real_data, tmp_path, monkeypatch):
    """A recipe that names `lfwa` needs no copy or link of LFW's folder."""
    from polyface.data.store import open_source

    monkeypatch.setenv("POLYFACE_CACHE", str(tmp_path))
    assert len(open_source("lfwa", real_data("lfw").parent)) == 2999
