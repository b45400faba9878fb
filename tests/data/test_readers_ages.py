"""UTKFace and Adience on hand-made files: what names and age words say, parts by a fixed hash, folds, each fault."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.table import FaceTable
from polyface.data.writing import Record, Skipped, import_table
from polyface.errors import PolyfaceError
from polyface.schema import VOCABULARIES, age_classes, years_of

PNG = encode_png(np.full((8, 8, 3), 90, np.uint8))


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)
    return root


def faces(name: str, root: Path, **options: Any) -> dict[str, dict[str, Any]]:
    return {face.path: face.labels for face in reader(name, **options).records(root) if isinstance(face, Record)}


# ------------------------------------------------------------------------------------------------- age groups


def test_the_years_of_a_group() -> None:
    assert [years_of(word) for word in ("0-2", "8-14", "35")] == [(0, 2), (8, 14), (35, 35)]
    assert years_of("57+") == (57, np.inf)
    for word in ("14-8", "old", "57 +", "-3", ""):
        with pytest.raises(PolyfaceError, match="is no group of ages: write such as 8-14 or 57"):
            years_of(word)


def test_the_group_of_an_age() -> None:
    groups = ("0-2", "4-6", "60+")
    found = age_classes(np.array([0, 2.9, 3, 4, 6.99, 7, 60, 116, np.nan, -1]), groups)
    assert found.tolist() == [0, 0, -1, 1, 1, -1, 2, 2, -1, -1]


@given(st.floats(0, 150))
def test_the_schemas_groups_leave_no_age_out(age: float) -> None:
    words = VOCABULARIES["age_group"]
    first, last = years_of(words[age_classes(np.array([age]), words)[0]])
    assert first <= age < last + 1


# ------------------------------------------------------------------------------------------------- UTKFace


def test_utkface_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = {
        "0_0_4_20170110215648859.jpg.chip.jpg": (0, "0-2", "male", "other"),
        "116_1_0_20170112213303693.jpg": (116, "57+", "female", "white"),
        "14_0_1_2017011022342900.jpg.chip.jpg": (14, "8-14", "male", "black"),  # published with a digit less
        "24_0_2_20170116220224657 .jpg.chip.jpg": (24, "23-34", "male", "asian"),  # published with a blank
        "55_0_3_20170116232725357jpg.chip.jpg": (55, "46-56", "male", "indian"),  # and without the point
        "39_1_20170116174525125.jpg.chip.jpg": None,  # lacks a number
        "53__0_20170116184028385.jpg.chip.jpg": None,
        "20_3_0_20170116184028385.jpg.chip.jpg": None,
        "300_1_0_20170116184028385.jpg.chip.jpg": None,
        "portrait.jpg": None,
    }
    found = faces("utkface", put(tmp_path, *(f"UTKFace/{name}" for name in names)))
    told = {
        path: tuple(labels[key] for key in ("age", "age_group", "gender", "race")) if "age" in labels else None
        for path, labels in found.items()
    }
    assert told == names
    assert "5 of 10 images are not called <age>_<gender>_<race>_<date>" in caplog.text
    assert {(face["source"], face["modality"]) for face in found.values()} == {("utkface", "photo")}
    assert faces("utkface", tmp_path / "UTKFace") == found
    import_table(reader("utkface"), tmp_path, tmp_path / "t.parquet")  # a name that says nothing is no fault
    table = FaceTable.open(tmp_path / "t.parquet")
    assert table.declared("race").vocabulary == ("white", "black", "asian", "indian", "other")
    assert np.isnan(table.numbers("age")).sum() == 5


def test_utkface_parts_are_a_fixed_hash_of_the_name(tmp_path: Path) -> None:
    stems = [f"{age}_0_0_2017011622022{age:04}" for age in range(100)]
    cropped = faces("utkface", put(tmp_path / "a", *(f"{stem}.jpg.chip.jpg" for stem in stems)))
    wild = faces("utkface", put(tmp_path / "b", *(f"{stem}.jpg" for stem in stems)))
    ordered = sorted(stems, key=lambda stem: hashlib.sha1(stem.encode()).hexdigest())
    expected = dict.fromkeys(ordered[:20], "test") | dict.fromkeys(ordered[20:28], "val")
    for found in (cropped, wild):
        parts = {path.split(".")[0]: face["split"] for path, face in found.items()}
        assert parts == dict.fromkeys(stems, "train") | expected


# ------------------------------------------------------------------------------------------------- Adience

HEADER = "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang\tfiducial_yaw_angle\tfiducial_score"


def adience(root: Path, *folds: list[tuple[str, str, str, str, str]], kind: str = "aligned") -> Path:
    """Five lists of rows (user, image, person, age, gender) and the image of each."""
    prefix = {"aligned": "landmark_aligned_face", "faces": "coarse_tilt_aligned_face"}[kind]
    for fold in range(5):
        rows = folds[fold] if fold < len(folds) else []
        lines = ["\t".join([*row, "0", "414", "1086", "1383", "-115", "30", "17"]) for row in rows]
        (root / f"fold_{fold}_data.txt").write_text("\n".join([HEADER, *lines]) + "\n")
        put(root / kind, *(f"{user}/{prefix}.{person}.{image}" for user, image, person, *_ in rows))
    (root / kind).mkdir(exist_ok=True)
    return root


def row(
    person: int, age: str = "(25, 32)", gender: str = "f", image: str = "a_o.jpg"
) -> tuple[str, str, str, str, str]:
    return "30601258@N03", image, str(person), age, gender


def test_adience_age_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    groups = {
        "(0, 2)": "0-2", "(4, 6)": "4-6", "(8, 12)": "8-13", "(15, 20)": "15-20", "(25, 32)": "25-32",
        "(38, 43)": "38-43", "(48, 53)": "48-53", "(60, 100)": "60+",
    }  # fmt: skip
    others = ["(25, 23)", "(38, 42)", "(8, 23)", "None", "", "35", "13"]
    root = adience(tmp_path, [row(person, age) for person, age in enumerate([*groups, *others])])
    found = list(faces("adience", root).values())
    assert [face["age_group"] for face in found] == [*groups.values(), *[None] * 7]
    assert [face["age"] for face in found] == [*[None] * 13, 35, 13]
    told = "7 faces have an age that names no group: (25, 23) 1, (38, 42) 1, (8, 23) 1, None 1, nothing 1, 35 1"
    assert told in caplog.text
    assert {face["identity"] for face in found} == {f"adience-{person}" for person in range(15)}
    import_table(reader("adience"), root, tmp_path / "t.parquet")
    assert FaceTable.open(tmp_path / "t.parquet").declared("age_group").vocabulary == tuple(groups.values())


def test_adience_genders_folds_and_parts(tmp_path: Path) -> None:
    genders = ["f", "m", "u", ""]
    lists = [[row(20 * fold + n, gender=genders[n % 4]) for n in range(20)] for fold in range(5)]
    root = adience(tmp_path, *lists, kind="faces")
    found = list(faces("adience", root).values())
    assert [face["gender"] for face in found[:4]] == ["female", "male", None, None]
    assert [face["fold"] for face in found] == [fold for fold in range(5) for _ in range(20)]
    assert {face["fold"] for face in found if face["split"] == "test"} == {0}
    people = [f"adience-{n}" for n in range(20, 100)]
    held = set(sorted(people, key=lambda name: hashlib.sha1(name.encode()).hexdigest())[:8])
    assert {face["identity"] for face in found if face["split"] == "val"} == held
    third = faces("adience", root, split=3).values()
    assert {face["fold"] for face in third if face["split"] == "test"} == {3}
    assert {face["split"] for face in faces("adience", root, split="none").values()} == {None}


def test_adience_of_two_kinds_of_pictures_takes_the_aligned_ones(tmp_path: Path) -> None:
    adience(tmp_path, [row(1)], kind="faces")
    adience(tmp_path, [row(1)])
    assert list(faces("adience", tmp_path)) == ["30601258@N03/landmark_aligned_face.1.a_o.jpg"]


def test_adience_faults(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = adience(tmp_path, [row(1), row(2, gender="female")], [row(3), ("..", "b.jpg", "4", "35", "m"), row(5)])
    (root / "aligned/30601258@N03/landmark_aligned_face.5.a_o.jpg").unlink()
    with (root / "fold_2_data.txt").open("a") as file:
        file.write("a\tb\tx\t35\tm" + "\t0" * 7 + "\na\tb\n")
    found = list(reader("adience").records(root))
    assert [str(bad) for bad in found if isinstance(bad, Skipped)] == [
        "fold_0_data.txt:3: gender is 'female'; known: , f, m, u",
        "fold_1_data.txt:3: path '../landmark_aligned_face.4.b.jpg' is not one inside the data set's folder",
        "fold_2_data.txt:2: face_id is 'x', expected a number",
        "fold_2_data.txt:3: 2 fields, expected 12 as in the first line",
    ]
    assert "left out 1 rows, which have no image" in caplog.text
    assert "fold_1_data.txt:4" in caplog.text
    with pytest.raises(PolyfaceError, match=r"reader 'adience': split is '5'; known: 0, 1, 2, 3, 4, none"):
        faces("adience", root, split=5)
    (root / "fold_4_data.txt").unlink()
    with pytest.raises(PolyfaceError, match=r"fold_4_data.txt: not found; reader 'adience' expects fold_0_data.txt to"):
        faces("adience", root)
