"""CaVI on hand-made files: who is in which part, what is left out and counted, each fault by its message."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers.cavi import CaVI
from polyface.data.readers.common import Images, Pair, person_name
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError

FOLDERS = {"c": "Caricature", "r": "Real"}
TEST, VAL = "train-test-files/testing_1.txt", "train-test-files/validation.txt"


@lru_cache
def image(content: int) -> bytes:
    return encode_png(np.array([[[content, 7, 7]]], np.uint8))


def put(file: Path, data: bytes | str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def line(a: str, b: str, separator: str = "\\", label: int | None = None) -> str:
    """The line of a pair of images called <person>_c_1 and <person>_r_1; its label unless given."""
    people = [name.rpartition("_")[0].rpartition("_")[0] for name in (a, b)]
    same = int(people[0] == people[1]) if label is None else label
    c, r = (f"{f}/{p}{separator}{n}.jpg" for f, p, n in zip(FOLDERS.values(), people, (a, b), strict=True))
    return f"{people[0]} {c} {people[1]} {r} {same}\r\n"


def cavi(root: Path, names: Sequence[str], lists: Mapping[str, Sequence[str]], copies: Mapping[str, str] = {}) -> Path:
    """Images ann_c_1, ann_r_1, …, all different but that `copies` (copy → original) have another's content."""
    content = {name: image(index) for index, name in enumerate(names)}
    for name in names:
        person, letter = name.split("/")[-1].rsplit("_", 2)[:2]
        folder = name.rpartition("/")[0] or f"{FOLDERS[letter]}/{person}"
        put(root / "CaVI_Dataset" / folder / f"{name.split('/')[-1]}.jpg", content[copies.get(name, name)])
    for file, lines in lists.items():
        put(root / file, "".join(lines))
    return root


def numbered(people: str, count: int) -> list[str]:
    return [f"{person}_{letter}_{i}" for person in people.split() for letter in "cr" for i in range(count)]


def faces(root: Path, **options: Any) -> list[Record]:
    found = list(reader("cavi", **options).records(root))
    assert all(isinstance(face, Record) for face in found), found
    return found  # type: ignore[return-value]


def parts(root: Path, **options: Any) -> dict[str, str]:
    return {face.path.split("/")[-1].removesuffix(".jpg"): face.labels["split"] for face in faces(root, **options)}


# ------------------------------------------------------------------------------------------- clean


def test_by_hand(tmp_path, caplog):
    names = numbered("ann Bob_Lee", 3)
    root = cavi(
        tmp_path,
        names,
        {
            TEST: [line("ann_c_0", "ann_r_0"), line("ann_c_0", "Bob_Lee_r_0")],
            VAL: [line("Bob_Lee_c_1", "Bob_Lee_r_1"), line("Bob_Lee_c_1", "ann_r_1")],
        },
    )
    found = faces(root)
    assert [face.path for face in found] == sorted(
        f"{FOLDERS[name[-3]]}/{name.rsplit('_', 2)[0]}/{name}.jpg" for name in names
    )
    first = found[0]
    assert first.path == "Caricature/Bob_Lee/Bob_Lee_c_0.jpg"
    assert first.image == tmp_path / "CaVI_Dataset" / first.path
    assert first.labels == {"identity": "bob_lee", "modality": "caricature", "source": "cavi", "split": "train"}
    assert {face.labels["modality"] for face in found[6:]} == {"photo"}
    held = {"ann_c_0": "test", "ann_r_0": "test", "Bob_Lee_r_0": "test"}
    held |= {"Bob_Lee_c_1": "val", "Bob_Lee_r_1": "val", "ann_r_1": "val"}
    assert parts(root) == {name: held.get(name, "train") for name in names}
    assert CaVI().pairs(root, "test") == [
        Pair("Caricature/ann/ann_c_0.jpg", "Real/ann/ann_r_0.jpg", True),
        Pair("Caricature/ann/ann_c_0.jpg", "Real/Bob_Lee/Bob_Lee_r_0.jpg", False),
    ]
    assert [pair.same for pair in CaVI().pairs(root, "val")] == [True, False]
    assert not caplog.records


def test_names_in_another_case_are_found(tmp_path, caplog):
    """The folders of one person differ in case, and the lists follow the other one."""
    names = ["Caricature/Jackie_Chan/jackie_chan_c_1", "Real/jackie_chan/Jackie_Chan_R_1"]
    both = [line("JACKIE_CHAN_c_1", "Jackie_Chan_r_1", label=1).replace("jpg", "JPG")]
    root = cavi(tmp_path, [], {TEST: both, VAL: both})
    for index, name in enumerate(names):
        put(root / "CaVI_Dataset" / f"{name}.jpg", image(index))
    assert [(face.labels["identity"], face.labels["split"]) for face in faces(root)] == [("jackie_chan", "test")] * 2
    assert CaVI().pairs(root, "test") == [Pair(*(f"{name}.jpg" for name in names), True)]
    assert [message.split("out ")[1] for message in caplog.messages] == [
        "2 images of a part's lists from that part: those of a later one name them too"
    ]


def test_people_whom_no_list_names_are_left_out(tmp_path, caplog):
    root = cavi(
        tmp_path, numbered("ann eve", 2), {TEST: [line("ann_c_0", "ann_r_0")], VAL: [line("ann_c_1", "ann_r_1")]}
    )
    assert {face.labels["identity"] for face in faces(root)} == {"ann"}
    assert caplog.messages[0].endswith("left out 4 images that are in no part of the split 'clean'")


def test_folders_inside_a_persons_folder_are_left_out(tmp_path, caplog):
    lists = {TEST: [line("ann_c_0", "ann_r_0")], VAL: [line("ann_c_1", "bob_r_1")]}
    inside = ["Real/ann/bob/bob_r_0", "Real/ann/bob/bob_r_7"]
    root = cavi(tmp_path, [*numbered("ann bob", 2), *inside], lists, {inside[0]: "bob_r_0"})
    assert len(faces(root)) == 8
    (message,) = caplog.messages
    assert message.endswith("CaVI_Dataset: left out 2 images in folders inside a person's folder")


@pytest.mark.parametrize("original, held", [("ann_r_0", "test"), ("ann_r_1", "val"), ("ann_r_2", "train")])
def test_of_copies_one_is_kept_in_the_part_that_matters_most(tmp_path, caplog, original, held):
    copy = f"Real/ann/{original}(1)"
    lists = {TEST: [line("ann_c_0", "ann_r_0")], VAL: [line("ann_c_1", "ann_r_1")]}
    found = parts(cavi(tmp_path, [*numbered("ann", 3), copy], lists, {copy: original}))
    assert found[original] == held
    assert copy.split("/")[-1] not in found
    assert caplog.messages[0].endswith("left out 1 images that are copies of another of the same person")


def test_copies_in_two_lists_stay_in_test(tmp_path):
    lists = {TEST: [line("ann_c_0", "ann_r_1")], VAL: [line("ann_c_1", "ann_r_0")]}
    root = cavi(tmp_path, numbered("ann", 2), lists, {"ann_r_0": "ann_r_1"})
    assert parts(root) == {"ann_c_0": "test", "ann_c_1": "val", "ann_r_1": "test"}
    assert CaVI().pairs(root, "val") == []


def test_a_picture_under_two_names_is_nobodys(tmp_path, caplog):
    lists = {TEST: [line("ann_c_0", "ann_r_0"), line("ann_c_0", "bob_r_0")], VAL: [line("bob_c_1", "bob_r_1")]}
    names = [*numbered("ann bob eve", 3)]
    root = cavi(tmp_path, names, lists, {"bob_r_0": "ann_r_0", "bob_r_2": "eve_r_2", "ann_c_2": "ann_r_2"})
    found = parts(root)  # eve is in no list, but the picture might still be hers
    assert not {"ann_r_0", "bob_r_0", "bob_r_2", "ann_c_2", "ann_r_2"} & found.keys()
    assert len(found) == 12 - 5
    assert any(
        message.endswith("left out 5 images that lie, as the same file, under two names") for message in caplog.messages
    )
    assert CaVI().pairs(root, "test") == []
    assert caplog.messages[-1].endswith("left out 2 of 2 pairs of 'test', of which an image is not in that part")


def test_absent_images_are_counted_once_an_image(tmp_path, caplog):
    listed = [line("ann_c_0", "ann_r_0"), line("ann_c_8", "ann_r_0"), line("ann_c_8", "ann_r_9")]
    root = cavi(tmp_path, numbered("ann", 2), {TEST: listed, VAL: [line("ann_c_1", "ann_r_1")]})
    assert len(faces(root)) == 4
    (message,) = caplog.messages
    assert "left out 2 of 4 images of testing_1.txt, which are absent, such as Caricature/ann/ann_c_8.jpg" in message
    assert len(CaVI().pairs(root, "test")) == 1


def test_a_person_with_no_photo_is_named(tmp_path, caplog):
    lists = {TEST: [line("ann_c_0", "ann_r_0")], VAL: [line("bob_c_0", "ann_r_1")]}
    root = cavi(tmp_path, ["ann_c_0", "ann_r_0", "ann_r_1", "bob_c_0", "bob_c_1"], lists)
    assert len(faces(root)) == 5
    (message,) = caplog.messages
    assert message.endswith("CaVI_Dataset: 1 people have no photo: bob")


PEOPLE = "ann bob eve"
NAMES = numbered(PEOPLE, 3)


@st.composite
def sets(draw: st.DrawFn) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Any lists over 18 images, and any copies among them."""
    caricatures, photos = ([name for name in NAMES if name[-3] == letter] for letter in "cr")
    pair = st.builds(line, st.sampled_from(caricatures), st.sampled_from(photos))
    lists = {name: draw(st.lists(pair, min_size=1, max_size=8)) for name in (TEST, VAL)}
    return lists, draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES), max_size=6))


@settings(max_examples=20)
@given(sets())
def test_no_image_is_in_two_parts(tmp_path_factory, drawn):
    lists, copies = drawn
    root = cavi(tmp_path_factory.mktemp("cavi"), NAMES, lists, copies)
    found = faces(root)
    assert len({face.path for face in found}) == len(found)
    contents = [hashlib.sha1(Path(face.image).read_bytes()).digest() for face in found]  # type: ignore[arg-type]
    assert len(set(contents)) == len(contents)
    part = {face.path: face.labels["split"] for face in found}
    for name in ("test", "val"):
        for pair in CaVI().pairs(root, name):
            assert part[pair.first] == part[pair.second] == name
            assert pair.same == (pair.first.split("/")[1] == pair.second.split("/")[1])


# ------------------------------------------------------------------------------------------- authors


def test_authors_every_twentieth_pair(tmp_path):
    listed = [line("ann_c_0", f"ann_r_{i}") for i in range(45)] + [line("bob_c_0", "bob_r_0")]
    names = ["ann_c_0", "bob_c_0", "bob_r_0", *(f"ann_r_{i}" for i in range(60))]
    root = cavi(tmp_path, names, {TEST: listed}, {"ann_r_50": "ann_r_0"})
    found = parts(root, split="authors")
    held = {"ann_c_0", "ann_r_0", "ann_r_20", "ann_r_40"}
    assert {name for name, part in found.items() if part == "test"} == held
    assert found.keys() == set(
        names
    )  # bob is of the 46 pairs, though not of the three; and a copy of a test image stays
    rest = {
        name: hashlib.sha1(f"{FOLDERS[name[4]]}/{name[:3]}/{name}.jpg".encode()).hexdigest() for name in {*names} - held
    }
    assert {name for name, part in found.items() if part == "val"} == set(sorted(rest, key=rest.__getitem__)[:6])
    assert [pair.second for pair in CaVI("authors").pairs(root, "test")] == [
        f"Real/ann/ann_r_{i}.jpg" for i in (0, 20, 40)
    ]


# ------------------------------------------------------------------------------------------- instances

INSTANCES = [f"data_instances/{name}.txt" for name in ("training_11", "training_12", "validation", "testing_1")]


def test_instances_by_hand(tmp_path, caplog):
    rows = [("ann_c_0", "ann_r_0"), ("ann_c_1", "ann_r_1"), ("ann_c_1", "ann_r_2"), ("ann_c_3", "ann_r_0")]
    root = cavi(tmp_path, numbered("ann", 5), {file: [line(*row)] for file, row in zip(INSTANCES, rows, strict=True)})
    assert parts(root, split="instances") == {
        "ann_c_0": "train",
        "ann_r_0": "test",  # named by the first training list too
        "ann_c_1": "val",
        "ann_r_1": "train",
        "ann_r_2": "val",
        "ann_c_3": "test",
    }
    assert [message.split("out ")[1] for message in caplog.messages] == [
        "2 images of a part's lists from that part: those of a later one name them too",
        "4 images that are in no part of the split 'instances'",
    ]
    assert CaVI("instances").pairs(root, "train") == []
    assert caplog.messages[-1].endswith("left out 2 of 2 pairs of 'train', of which an image is not in that part")
    assert CaVI("instances").pairs(root, "test") == [Pair("Caricature/ann/ann_c_3.jpg", "Real/ann/ann_r_0.jpg", True)]


# ------------------------------------------------------------------------------------------- everybody


def test_everybody_needs_no_list_and_leaves_nobody_out(tmp_path):
    names = numbered("ann bob eve", 10)
    found = parts(cavi(tmp_path, names, {}), split="everybody")
    assert found.keys() == set(names)
    digests = {name: hashlib.sha1(f"{FOLDERS[name[4]]}/{name[:3]}/{name}.jpg".encode()).hexdigest() for name in names}
    held = set(sorted(names, key=digests.__getitem__)[:6])
    assert {name for name, part in found.items() if part == "val"} == held
    assert {found[name] for name in found.keys() - held} == {"train"}
    with pytest.raises(PolyfaceError, match="split 'everybody' has no pairs of 'test'"):
        CaVI("everybody").pairs(tmp_path, "test")


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES), max_size=6))
def test_everybodys_images_are_each_there_once(tmp_path_factory, copies):
    """No content twice, not in one part nor in two; of copies under one name one is kept, under two names none."""
    root = cavi(tmp_path_factory.mktemp("cavi"), NAMES, {}, copies)
    found = faces(root, split="everybody")
    assert {face.labels["split"] for face in found} <= {"train", "val"}
    content: dict[bytes, set[tuple[str, str]]] = {}
    for name in NAMES:
        person, letter = name.rsplit("_", 2)[:2]
        data = (root / "CaVI_Dataset" / FOLDERS[letter] / person / f"{name}.jpg").read_bytes()
        content.setdefault(data, set()).add((person, letter))
    expected = {data for data, shown in content.items() if len(shown) == 1}
    kept = [Path(face.image).read_bytes() for face in found]  # type: ignore[arg-type]
    assert len(kept) == len(set(kept))
    assert set(kept) == expected


# ------------------------------------------------------------------------------------------- faults


@pytest.fixture
def small(tmp_path):
    return cavi(tmp_path, numbered("ann", 2), {TEST: [line("ann_c_0", "ann_r_0")], VAL: [line("ann_c_1", "ann_r_1")]})


@pytest.mark.parametrize(
    "bad, reason",
    [
        ("ann Caricature/ann\\a.jpg ann Real/ann\\b.jpg", "4 fields, expected 5: person and image of a caricature"),
        ("ann lee Caricature/ann\\a.jpg ann Real/ann\\b.jpg 1", "6 fields, expected 5"),
        ("ann Real/ann\\a.jpg ann Real/ann\\b.jpg 1", "path 'Real/ann/a.jpg' is not Caricature/ann/<image>"),
        ("ann Caricature/ann\\a.jpg ann Real/bob\\b.jpg 1", "path 'Real/bob/b.jpg' is not Real/ann/<image>"),
        ("ann Caricature/ann\\a.jpg ann Real/b.jpg 1", "path 'Real/b.jpg' is not Real/ann/<image>"),
        ("ann Caricature/ann\\..\\..\\a.jpg ann Real/ann\\b.jpg 1", "is not one inside the data set's folder"),
        ("ann Caricature/ann\\a.jpg ann Real/ann\\b.jpg 0", "'0' for ann and ann, expected 1 for the same person"),
        ("ann Caricature/ann\\a.jpg bob Real/bob\\b.jpg 1", "'1' for ann and bob, expected 1 for the same person"),
        ("ann Caricature/ann\\a.jpg ann Real/ann\\b.jpg yes", "'yes' for ann and ann"),
    ],
)
def test_a_line_that_cannot_be_read_names_file_and_line(small, bad, reason):
    put(small / VAL, line("ann_c_1", "ann_r_1") + bad + "\n")
    for read in (lambda: faces(small), lambda: CaVI().pairs(small, "test")):
        with pytest.raises(PolyfaceError) as caught:
            read()
        assert "validation.txt:2: " in str(caught.value)
        assert reason in str(caught.value)
        assert str(caught.value).endswith("; obtain the file again")


@pytest.mark.parametrize("text", ["", "\r\n  \r\n"])
def test_a_list_that_names_nobody(small, text):
    put(small / TEST, text)
    with pytest.raises(PolyfaceError, match=r"testing_1.txt: names nobody; obtain the file again"):
        faces(small)


@pytest.mark.parametrize("gone", [TEST, VAL, "CaVI_Dataset", "CaVI_Dataset/Real"])
def test_missing_files(small, gone):
    (small / gone).rename(small / "elsewhere")
    with pytest.raises(PolyfaceError, match=rf"{Path(gone).name}: not found; reader 'cavi' expects .*obtain them from"):
        faces(small)


def test_only_the_lists_of_the_split_need_be_there(small):
    (small / VAL).unlink()
    assert len(faces(small, split="authors")) == 4
    with pytest.raises(PolyfaceError, match=r"training_11.txt: not found"):
        faces(small, split="instances")


def test_no_image(tmp_path):
    for folder in FOLDERS.values():
        put(tmp_path / "CaVI_Dataset" / folder / "ann" / "notes.txt", "nothing")
    with pytest.raises(PolyfaceError, match=r"CaVI_Dataset: no image; reader 'cavi' expects"):
        faces(tmp_path)


def test_unknown_split_and_part(small):
    with pytest.raises(PolyfaceError, match=r"reader 'cavi': split is 'claen'; did you mean 'clean'\?"):
        faces(small, split="claen")
    with pytest.raises(PolyfaceError, match=r"split 'clean' has no pairs of 'train'; known: test, val"):
        CaVI().pairs(small, "train")
    with pytest.raises(PolyfaceError, match=r"split 'authors' has no pairs of 'val'; known: test"):
        CaVI("authors").pairs(small, "val")


def test_a_picture_that_cannot_be_decoded_is_found_by_the_import(small, tmp_path):
    put(small / "CaVI_Dataset/Real/ann/ann_r_1.jpg", b"no picture")
    report = write_table(reader("cavi").records(small), tmp_path / "t.parquet", on_bad="skip")
    assert report.rows == 3
    assert [skipped.where for skipped in report.skipped] == ["Real/ann/ann_r_1.jpg"]
    table = FaceTable.open(tmp_path / "t.parquet")
    assert sorted(table.path(row) for row in range(3)) == [
        "Caricature/ann/ann_c_0.jpg",
        "Caricature/ann/ann_c_1.jpg",
        "Real/ann/ann_r_0.jpg",
    ]


# ------------------------------------------------------------------------------------------- names and images


@pytest.mark.parametrize(
    "name, expected",
    [
        ("George W. Bush", "george_w_bush"),
        ("George_Bush", "george_w_bush"),
        ("Jay-Z", "jay_z"),
        ("Dr._Dre", "dr_dre"),
        ("Aravind_Kejriwal", "arvind_kejriwal"),
        ("Slyvester Stallone", "sylvester_stallone"),
        ("Sylvester_Stallone", "sylvester_stallone"),
        ("ÅSA ÖBERG", "åsa_öberg"),
        ("!", "!"),
    ],
)
def test_person_names(name, expected):
    assert person_name(name) == expected


@given(st.text("aB9 _-.!éİßΣ", max_size=12))
def test_person_names_are_their_own(name):
    assert person_name(person_name(name)) == person_name(name)


def test_images_are_found_by_their_very_name_first(tmp_path):
    for name in ("a/X.jpg", "a/x.png", "b/Y.jpg", "b/.hidden.jpg", "c/d/z.jpg", "b/words.txt"):
        put(tmp_path / name, image(1))
    images = Images(tmp_path, 2, CaVI())
    assert (images.paths, images.deeper) == (["a/X.jpg", "a/x.png", "b/Y.jpg"], ["c/d/z.jpg"])
    assert [images.find(name) for name in ("a/x.png", "a\\X.jpg", "A/x.jpg", "B/y", "z.jpg", "../a/X.jpg")] == [
        "a/x.png",
        "a/X.jpg",
        "a/X.jpg",
        "b/Y.jpg",
        None,
        None,
    ]
    assert images.those(["b/y.jpg", "none", "a/x.png"]) == ["b/Y.jpg", "a/x.png"]
