"""`polyface gallery` from a folder of photos to a name, in one process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image

from polyface import networks
from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec
from polyface.gallery import Gallery, Precomputed
from polyface.models.bundle import Bundle

Command = Callable[..., tuple[int, str, str]]


def bundle(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    trunk = {"name": "timm", "model": "test_resnet", "size": 64, "channels": 3, "pool": "map"}
    config = {"trunk": trunk, "branches": {"face": {"levels": 1, "similarity": "cosine"}}, "heads": {}}
    return Bundle(networks.build(config), {}, CropSpec(size=64), BoxSpec(), {"name": "tiny"}).save(folder)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return bundle(tmp_path / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """One person with two photos, another with one that shows no face."""
    with get_sample_data("grace_hopper.jpg") as file:
        photo = Image.open(file).convert("RGB")
    for name in ("Grace", "Nobody"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    photo.save(tmp_path / "photos" / "Grace" / "1.png")
    photo.resize((256, 300)).save(tmp_path / "photos" / "Grace" / "2.png")
    Image.fromarray(np.full((90, 120, 3), 128, np.uint8)).save(tmp_path / "photos" / "Nobody" / "grey.png")
    return tmp_path / "photos"


def test_add_search_remove_info(model: Path, photos: Path, tmp_path: Path, polyface: Command) -> None:
    gallery = tmp_path / "friends"
    code, out, err = polyface("gallery", "add", gallery, photos, "--model", model)
    assert (code, out) == (0, f"{gallery}: 2 faces added; now 2 of 1 people\n")
    assert "grey.png: no face found" in err
    assert "photos enrolled" in err  # the progress bar

    code, out, err = polyface("gallery", "add", gallery, photos / "Grace" / "1.png", "--person", "G.", "--model", model)
    assert (code, out) == (0, f"{gallery}: 1 faces added; now 3 of 2 people\n")
    assert "enrolled under 'Grace' as well" in err

    code, out, err = polyface("gallery", "search", gallery, photos, "--model", model)
    assert code == 0
    assert out.count(": face at ") == 2
    assert " 1.000 " in out
    assert "grey.png: no face found" in err

    query = photos / "Grace" / "2.png"
    code, out, _ = polyface("gallery", "search", gallery, query, "--model", model, "--json", "--top", "1")
    (line,) = out.splitlines()
    told = json.loads(line)
    (face,) = told["faces"]
    assert (told["path"], len(face["box"])) == (str(query), 4)
    assert [(match["person"], match["path"]) for match in face["matches"]] == [("Grace", str(query))]

    code, out, _ = polyface("gallery", "info", gallery, "--people")
    assert code == 0
    assert {"faces": "3", "people": "2", "index": "exact"}.items() <= dict(
        line.split(maxsplit=1) for line in out.splitlines() if len(line.split()) == 2
    ).items()
    assert out.endswith("           1 G.\n           2 Grace\n")

    code, out, _ = polyface("gallery", "remove", gallery, "Grace")
    assert (code, out) == (0, f"{gallery}: 2 faces removed; now 1 of 1 people\n")
    told = json.loads(polyface("gallery", "info", gallery, "--people", "--json")[1])
    assert (told["faces"], told["removed"], told["names"]) == (1, 0, {"G.": 1})


def test_names_and_pictures_are_put_right(tmp_path: Path, polyface: Command) -> None:
    folder, vectors = tmp_path / "g", np.eye(8, dtype=np.float32)
    with Gallery.create(folder, Precomputed("net", 8, "cosine")) as gallery:
        gallery.enrol_embeddings(
            vectors[:4], ["Ann", "Ann", "Anna", "Bert"], paths=["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
        )
    code, out, _ = polyface("gallery", "info", folder, "--pictures")
    assert out.endswith("           2 Anna  3.jpg\n           3 Bert  4.jpg\n")
    for arguments, said in (
        (("merge", "Ann", "Anna"), "2 faces moved; now 4 of 2 people"),
        (("rename", "Anna", "Cleo"), "3 faces renamed; now 4 of 2 people"),
        (("move", "Dora", "--picture", "0", "--picture", "4.jpg"), "2 faces moved; now 4 of 2 people"),
        (("remove", "--picture", "1"), "1 faces removed; now 3 of 2 people"),
    ):
        code, out, err = polyface("gallery", arguments[0], folder, *arguments[1:])
        assert (code, out) == (0, f"{folder}: {said}\n"), err
    told = json.loads(polyface("gallery", "info", folder, "--pictures", "--json")[1])
    assert [(picture["id"], picture["person"]) for picture in told["pictures"]] == [
        (0, "Dora"),
        (2, "Cleo"),
        (3, "Dora"),
    ]
    assert told["removed"] == 0
    for arguments, words in (
        (("merge", "Cleo"), "name two people or more"),
        (("move", "Cleo"), "nothing to move"),
        (("remove",), "nothing to remove"),
        (("rename", "Cleo", "Dora"), "there is a 'Dora' already"),
        (("remove", "Cleo", "--picture", "7"), "there is no picture '7'"),
    ):
        code, _, err = polyface("gallery", arguments[0], folder, *arguments[1:])
        assert (code, words in err.strip().splitlines()[-1]) == (1, True), err


def test_mistakes_are_one_line(model: Path, photos: Path, tmp_path: Path, polyface: Command) -> None:
    gallery, grace = tmp_path / "friends", photos / "Grace"
    assert polyface("gallery", "add", gallery, grace, "--person", "Grace", "--model", model)[0] == 0
    other = bundle(tmp_path / "other", seed=1)
    for arguments, words in (
        (("add", gallery, photos, "--model", other), "not of 'tiny-face-"),
        (("add", gallery, photos, "--model", model, "--index", "exact"), "--index exact is for a new gallery"),
        (("add", tmp_path / "new", photos, "--model", model, "--index", "exat"), "index is 'exat'"),
        (("add", tmp_path / "new", tmp_path / "nowhere", "--model", model), "there is no such file"),
        (("add", gallery, grace, "--model", model), "for photos of one person, give a name"),
        (("search", gallery, grace / "1.png", "--model", other), "use that model, or enrol again"),
        (("search", gallery, tmp_path / "none.png", "--model", model), "none.png"),
        (("search", gallery, grace, "--model", "no-such"), "no model 'no-such'"),
        (("remove", gallery, "Grac"), "no person is called 'Grac'; did you mean 'Grace'?"),
        (("info", tmp_path), "not a gallery"),
    ):
        code, _, err = polyface("gallery", *arguments)
        last = err.strip().splitlines()[-1]
        assert (code, last[:10]) == (1, "polyface: "), arguments
        assert words in last
        assert "Traceback" not in err
    assert not (tmp_path / "new").exists()
    assert "now 2 of 1 people" in polyface("gallery", "add", gallery, grace, "--person", "Grace", "--model", model)[1]
