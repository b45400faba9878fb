"""Multi-PIE: names, settings and their published counts, galleries and probes; and the synthetic one, which shares
them."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers.multipie import CAMERAS, EXPRESSION, RECORDINGS, SETTINGS, Shot
from polyface.data.readers.synthetic_multipie import ATTENDANCE
from polyface.data.store import open_source
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError
from polyface.protocols.base import EvaluationSet
from polyface.protocols.gallery_probe import GalleryProbe
from polyface.schema import Column

PNG = encode_png(np.full((20, 20, 3), 90, np.uint8))
FRONTAL = "001_01_01_051_00"


def put(root: Path, *names: str) -> Path:
    """Pictures by their names, in the official tree; or as a path, where there is a '/' or an ending."""
    for name in names:
        file = root / (name if "." in name else f"{Shot.read(name).folder}/{name}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PNG)
    return root


def read(root: Path, name: str = "multipie", **options: Any) -> list[Record | Skipped]:
    return list(reader(name, **options).records(root))


def labels(root: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """Labels by the picture's name."""
    found = read(root, **options)
    assert all(isinstance(face, Record) for face in found), found
    return {Path(face.path).stem: face.labels for face in found}  # type: ignore[union-attr]


def searched(root: Path, part: str = "test", list: str = "all", **options: Any) -> tuple[list[str], list[str]]:
    """The names of gallery and probes."""
    (found,) = reader("multipie", **options).searches(root, part, list).values()  # type: ignore[attr-defined]
    return [Path(path).stem for path in found.gallery], [Path(path).stem for path in found.probes]


# ------------------------------------------------------------------------------------------- names


def test_a_name_says_everything() -> None:
    shot = Shot.read("213_04_03_191_05")
    assert shot == (213, 4, 3, "19_1", 5)
    assert (shot.yaw, shot.flash, shot.expression) == (45, 5, "scream")
    assert shot.name == "213_04_03_191_05"
    assert shot.folder == "session04/multiview/213/03/19_1"


def test_the_rig_has_13_yaws_and_19_lights_and_the_sessions_six_expressions() -> None:
    assert sorted(set(CAMERAS.values())) == list(range(-90, 91, 15))
    assert Counter(CAMERAS.values())[45] == Counter(CAMERAS.values())[-45] == 2
    assert len(CAMERAS) == 15
    assert {shot.flash for shot in SETTINGS["II"].shots(1, 1)} == set(range(19))
    assert {word for takes in RECORDINGS.values() for word in takes} == set(EXPRESSION.vocabulary[:6])
    assert [takes.count("neutral") for takes in RECORDINGS.values()] == [1, 1, 1, 2]


@pytest.mark.parametrize("session", [1, 2, 3, 4])
def test_every_shot_of_the_rig_is_read_from_its_own_name(session: int) -> None:
    shots = list(SETTINGS["entire"].shots(7, session))
    assert len(shots) == 300 * len(RECORDINGS[session])
    assert [Shot.read(shot.name) for shot in shots] == shots
    assert len({shot.name for shot in shots}) == len(shots)


@pytest.mark.parametrize(
    "name, message",
    [
        ("001_01_01_061_00", "camera is '06_1'; did you mean "),
        ("001_01_01_051_20", "light is 20, expected 00 to 19"),
        ("001_05_01_051_00", "session is 05, expected 01 to 04"),
        ("001_00_01_051_00", "session is 00, expected 01 to 04"),
        ("001_01_03_051_00", "recording is 03, expected 01 to 02 of session 01"),
        ("001_02_00_051_00", "recording is 00, expected 01 to 03 of session 02"),
        ("000_01_01_051_00", "subject is 000, expected a number from 001"),
        ("001_01_01", "its name is not subject_session_recording_camera_light, such as 001_01_01_051_00"),
        ("001_01_01_051_00_crop", "its name is not subject_session_recording_camera_light"),
    ],
)
def test_a_picture_of_another_name_is_skipped_with_the_reason(tmp_path: Path, name: str, message: str) -> None:
    good, bad = read(put(tmp_path, "001_01_01_051_00.png", f"x/{name}.jpg"))
    assert isinstance(good, Record)
    assert isinstance(bad, Skipped)
    assert bad.where == f"x/{name}.jpg"
    assert message in bad.reason


def test_a_folder_that_contradicts_the_name_is_told(tmp_path: Path) -> None:
    place = "data/session01/multiview/002/01/05_1"
    (bad,) = read(put(tmp_path, f"{place}/{FRONTAL}.png"))
    assert bad == Skipped(
        f"{place}/{FRONTAL}.png",
        "it lies in session01/multiview/002/01/05_1, but its name belongs into session01/multiview/001/01/05_1",
    )


def test_the_second_of_two_pictures_of_one_name_is_skipped(tmp_path: Path) -> None:
    first, second = read(put(tmp_path, f"a/{FRONTAL}.jpg", f"b/{FRONTAL}.png"))
    assert isinstance(first, Record)
    assert second == Skipped(f"b/{FRONTAL}.png", f"a second picture of that name, after a/{FRONTAL}.jpg")


def test_pictures_beside_the_multiview_ones_are_passed_over(tmp_path: Path) -> None:
    (face,) = read(put(tmp_path, FRONTAL, "session01/highres/001/001_01_01.png"))
    assert Path(face.path).stem == FRONTAL  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------- labels and parts


def test_labels_come_from_the_name(tmp_path: Path) -> None:
    put(tmp_path, "001_01_01_051_00", "001_01_01_051_01", "001_01_01_051_13")
    put(tmp_path, "249_02_02_240_18", "250_03_03_081_19", "005_04_02_130_07")
    found = labels(tmp_path, validation=0)
    assert found["249_02_02_240_18"] == {
        "source": "multipie",
        "modality": "photo",
        "identity": "multipie-249",
        "yaw": 90,
        "pose_group": "right",
        "illumination": "18",
        "expression": "surprise",
        "viewpoint": "90",
        "light_side": None,
        "light_from": None,
        "session": "2",
        "instant": "multipie-249 02 02 18",
        "split": "test",
    }
    told = ("yaw", "pose_group", "illumination", "expression", "split")
    assert [found["001_01_01_051_00"][key] for key in told] == [0, "frontal", "none", "neutral", "train"]
    sides = {name: (face["light_side"], face["light_from"]) for name, face in found.items()}
    assert sides["001_01_01_051_00"] == (None, "front")
    assert sides["001_01_01_051_01"] == (0.66, "right")
    assert sides["001_01_01_051_13"] == (-0.67, "left")
    assert [found["250_03_03_081_19"][key] for key in told] == [-45, "left", "none", "disgust", "test"]
    assert [found["005_04_02_130_07"][key] for key in told] == [-30, "frontal", "07", "neutral", "train"]


def test_a_mirror_turns_the_viewpoint(tmp_path: Path) -> None:
    column = reader("multipie").plan(tmp_path).columns["viewpoint"]  # type: ignore[attr-defined]
    order = column.class_order()
    assert len(column.vocabulary) == 13
    for word, mirrored in zip(column.vocabulary, order, strict=True):
        assert float(column.vocabulary[mirrored]) == -float(word)


def test_its_columns_go_with_those_of_other_sets(tmp_path: Path) -> None:
    declared: dict[str, set[Column]] = {}
    for name in ("pie", "feret", "ar", "imm", "umist", "yaleb", "multipie", "synthetic-multipie"):
        for column, held in reader(name).plan(tmp_path).columns.items():  # type: ignore[attr-defined]
            declared.setdefault(column, set()).add(held)
    assert {name for name, held in declared.items() if len(held) > 1} == set()


def test_the_pose_groups_have_five_cameras_each(tmp_path: Path) -> None:
    put(tmp_path, *(f"001_01_01_{camera.replace('_', '')}_00" for camera in CAMERAS))
    assert Counter(face["pose_group"] for face in labels(tmp_path).values()) == dict(left=5, frontal=5, right=5)


def test_pictures_of_one_instant_are_those_of_all_cameras_at_once(tmp_path: Path) -> None:
    put(tmp_path, *(shot.name for shot in SETTINGS["III"].shots(1, 1)), "001_02_01_051_00")
    assert sorted(Counter(face["instant"] for face in labels(tmp_path).values()).values()) == [1] + 20 * [15]


def test_a_tenth_of_the_training_people_is_val_whatever_else_is_there(tmp_path: Path) -> None:
    names = [f"{number:03d}_01_01_051_00" for number in range(1, 251)]
    found = labels(put(tmp_path, *names))
    assert Counter(face["split"] for face in found.values()) == {"train": 180, "val": 20, "test": 50}
    assert {name for name, face in found.items() if face["split"] == "test"} == set(names[200:])
    again = labels(tmp_path, setting="II")
    assert Counter(face["split"] for face in again.values()) == {"train": 90, "val": 10, "test": 150}


def test_a_setting_reads_its_pictures_alone(tmp_path: Path) -> None:
    names = ["001_01_01_051_00", "001_01_01_051_07", "001_01_01_090_07", "001_01_01_120_07", "001_01_01_081_07"]
    put(tmp_path, *names, "001_01_02_051_07", "001_04_02_051_07")
    expected = {"I": [0], "II": [0, 1], "III": [0, 1, 2, 3, 4], "IV": [0, 1, 2, 6], "V": [0, 1, 2, 3, 6]}
    names += ["001_01_02_051_07", "001_04_02_051_07"]
    for setting, kept in (expected | {"entire": list(range(7))}).items():
        assert set(labels(tmp_path, setting=setting)) == {names[k] for k in kept}, setting


def test_a_session_that_is_missing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, FRONTAL)
    with caplog.at_level(logging.WARNING):
        labels(tmp_path, setting="II")
        assert not caplog.messages
        labels(tmp_path, setting="V")
    assert caplog.messages == [f"{tmp_path}: without a picture of session 2, 3, 4, which setting V has"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"setting": "VI"}, "reader 'multipie': setting is 'VI'; did you mean 'V"),
        ({"validation": 1}, "reader 'multipie': validation is 1; expected 0 to below 1"),
        ({"setting": "III"}, "no picture of setting III; reader 'multipie' expects pictures such as session01/"),
    ],
)
def test_bad_options_are_told(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError) as caught:
        read(put(tmp_path, "001_02_01_051_00"), **options)
    assert message in str(caught.value)


# ------------------------------------------------------------------------------------------- galleries and probes


def test_the_gallery_has_the_first_plain_frontal_picture_of_each_person(tmp_path: Path) -> None:
    names = ["201_02_01_051_00", "201_02_01_051_07", "201_02_01_050_00", "201_02_02_051_00", "201_03_01_051_00"]
    other = ["300_04_02_051_19", "300_04_03_051_00", "300_04_02_240_19"]
    put(tmp_path, *names, *other, "001_01_01_051_00")
    gallery, probes = searched(tmp_path)
    assert gallery == ["201_02_01_051_00", "300_04_02_051_19"]
    assert sorted(probes) == sorted({*names, *other} - {*gallery})
    gallery, others = searched(tmp_path, list="other instants")
    assert sorted(set(probes) - set(others)) == ["201_02_01_050_00", "300_04_02_240_19"]
    assert searched(tmp_path, "train", validation=0)[0] == ["001_01_01_051_00"]


def test_people_without_a_frontal_picture_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "201_01_01_051_00", "201_01_01_050_00", "202_01_01_051_07", "203_01_02_051_00")
    with caplog.at_level(logging.WARNING):
        assert searched(tmp_path, setting="entire") == (["201_01_01_051_00"], ["201_01_01_050_00"])
    assert caplog.messages[-1] == (
        f"{tmp_path}: left 2 people of test, such as 202, out of the search: "
        "they have no frontal neutral picture without flash for a gallery"
    )
    (tmp_path / "session01/multiview/201/01/05_1/201_01_01_051_00.png").unlink()
    with pytest.raises(PolyfaceError, match="nobody of test has a frontal neutral picture without flash for a gallery"):
        searched(tmp_path)
    with pytest.raises(PolyfaceError, match="list is 'others'; did you mean 'other instants'"):
        searched(tmp_path, list="others")


# ------------------------------------------------------------------------------------------- the published counts

PUBLISHED = {  # trained on: people, pictures; gallery, probes; in all
    "I": (200, 5_383, 137, 2_600, 8_120),
    "II": (100, 14_000, 149, 20_711, 34_860),
    "III": (150, 45_000, 99, 29_601, 74_700),
    "IV": (200, 138_420, 137, 70_243, 208_800),
    "V": (200, 199_940, 137, 101_523, 301_600),
    "entire": (200, 498_900, 137, 255_163, 754_200),
}


def test_attendance_is_the_published_one() -> None:
    assert [len(people) for people in ATTENDANCE.values()] == [249, 203, 230, 239]
    assert {number for people in ATTENDANCE.values() for number in people} == set(range(1, 338))
    assert sum(len(RECORDINGS[session]) * len(people) for session, people in ATTENDANCE.items()) == 2_514


@pytest.mark.parametrize("setting", PUBLISHED)
def test_attendance_gives_every_published_count(setting: str) -> None:
    chosen, trained, galleries = SETTINGS[setting], Counter(), set()
    pictures: Counter[str] = Counter()
    for session, people in ATTENDANCE.items():
        for subject in people:
            shots = list(chosen.shots(subject, session))
            part = "train" if subject <= chosen.training else "test"
            pictures[part] += len(shots)
            if shots:
                trained[subject] += part == "train"
            if part == "test" and any(shot.plain for shot in shots):
                galleries.add(subject)
    people = sum(count > 0 for count in trained.values())
    probes = pictures["test"] - len(galleries)
    assert (people, pictures["train"], len(galleries), probes, pictures.total()) == PUBLISHED[setting]


@pytest.mark.parametrize("setting", ["I", "II", "III"])
def test_the_synthetic_reader_gives_the_published_gallery_and_probes(setting: str) -> None:
    made = reader("synthetic-multipie", setting=setting)
    (found,) = made.searches(Path(), "test").values()  # type: ignore[attr-defined]
    assert (len(found.gallery), len(found.probes)) == PUBLISHED[setting][2:4]
    if setting == "I":
        faces = list(made.records(Path()))
        assert Counter(face.labels["split"] for face in faces)["test"] == 137 + 2_600  # type: ignore[union-attr]
        assert len({face.path for face in faces}) == len(faces) == 8_120  # type: ignore[union-attr]
        assert {face.labels["source"] for face in faces} == {"synthetic"}  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------- the synthetic one

SMALL = {"people": 9, "share": 0.02, "size": 16, "validation": 0.2}


def test_its_names_are_read_by_the_reader_of_the_real_one(tmp_path: Path) -> None:
    drawn = {Path(face.path).stem: face.labels for face in read(Path(), "synthetic-multipie", **SMALL)}  # type: ignore[union-attr]
    put(tmp_path, *drawn)
    real = labels(tmp_path, validation=0.2)
    assert len(drawn) > 300
    assert real.keys() == drawn.keys()
    for name, given in drawn.items():
        assert given.pop("identity") == f"synthetic-{real[name].pop('identity')}"
        assert given.pop("instant") == f"synthetic-{real[name].pop('instant')}"
        assert (given.pop("source"), real[name].pop("source")) == ("synthetic", "multipie")
        del given["split"], real[name]["split"]  # who is val depends on the identity
        assert given == real[name]


def test_people_are_spread_and_a_share_keeps_all_that_a_gallery_may_need() -> None:
    faces = read(Path(), "synthetic-multipie", people=30, share=0.02)
    parts = {face.labels["identity"]: face.labels["split"] for face in faces}  # type: ignore[union-attr]
    assert Counter(parts.values()) == {"train": 16, "val": 2, "test": 12}
    plain = [face for face in faces if Shot.read(Path(face.path).stem).plain]  # type: ignore[union-attr]
    assert {face.labels["identity"] for face in plain} == parts.keys()  # type: ignore[union-attr]
    whole = {face.path for face in read(Path(), "synthetic-multipie", people=30, share=0.03)}  # type: ignore[union-attr]
    assert {face.path for face in faces} < whole  # type: ignore[union-attr]


def test_a_picture_does_not_depend_on_what_else_is_read() -> None:
    few, more = (
        {face.path: face.image for face in read(Path(), "synthetic-multipie", **SMALL | {"share": share})}  # type: ignore[union-attr]
        for share in (0.005, 0.03)
    )
    for path in list(few)[::7]:
        np.testing.assert_array_equal(few[path](), more[path]())  # type: ignore[operator]


@pytest.mark.parametrize("option, value", [("people", 338), ("people", 0), ("share", 1.5), ("size", 8), ("seed", -1)])
def test_bad_options_of_the_synthetic_one_are_told(option: str, value: float) -> None:
    with pytest.raises(PolyfaceError, match=f"'synthetic-multipie': {option} is {value}; expected [0-9]+ to [0-9]+"):
        read(Path(), "synthetic-multipie", **{option: value})


def test_it_is_searched_without_a_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYFACE_CACHE", str(tmp_path))
    table = open_source("synthetic-multipie", None, SMALL)
    assert open_source("synthetic-multipie", None, SMALL).fingerprint == table.fingerprint
    assert table.image(0).shape == (16, 16, 3)
    test = table.where(split="test")
    faces = EvaluationSet(test, sources={"synthetic-multipie": SMALL})
    cases = GalleryProbe(reader="synthetic-multipie", list="other instants").cases(faces)
    people, names = np.unique(test.words("identity"), return_inverse=True)
    search = cases.searches[""]
    assert len(search.faces) == len(people)
    assert len(search.probes) + len(search.faces) <= len(test)
    turned = test.words("pose_group") != "frontal"
    # Whoever is turned is taken for the first person; everyone else is known.
    embedding = np.eye(len(people), dtype=np.float32)[np.where(turned, 0, names)]
    result = GalleryProbe(reader="synthetic-multipie").evaluate({"identity": {"embedding": embedding}}, cases)[""]
    groups = cases.groups("", "pose_group")
    assert set(groups) == {"left", "frontal", "right"}
    counts, rank1 = np.ones((1, result.units)), result.metrics[0]
    by_group = {name: result.at(counts, [rank1], judged=mask)[rank1][0] for name, mask in groups.items()}
    assert by_group["frontal"] == 100
    assert by_group["left"] < 60
    assert by_group["right"] < 60
