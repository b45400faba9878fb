"""Groups of poses in training: from words, from numbers that edges cut, from the network's own answer where neither is
known; and groups in which nobody is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.models.bundle import MANIFEST, load_bundle
from polyface.networks import FaceNetwork
from polyface.networks.routing import Rows, Walk
from polyface.schema import Column
from polyface.training import stages
from polyface.training.learner import Learner

from .recognition import fit, learner_of, recipe_of

PEOPLE = ("ann", "bob", "cid")
YAWS = (-22.5, -12.0, -11.0, 0.0, 11.0, 12.0, 22.5, None)
"""Of each person's faces; three to the left, frontal and right each, but for the edges two: ±12 belong outside."""
WORDS = ("left", "left", "frontal", "frontal", "frontal", "right", "right", None)
GROUPS = ("left", "frontal", "right")
BY_YAW = {"kind": "classification", "column": "yaw", "edges": [-12, 12], "vocabulary": list(GROUPS)}
BY_SHARES = {"kind": "classification", "column": "facing"}
BY_WORD = {"kind": "classification", "column": "pose", "vocabulary": list(GROUPS)}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("poses") / "faces.parquet", YAWS, WORDS)


def written(path: Path, yaws: Any, words: Any) -> Path:
    """A face of every pose for each person, all for training, and one more each to validate."""
    random = np.random.default_rng(0)
    faces = [
        {"identity": person, "yaw": yaw, "pose": word, "facing": word and shares(word), "split": "train"}
        for person in PEOPLE
        for yaw, word in zip(yaws, words, strict=True)
    ]
    faces += [face | {"split": "val"} for face in faces[:: len(yaws)]]
    pictures = random.integers(0, 255, (len(faces), 16, 16, 3), dtype=np.uint8)
    records = [Record(p, str(i), f"{i}.png", f) for i, (p, f) in enumerate(zip(pictures, faces, strict=True))]
    write_table(records, path, columns={"facing": Column("distribution", GROUPS)})
    return path


def shares(word: str) -> list[float]:
    return [0.6 if word == group else 0.2 for group in GROUPS]


def tree(table: Path, pose: dict[str, Any], mirror: float = 0.0, **changes: Any) -> dict[str, Any]:
    """The pose-directed network on x, whose layers have as many outputs as there are people."""
    logits = {"kind": "linear", "width": "identity"}
    both = {"reads": ["joint", *GROUPS]}
    return {
        "name": "one",
        "data": {
            "tables": [{"name": str(table)}],
            "boxes": {"source": "image"},
            "crop": {"size": 16, "channels": 1},
            "augment": {"mirror": mirror},
            "batch": 12,
        },
        "network": {
            "trunk": {"name": "casia-net", "size": 16, "width": 0.1},
            "parts": {"joint": logits}
            | {name: logits | {"rows": {"task": "pose", "classes": [name]}} for name in GROUPS},
            "heads": {
                "identity": {"reads": ["joint"], "layer": "none"},
                "identity_by_pose": {"merge": "rows", "of": list(GROUPS), "layer": "none"},
            },
            "embeddings": {
                "features": {"reads": ["trunk"]},
                "hard": both | {"merge": "hard"},
                "identity": {"reads": ["joint"]},
                "stochastic": both | {"merge": "stochastic", "similarity": "inner"},
            },
        },
        "tasks": {"identity": {"kind": "identity"}, "identity_by_pose": {"kind": "identity"}, "pose": pose},
        "weighting": {
            "name": "yin-liu",
            "options": {
                "groups": [{"tasks": ["identity", "identity_by_pose"], "budget": 1}, {"tasks": ["pose"], "budget": 0.1}]
            },
        },
        "optimisation": {"optimiser": "sgd", "lr": 0.01, "epochs": 1, "precision": "32-true"},
        "evaluation": {"main": "identity"},
    } | changes


def learner(folder: Path, *given: Any, **changes: Any) -> Learner:
    return learner_of(recipe_of(folder, tree(*given, **changes)))


def routes_of(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """(rows of the table, classes by which the network was told to route them) of an epoch's batches."""
    seen: list[Any] = []
    forward = FaceNetwork.forward
    monkeypatch.setattr(
        FaceNetwork,
        "forward",
        lambda self, images, routes=None, *nodes: seen.append(routes) or forward(self, images, routes, *nodes),
    )
    rows = []
    for raw in learner._train:
        learner.training_step(raw, 0)
        rows.append(raw.rows)
    return torch.cat([torch.as_tensor(each) for each in rows]), torch.cat([routes["pose"] for routes in seen])


# ------------------------------------------------------------------------------------------------ where groups are from


@pytest.mark.parametrize("pose", [BY_YAW, BY_WORD, BY_SHARES], ids=["yaw", "words", "shares"])
def test_groups_are_those_of_the_labels(table: Path, tmp_path: Path, monkeypatch: Any, pose: dict[str, Any]) -> None:
    """−1, the network's own answer, where a face has no yaw or no word; 12 degrees are turned already. Of soft labels
    the largest share counts."""
    rows, told = routes_of(learner(tmp_path, table, pose), monkeypatch)
    words = FaceTable.open(table).where(split="train").words("pose")
    expected = [GROUPS.index(words[row]) if words[row] else -1 for row in rows]
    assert told.tolist() == expected
    assert sorted(set(expected)) == [-1, 0, 1, 2]


@pytest.mark.parametrize("pose", [BY_YAW, BY_WORD], ids=["yaw", "words"])
def test_a_mirrored_face_is_of_the_other_side(table: Path, tmp_path: Path, monkeypatch: Any, pose: Any) -> None:
    rows, told = routes_of(learner(tmp_path, table, pose, 1.0), monkeypatch)
    words = FaceTable.open(table).where(split="train").words("pose")
    assert told.tolist() == [2 - GROUPS.index(words[row]) if words[row] else -1 for row in rows]


def test_a_face_without_a_label_is_of_the_group_that_the_network_says() -> None:
    answers = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 0, 9]])
    walk = Walk({}, {"pose": torch.tensor([2, -1, -1])}, {"pose": answers})
    found = torch.stack([walk.members(Rows("pose", (place,))) for place in range(3)])
    assert found.tolist() == [[False, False, False], [False, True, False], [True, False, True]]


# ------------------------------------------------------------------------------------------------ a whole training


def test_widths_are_numbers_and_all_embeddings_are_kept(table: Path, tmp_path: Path) -> None:
    folder = fit(recipe_of(tmp_path, tree(table, BY_YAW, 0.5)), tmp_path / "out")["one"].bundle
    config = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["network"]
    assert [part["width"] for part in config["parts"].values()] == [3] * 4
    assert config["heads"] == {
        "identity": {"reads": ["joint"], "layer": "none", "outputs": 3},
        "identity_by_pose": {"merge": "rows", "of": list(GROUPS), "layer": "none", "outputs": 3},
        "pose": 3,
    }
    network = load_bundle(folder, quiet=True).network
    assert set(network.embeddings) == {"features", "hard", "identity", "stochastic"}
    # logits begin without a bias, whatever the shares of the people are; the pose head begins at those of the poses
    start = learner(tmp_path, table, BY_YAW).network
    assert not any(start.branches[name].fc.bias.any() for name in ("joint", *GROUPS))  # type: ignore[union-attr]
    shares = start.heads["pose"].bias.softmax(0)  # type: ignore[union-attr, operator]
    assert shares.tolist() == pytest.approx([6 / 21, 9 / 21, 6 / 21], abs=1e-5)


def test_only_what_is_kept_is_left_of_the_network(table: Path, tmp_path: Path) -> None:
    """What only dropped heads read would stay untrained: routed parts and the embeddings of them go with these."""
    variants = {
        "alone": {"stages": ["one"], "keep": ["identity"]},
        "m-CNN": {"stages": ["one"], "keep": ["identity", "pose"]},
        "p-CNN": {"stages": ["one"], "keep": ["identity", "identity_by_pose", "pose"]},
    }
    recipe = recipe_of(tmp_path, tree(table, BY_YAW), variants=variants)
    made = {name: recipe.variant(name, 0).stages[0].network for name in variants}
    plain = (["joint"], ["features", "identity"])
    whole = (["joint", *GROUPS], ["features", "hard", "identity", "stochastic"])
    found = {name: (list(network.parts), list(network.embeddings)) for name, network in made.items()}
    assert found == {"alone": plain, "m-CNN": plain, "p-CNN": whole}
    stage = recipe.variant("alone", 0).stages[0]
    network = stages.build_network(stage, stages.stage_tasks(stage, every=True), 0, {})
    assert (set(network.branches), set(network.heads)) == ({"joint"}, {"identity"})


# ------------------------------------------------------------------------------------------------ groups of nobody


def test_edges_that_leave_a_group_empty_are_refused_before_training(table: Path, tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError) as caught:
        fit(recipe_of(tmp_path, tree(table, BY_YAW | {"edges": [-30, 12]})), tmp_path / "out")
    assert str(caught.value) == (
        "stage one: network.parts.left: no training face is labelled pose left (faces of the other groups: frontal 15, "
        "right 6): choose other edges or classes of task 'pose', give these classes to another part, or add faces"
    )
    assert not (tmp_path / "out" / "one" / "last.ckpt").exists()


def test_mirrored_faces_fill_a_group(tmp_path: Path) -> None:
    one_side = written(tmp_path / "faces.parquet", [0.0, 20.0] * 3, ["frontal", "right"] * 3)
    with pytest.raises(PolyfaceError, match=r"network.parts.left: .*frontal 9, right 9"):
        fit(recipe_of(tmp_path, tree(one_side, BY_YAW)), tmp_path / "out")
    fit(recipe_of(tmp_path, tree(one_side, BY_YAW, 0.5)), tmp_path / "out")


def test_a_frozen_group_needs_nobody(tmp_path: Path) -> None:
    one_side = written(tmp_path / "faces.parquet", [0.0, 20.0] * 3, ["frontal", "right"] * 3)
    given = tree(one_side, BY_WORD)
    given["network"]["parts"]["left"]["frozen"] = True
    fit(recipe_of(tmp_path, given), tmp_path / "out")


@pytest.mark.parametrize(
    "part, message",
    [
        ({"width": "identty"}, "stage one: network.parts.joint.width names 'identty'; did you mean 'identity'"),
        ({"width": 4}, "stage one: network.heads.identity: layer none, but what it reads has 4 numbers"),
    ],
)
def test_widths_that_do_not_fit(table: Path, tmp_path: Path, part: dict[str, Any], message: str) -> None:
    given = tree(table, BY_WORD)
    given["network"]["parts"]["joint"] |= part
    with pytest.raises(PolyfaceError, match=message):
        learner_of(recipe_of(tmp_path, given))
