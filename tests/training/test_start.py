"""What a network starts from: several sources in turn; and what is found wrong before pictures are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polyface import tasks
from polyface.data import loader
from polyface.errors import PolyfaceError
from polyface.models.bundle import Bundle
from polyface.networks import FaceNetwork, build
from polyface.networks.pretrained import PRETRAINED, PublishedWeights
from polyface.training.specs import InitSpec, StageSpec
from polyface.training.start import build_network

from .recognition import STAGE, fit, recipe_of, stage_tree

PEOPLE = {"kind": "identity", "people": ["ann", "bob"]}


def stage_of(**changes: Any) -> StageSpec:
    return StageSpec.model_validate(stage_tree({"tasks": dict.fromkeys(STAGE["tasks"], PEOPLE)} | changes))


def network_of(stage: StageSpec, earlier: dict[str, Path] | None = None, seed: int = 5) -> FaceNetwork:
    asked = {name: tasks.build(name, config) for name, config in stage.tasks.items()}
    return build_network(stage, asked, seed, earlier or {})


def bundle(folder: Path, seed: int) -> Path:
    asked = {name: tasks.build(name, PEOPLE) for name in STAGE["tasks"]}
    return Bundle(network_of(stage_of(), seed=seed), asked, stage_of().data.crop).save(folder / str(seed))


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_one_start_alone_is_a_list_of_one() -> None:
    start = {"source": "x", "parts": ["trunk", "branches"], "branches": "face"}
    assert stage_of(init=start) == stage_of(init=[start])
    assert stage_of(init=start).init == [InitSpec(**start)]
    assert stage_of(init=None) == stage_of(init=[]) == stage_of()
    again = StageSpec.model_validate_json(stage_of(init=start).model_dump_json())
    assert again == stage_of(init=start)


def test_parts_start_from_several_sources(tmp_path) -> None:
    """The trunk and one branch from one bundle, another branch from the next, the rest random by seed."""
    first, second = bundle(tmp_path, 11), bundle(tmp_path, 12)
    starts = [
        {"source": "first", "parts": ["trunk"]},
        {"source": str(second), "parts": ["heads"]},
    ]
    ours = network_of(stage_of(init=starts), {"first": first})
    plain, one, two = network_of(stage_of()), network_of(stage_of(), seed=11), network_of(stage_of(), seed=12)
    assert equal(ours.trunk, one.trunk)
    assert equal(ours.heads, two.heads)
    assert equal(ours.branches, plain.branches)
    assert not equal(ours.trunk, plain.trunk)


def test_a_later_start_goes_over_an_earlier_one(tmp_path) -> None:
    first, second = bundle(tmp_path, 11), bundle(tmp_path, 12)
    starts = [{"source": str(path), "parts": ["trunk", "branches"]} for path in (first, second)]
    assert equal(network_of(stage_of(init=starts)).branches, network_of(stage_of(), seed=12).branches)


class Sevens(PublishedWeights):
    """Every weight is 7 and, once faces were seen, their number."""

    faces = 20

    def start(self, network: FaceNetwork, parts: Any) -> None:
        if "heads" in parts:
            raise PolyfaceError(f"init.source {self.source} has no heads")
        for parameter in network.trunk.parameters():
            parameter.data.fill_(7.0)

    def adapt(self, network: FaceNetwork, images: Tensor) -> None:
        network.trunk.register_buffer("seen", torch.tensor(len(images)))


def test_a_kind_of_published_weights_of_somebody_elses(tmp_path, monkeypatch) -> None:
    PRETRAINED.add("sevens", Sevens)
    try:
        ours = network_of(stage_of(init={"source": "sevens"}))
        assert all(bool((parameter == 7).all()) for parameter in ours.trunk.parameters())
        with pytest.raises(PolyfaceError, match="stage one: init.source sevens has no heads"):
            network_of(stage_of(init={"source": "sevens", "parts": ["heads"]}))
        chosen = recipe_of(tmp_path, stage_tree({"init": {"source": "sevens"}, "optimisation": {"epochs": 1}}))
        seen: list[int] = []
        monkeypatch.setattr(Sevens, "adapt", lambda self, network, images: seen.append(len(images)))
        fit(chosen, tmp_path / "runs")
        assert seen == [20]
    finally:
        PRETRAINED.remove("sevens")


def test_a_stage_may_have_the_name_of_published_weights(tmp_path) -> None:
    """Then the stage is meant."""
    ours = network_of(stage_of(init={"source": "imagenet"}), {"imagenet": bundle(tmp_path, 11)})
    assert equal(ours.trunk, network_of(stage_of(), seed=11).trunk)


# ------------------------------------------------------------------------------------------------ an empty face


def test_a_task_without_a_line_in_heads_is_told_of_before_any_picture_is_decoded(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loader, "cached_cuts", lambda *_: pytest.fail("a picture was decoded"))
    tree = stage_tree()
    tree["network"] = STAGE["network"] | {"heads": {"verification": "verification", "visual": "visual"}}
    with pytest.raises(
        PolyfaceError, match=r"stage one: network.heads.caricature reads 'trunk', which is a map"
    ) as caught:
        fit(recipe_of(tmp_path, tree), tmp_path / "runs")
    assert "\n" not in str(caught.value)


def test_a_weighting_that_cannot_be_is_told_of_before_any_picture_is_decoded(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loader, "cached_cuts", lambda *_: pytest.fail("a picture was decoded"))
    with pytest.raises(PolyfaceError, match="visal"):
        fit(recipe_of(tmp_path, stage_tree({"weighting": {"name": "fixed", "options": {"weights": {"visal": 1}}}})),
            tmp_path / "runs")  # fmt: skip


def test_several_sizes_need_a_network_that_takes_them() -> None:
    network = {"trunk": {"name": "tcdcn"}}
    stage = stage_of(network=network, data=STAGE["data"] | {"sizes": [32, 40]})
    with pytest.raises(PolyfaceError, match=r"stage one: data.sizes: this network takes pictures of 40 pixels alone"):
        network_of(stage)


def test_the_empty_face_changes_nothing() -> None:
    """Neither the generator nor the network: dropout and batch norm included."""
    stage = stage_of()
    ours = network_of(stage)
    after = torch.rand(3)
    torch.manual_seed(5)
    plain = build(ours.config)
    assert torch.equal(torch.rand(3), after)
    assert equal(ours, plain)
    assert [module.training for module in ours.modules()] == [module.training for module in plain.modules()]
