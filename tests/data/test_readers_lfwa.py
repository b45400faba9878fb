"""LFWA on hand-made files: Kumar's 73 columns as CelebA's 40, each split, each fault by its message."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers.lfwa import score_columns
from polyface.data.table import FaceTable
from polyface.data.writing import Record, Skipped, write_table
from polyface.errors import PolyfaceError
from polyface.schema import ATTRIBUTES

PNG = encode_png(np.full((20, 20, 3), 90, np.uint8))

# The header of lfw_attributes.txt, behind person and imagenum.
_SCORES = """
Male, Asian, White, Black, Baby, Child, Youth, Middle Aged, Senior, Black Hair, Blond Hair, Brown Hair, Bald,
No Eyewear, Eyeglasses, Sunglasses, Mustache, Smiling, Frowning, Chubby, Blurry, Harsh Lighting, Flash,
Soft Lighting, Outdoor, Curly Hair, Wavy Hair, Straight Hair, Receding Hairline, Bangs, Sideburns,
Fully Visible Forehead, Partially Visible Forehead, Obstructed Forehead, Bushy Eyebrows, Arched Eyebrows,
Narrow Eyes, Eyes Open, Big Nose, Pointy Nose, Big Lips, Mouth Closed, Mouth Slightly Open,
Mouth Wide Open, Teeth Not Visible, No Beard, Goatee, Round Jaw, Double Chin, Wearing Hat, Oval Face,
Square Face, Round Face, Color Photo, Posed Photo, Attractive Man, Attractive Woman, Indian, Gray Hair,
Bags Under Eyes, Heavy Makeup, Rosy Cheeks, Shiny Skin, Pale Skin, 5 o' Clock Shadow,
Strong Nose-Mouth Lines, Wearing Lipstick, Flushed Face, High Cheekbones, Brown Eyes, Wearing Earrings,
Wearing Necktie, Wearing Necklace
"""
SCORES = [name.strip() for name in _SCORES.split(",")]
# Columns of the 73, counted from 1, that the published pipeline reads CelebA's 40 from, in CelebA's order.
PUBLISHED = [
    *(65, 36, 56, 60, 13, 30, 41, 39, 10, 11, 21, 12, 35, 20, 49, 15, 47, 59, 61, 69),
    *(1, 43, 17, 37, 46, 51, 64, 40, 29, 62, 31, 18, 28, 27, 71, 50, 67, 73, 72, 7),
]
People = Mapping[str, int]


def put(file: Path, data: bytes | str = PNG) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def row(person: str, number: int | str, **scores: float | str) -> str:
    """A row of the score file; a score is −1 unless given."""
    texts = {name: "-1" for name in SCORES} | {name: str(score) for name, score in scores.items()}
    return "\t".join([person, str(number), *texts.values()])


def score_file(rows: Sequence[str], names: Sequence[str] = SCORES) -> str:
    header = "\t".join(["#", "person", "imagenum", *names])
    return "\n".join(["# lfw_attributes.txt: scores", header, *rows]) + "\n"


def rows_of(people: People) -> list[str]:
    return [row(person, number) for person, count in people.items() for number in range(1, count + 1)]


def lfwa(root: Path, people: People, text: str | None = None, folder: str = "lfw-deepfunneled") -> Path:
    """Images of `people`, and the score file that `text` gives, else a row for each of them."""
    put(root / "lfw_attributes.txt", score_file(rows_of(people)) if text is None else text)
    for person, count in people.items():
        name = person.replace(" ", "_")
        for number in range(1, count + 1):
            put(root / folder / name / f"{name}_{number:04d}.jpg")
    return root


def read(root: Path, **options: Any) -> list[Record | Skipped]:
    return list(reader("lfwa", **options).records(root))


def faces(root: Path, **options: Any) -> list[Record]:
    found = read(root, **options)
    assert all(isinstance(face, Record) for face in found), found
    return found  # type: ignore[return-value]


def parts(found: list[Record]) -> list[str]:
    return [face.labels["split"] for face in found]


# ------------------------------------------------------------------------------------------- scores


def test_every_published_index_is_the_column_of_that_name():
    plain = {name.lower().replace("'", "").replace(" ", ""): index for index, name in enumerate(SCORES, 1)}
    other = {"young": "youth", "attractive": "attractiveman"}
    for attribute, index in zip(ATTRIBUTES, PUBLISHED, strict=True):
        word = attribute.lower().replace("_", "")
        assert plain[other.get(word, word)] == index, (attribute, SCORES[index - 1])


def test_columns_are_the_published_ones():
    found = dict(zip(ATTRIBUTES, score_columns(SCORES, "file:2"), strict=True))
    assert found.pop("Attractive") == [55, 56]  # Attractive Man, or Attractive Woman
    assert found == {a: [i - 1] for a, i in zip(ATTRIBUTES, PUBLISHED, strict=True) if a != "Attractive"}


def test_by_hand(tmp_path, caplog):
    scores = {"Male": 1.5, "5 o' Clock Shadow": 0.25, "Youth": "1e-9", "Bald": "0", "Asian": 3, "Sunglasses": 2}
    root = lfwa(tmp_path, {"Roh Moo-hyun": 3}, score_file([row("Roh Moo-hyun", 3, **scores)]))
    (only,) = faces(root)
    assert only.where == "lfw_attributes.txt:3"
    assert only.path == "Roh_Moo-hyun/Roh_Moo-hyun_0003.jpg"
    assert only.image == tmp_path / "lfw-deepfunneled" / "Roh_Moo-hyun" / "Roh_Moo-hyun_0003.jpg"
    positive = {"Male", "5_o_Clock_Shadow", "Young", "Bald"}
    assert only.labels.pop("attributes") == [1 if name in positive else -1 for name in ATTRIBUTES]
    assert only.labels.pop("split") in ("train", "val", "test")
    assert only.labels == {"identity": "Roh_Moo-hyun", "source": "lfwa", "modality": "photo", "gender": None}
    assert not caplog.records


@pytest.mark.parametrize("man, woman, value", [(-1, -1, -1), (1, -1, 1), (-1, 0, 1), (2, 3, 1), (-0.001, -7, -1)])
def test_attractive_is_either(tmp_path, man, woman, value):
    text = score_file([row("Ann", 1, **{"Attractive Man": man, "Attractive Woman": woman})])
    (only,) = faces(lfwa(tmp_path, {"Ann": 1}, text))
    assert only.labels["attributes"][ATTRIBUTES.index("Attractive")] == value


@given(st.lists(st.floats(-9, 9), min_size=73, max_size=73), st.permutations(range(73)))
def test_columns_are_known_by_name(tmp_path, scores, order):
    names = [SCORES[i] for i in order]
    text = score_file(["\t".join(["Ann", "1", *(repr(scores[i]) for i in order)])], names)
    (only,) = faces(lfwa(tmp_path, {"Ann": 1}, text))
    attractive = max(scores[55], scores[56])
    expected = [attractive if i == 56 else scores[i - 1] for i in PUBLISHED]
    assert only.labels["attributes"] == [1 if score >= 0 else -1 for score in expected]


@pytest.mark.parametrize("spelled", ["5 o'Clock Shadow", "5 O Clock Shadow", "5_o_Clock_Shadow", " 5 o’ Clock Shadow "])
def test_an_apostrophe_more_or_less(spelled):
    names = [spelled if "Clock" in name else name for name in SCORES]
    assert score_columns(names, "file:2") == score_columns(SCORES, "file:2")


def test_windows_line_ends(tmp_path):
    root = lfwa(tmp_path, {"Ann": 2}, score_file(rows_of({"Ann": 2})).replace("\n", "\r\n"))
    assert len(faces(root)) == 2


@pytest.mark.parametrize("folder", ["lfw", "lfw_funneled", "lfw-deepfunneled", "lfw-deepfunneled/lfw-deepfunneled"])
def test_image_folders(tmp_path, folder):
    found = faces(lfwa(tmp_path, {"Ann Lee": 2}, folder=folder))
    assert [face.image for face in found] == [tmp_path / folder / "Ann_Lee" / f"Ann_Lee_000{i}.jpg" for i in (1, 2)]
    assert [face.path for face in found] == ["Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg"]


def test_the_deep_funneled_images_are_taken_of_two_folders(tmp_path):
    lfwa(tmp_path, {"Ann": 1}, folder="lfw")
    assert faces(lfwa(tmp_path, {"Ann": 1}))[0].image.parent.parent.name == "lfw-deepfunneled"


def test_gender_is_told_by_one_of_the_lists_and_not_both(tmp_path):
    root = lfwa(tmp_path, {"Ann": 2, "Bob": 1, "Cy": 1})
    put(root / "female_names.txt", "Ann_0001.jpg\r\nCy_0001.jpg\r\n")
    assert {face.labels["gender"] for face in faces(root)} == {None}  # one list alone does not tell who is in both
    put(root / "male_names.txt", "Bob_0001.jpg\r\nCy_0001.jpg\r\n")
    assert [face.labels["gender"] for face in faces(root)] == ["female", None, "male", None]


# ------------------------------------------------------------------------------------------- splits

PEOPLE = {f"Person {chr(65 + i)}": 1 + i % 7 for i in range(26)}


def test_nobody_is_in_two_parts(tmp_path):
    found = faces(lfwa(tmp_path, PEOPLE))
    whose: dict[str, set[str]] = {}
    for face in found:
        whose.setdefault(face.labels["identity"], set()).add(face.labels["split"])
    assert all(len(named) == 1 for named in whose.values())
    ordered = sorted(whose, key=lambda name: hashlib.sha1(name.encode()).hexdigest())
    assert [part for person in ordered for part in whose[person]] == sorted(
        (part for person in whose for part in whose[person]), key=["test", "val", "train"].index
    )
    shares, most = Counter(parts(found)), max(PEOPLE.values())
    total = sum(PEOPLE.values())
    assert 0.3 * total - 1 <= shares["test"] <= 0.3 * total + most
    assert (total - shares["test"]) / 7 - 1 <= shares["val"] <= (total - shares["test"]) / 7 + most


def test_parts_do_not_depend_on_the_order_of_the_rows(tmp_path):
    rows = rows_of(PEOPLE)
    expected = {face.path: face.labels["split"] for face in faces(lfwa(tmp_path, PEOPLE))}
    shuffled = lfwa(tmp_path, PEOPLE, score_file(rows[::2] + rows[1::2]))
    assert {face.path: face.labels["split"] for face in faces(shuffled)} == expected


def test_kumar_odd_rows_train_and_even_ones_test(tmp_path):
    rows = rows_of({"Ann": 40})
    rows[4] = rows[4].replace("-1", "x", 1)  # the fifth cannot be read: those behind it stay where they are
    root = lfwa(tmp_path, {"Ann": 40}, score_file(rows))
    (root / "lfw-deepfunneled" / "Ann" / "Ann_0010.jpg").unlink()  # nor does the tenth, without an image, move any
    found = [face for face in read(root, split="kumar") if isinstance(face, Record)]
    assert len(found) == 38
    for face in found:
        odd = int(face.path[-8:-4]) % 2 == 1
        assert face.labels["split"] in (("train", "val") if odd else ("test",))
    training = [face.path for face in found if int(face.path[-8:-4]) % 2 == 1]
    smallest = sorted(training, key=lambda name: hashlib.sha1(name.encode()).hexdigest())[:2]  # a tenth of 19
    assert {face.path for face in found if face.labels["split"] == "val"} == set(smallest)


def liu_list(people: People, part: Mapping[str, int], separator: str = "/") -> str:
    lines = [
        f"{name}{separator}{name}_{number:04d}.jpg {part[person]}"
        for person, count in people.items()
        for name in [person.replace(" ", "_")]
        for number in range(1, count + 1)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_liu_by_a_list_that_has_a_validation_part(tmp_path, separator):
    people = {"Ann Lee": 2, "Bob": 1, "Cy": 2}
    root = lfwa(tmp_path, people)
    put(root / "lfwa_partition.txt", liu_list(people, {"Ann Lee": 2, "Bob": 1, "Cy": 0}, separator))
    assert parts(faces(root, split="liu")) == ["test", "test", "val", "train", "train"]


def test_liu_cuts_validation_people_from_training(tmp_path):
    root = lfwa(tmp_path, PEOPLE)
    test = set(list(PEOPLE)[::2])
    put(root / "lfwa_partition.txt", liu_list(PEOPLE, {person: 2 * (person in test) for person in PEOPLE}))
    found = faces(root, split="liu")
    whose = {part: {f.labels["identity"] for f in found if f.labels["split"] == part} for part in set(parts(found))}
    assert whose["test"] == {person.replace(" ", "_") for person in test}
    assert whose["val"]
    assert not whose["val"] & whose["train"]
    training = sum(count for person, count in PEOPLE.items() if person not in test)
    assert round(0.1 * training) <= parts(found).count("val") <= round(0.1 * training) + 6


def test_liu_without_the_list_says_what_is_missing(tmp_path):
    with pytest.raises(PolyfaceError, match=r"lfwa_partition.txt: not found; split 'liu' needs it: a line .* 'people'"):
        read(lfwa(tmp_path, {"Ann": 1}), split="liu")


def test_liu_rows_that_are_missing_or_cannot_be_read(tmp_path):
    root = lfwa(tmp_path, {"Ann": 4})
    put(root / "lfwa_partition.txt", "Ann/Ann_0001.jpg 0\nAnn/Ann_0003.jpg 4\nAnn/Ann_0004.jpg 0\nAnn/Ann_0004.jpg 2\n")
    found = read(root, split="liu")
    assert isinstance(found[0], Record)
    assert found[1:] == [
        Skipped("lfw_attributes.txt:4", "Ann/Ann_0002.jpg has no row in lfwa_partition.txt"),
        Skipped("lfwa_partition.txt:2", "part is '4', expected 0 (train), 1 (val) or 2 (test)"),
        Skipped("lfwa_partition.txt:4", "a second row of Ann/Ann_0004, after that of line 3"),
    ]


def test_unknown_split(tmp_path):
    with pytest.raises(PolyfaceError, match=r"reader 'lfwa': split is 'kumer'; did you mean 'kumar'\?"):
        read(lfwa(tmp_path, {"Ann": 1}), split="kumer")


# ------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "line, reason",
    [
        (row("Ann", 2).rpartition("\t")[0], "74 fields, expected 75: person, imagenum and 73 scores"),
        (row("Ann", 2) + "\t1", "76 fields, expected 75: person, imagenum and 73 scores"),
        (row("Ann", 2).replace("\t", " "), "1 fields, expected 75"),
        (row("Ann", 2, Bald="high"), "score 'high' is not a number"),
        (row("Ann", 2, Bald=""), "score '' is not a number"),
        (row("Ann", 2, Bald="nan"), "score 'nan' is not a number"),
        (row("Ann", 2, **{"Attractive Woman": "inf"}), "score 'inf' is not a number"),
        (row("Ann", 0), "imagenum is '0', expected a number from 1"),
        (row("Ann", "-1"), "imagenum is '-1', expected a number from 1"),
        (row("Ann", "two"), "imagenum is 'two', expected a number from 1"),
        (row("..", 2), "is not one inside the data set's folder"),
        (row("", 2), "is not one inside the data set's folder"),
        (row("Ann", 1), "a second row of Ann/Ann_0001.jpg, after that of line 3"),
    ],
)
def test_a_row_that_cannot_be_read_names_file_and_line(tmp_path, line, reason):
    text = score_file([row("Ann", 1), line, row("Ann", 3)])
    found = read(lfwa(tmp_path, {"Ann": 3}, text))
    assert [isinstance(face, Skipped) for face in found] == [False, True, False]
    assert found[1].where == "lfw_attributes.txt:4"
    assert reason in found[1].reason  # type: ignore[union-attr]


def test_scores_that_are_not_read_need_not_be_sound(tmp_path):
    (only,) = faces(lfwa(tmp_path, {"Ann": 1}, score_file([row("Ann", 1, Sunglasses="?")])))
    assert set(only.labels["attributes"]) == {-1}


def test_rows_without_an_image_are_left_out_and_counted(tmp_path, caplog):
    root = lfwa(tmp_path / "raw", {"Ann": 2}, score_file(rows_of({"Ann": 2, "Nobody Known": 3})))
    report = write_table(reader("lfwa").records(root), tmp_path / "t.parquet", on_bad="error")
    assert (report.rows, report.skipped) == (2, [])
    (line,) = caplog.messages
    assert "lfw_attributes.txt: left out 3 of 5 rows, which have no image in" in line
    assert FaceTable.open(tmp_path / "t.parquet").column("identity").to_pylist() == ["Ann", "Ann"]


def test_no_row_with_an_image(tmp_path):
    root = lfwa(tmp_path, {"Ann": 1}, score_file(rows_of({"Nobody": 3})))
    with pytest.raises(
        PolyfaceError, match=r"lfw-deepfunneled: no image that .*lfw_attributes.txt names; reader 'lfwa'"
    ):
        read(root)


@pytest.mark.parametrize("gone", ["Bald", "Attractive Woman", "Youth"])
def test_a_missing_column(tmp_path, gone):
    names = [name for name in SCORES if name != gone]
    with pytest.raises(
        PolyfaceError, match=rf"lfw_attributes.txt:2: lacks the column '{gone}', which \w+ is read from"
    ):
        read(lfwa(tmp_path, {"Ann": 1}, score_file(["Ann\t1" + "\t-1" * 72], names)))


@pytest.mark.parametrize("text", ["", "# a title\n", row("Ann", 1), score_file([row("Ann", 1)]).replace("\t", " ")])
def test_no_header(tmp_path, text):
    with pytest.raises(PolyfaceError, match=r"lfw_attributes.txt: has no header line '# person imagenum …'"):
        read(lfwa(tmp_path, {"Ann": 1}, text))


def test_missing_files(tmp_path):
    root = lfwa(tmp_path, {"Ann": 1})
    (root / "lfw_attributes.txt").rename(root / "other.txt")
    with pytest.raises(PolyfaceError, match=r"lfw_attributes.txt: not found; reader 'lfwa' expects .*obtain them"):
        read(root)
    (root / "other.txt").rename(root / "lfw_attributes.txt")
    (root / "lfw-deepfunneled").rename(root / "pictures")
    with pytest.raises(PolyfaceError, match=r"lfw-deepfunneled: not found; reader 'lfwa' expects "):
        read(root)
