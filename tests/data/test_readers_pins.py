"""Pins on hand-made folders: people's names in one spelling, parts by whole people."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError

PNG = encode_png(np.full((20, 20, 3), 90, np.uint8))


def pins(root: Path, *names: str, folder: str = "105_classes_pins_dataset") -> Path:
    for name in names:
        file = root / folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PNG)
    return root


def read(root: Path, **options: Any) -> list[Record | Skipped]:
    return list(reader("pins", **options).records(root))


def whose(found: list[Record | Skipped]) -> dict[str, set[str | None]]:
    parts: dict[str, set[str | None]] = {}
    for face in found:
        assert isinstance(face, Record)
        parts.setdefault(face.labels["identity"], set()).add(face.labels.get("split"))
    return parts


def test_people_have_one_spelling(tmp_path):
    names = ["pins_tom ellis/a.jpg", "pins_Tom Ellis/b.jpg", "pins_Brian J. Smith/c.jpg", "pins_Robert Downey Jr/d.jpg"]
    found = {face.path: face.labels for face in read(pins(tmp_path, *names), split="none")}  # type: ignore[union-attr]
    assert [found[name]["identity"] for name in names] == [
        *("tom_ellis", "tom_ellis", "brian_j_smith", "robert_downey_junior")
    ]
    assert {(face["source"], face["modality"], len(face)) for face in found.values()} == {("pins", "photo", 3)}
    assert [face.where for face in read(tmp_path / "105_classes_pins_dataset")] == sorted(names)


def test_ten_people_are_held_out_and_some_of_the_others_validate(tmp_path):
    names = [f"pins_Person {letter}{number}/{image}.jpg" for letter in "ab" for number in range(20) for image in "xy"]
    parts = whose(read(pins(tmp_path, *names)))
    assert all(len(part) == 1 for part in parts.values())
    by_part = {part: {person for person, of in parts.items() if of == {part}} for part in ("train", "val", "test")}
    assert {part: len(people) for part, people in by_part.items()} == {"train": 27, "val": 3, "test": 10}
    ordered = sorted(parts, key=lambda name: hashlib.sha1(name.encode()).hexdigest())
    assert by_part["test"] == set(ordered[:10])
    assert by_part["val"] == set(ordered[10:13])
    assert {None} == set.union(*whose(read(tmp_path, split="none")).values())


def test_a_folder_that_names_nobody(tmp_path):
    found = read(pins(tmp_path, "pins_Ann/a.jpg", "pins_ /b.jpg", "Bob/c.jpg"))
    assert [(bad.where, bad.reason) for bad in found if isinstance(bad, Skipped)] == [
        ("Bob/c.jpg", "expected pins_<name> as its folder"),
        ("pins_ /b.jpg", "expected pins_<name> as its folder"),
    ]
    assert len(found) == 3


def test_what_is_refused(tmp_path):
    with pytest.raises(PolyfaceError, match="no image; reader 'pins' expects the folder 105_classes_pins_dataset"):
        read(tmp_path)
    with pytest.raises(PolyfaceError, match=r"reader 'pins': split is 'peoples'; did you mean 'people'\?"):
        read(pins(tmp_path, "pins_Ann/a.jpg"), split="peoples")
