"""The public pictures of Multi-PIE: what their names say is what their list of labels says."""

from __future__ import annotations

import csv
from collections import Counter

from polyface.data.readers import reader
from polyface.data.writing import Record


def test_the_396_public_pictures(real_data):
    root = real_data("controlled") / "multipie"
    found = list(reader("multipie").records(root))
    assert all(isinstance(face, Record) for face in found)
    assert len(found) == 396
    people = Counter(face.labels["identity"] for face in found)
    assert len(people) == 20
    assert {person for person, count in people.items() if count == 19} == {
        f"multipie-{number}" for number in ("001", "003", "037", "039")
    }
    assert Counter(people.values()) == {20: 16, 19: 4}
    lights = Counter(face.labels["illumination"] for face in found)
    assert lights == {f"{number:02d}": 20 for number in range(1, 19)} | {"07": 17, "none": 39}
    with open(root / "labels.csv", encoding="utf-8") as file:
        listed = {row["file"]: row for row in csv.DictReader(file)}
    for face in found:
        labels, row = face.labels, listed.pop(face.path)
        assert labels["identity"] == f"multipie-{row['person']}"
        assert f"_{row['camera']}_" in face.path
        assert labels["light_side"] == (float(row["light_side"]) if row["light_side"] else None)
        assert labels["expression"] == row["expression"]
        assert labels["instant"].split()[1:] == [row["session"], row["recording"], row["light"]]
        assert (labels["yaw"], labels["pose_group"]) == (float(row["yaw"]), "frontal")
    assert not listed


def test_the_public_pictures_have_a_gallery(real_data):
    root = real_data("controlled") / "multipie"
    for part in ("train", "val", "test"):
        faces = [face for face in reader("multipie").records(root) if face.labels["split"] == part]
        (found,) = reader("multipie").searches(root, part).values()
        people = {face.labels["identity"] for face in faces}
        assert sorted(path[:3] for path in found.gallery) == sorted(person[-3:] for person in people)
        assert sorted([*found.gallery, *found.probes]) == sorted(face.path for face in faces)
        (others,) = reader("multipie").searches(root, part, "other instants").values()
        assert others == found  # one camera
