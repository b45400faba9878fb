"""Heads on several parts, cosines, and what embeddings are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks.heads import Embedding, GroupedHead
from polyface.networks.layers import CosineLinear

SMALL = {"name": "timm", "model": "test_resnet", "size": 64, "channels": 3, "pool": "map"}


@given(st.permutations(list(range(7))), st.integers(1, 6))
def test_outputs_are_in_the_tasks_order_whatever_the_groups(places: list[int], cut: int) -> None:
    head = GroupedHead({"a": 3, "b": 3}, {"a": places[:cut], "b": places[cut:]})
    for branch, group in (("a", places[:cut]), ("b", places[cut:])):
        part = head.parts[branch]
        assert isinstance(part, torch.nn.Linear)
        torch.nn.init.zeros_(part.weight)
        part.bias.data = torch.tensor([float(place) for place in group])
    assert head({"a": torch.randn(2, 3), "b": torch.randn(2, 3)}).tolist() == [list(map(float, range(7)))] * 2


@pytest.mark.parametrize("groups", [{"a": [0, 1], "b": [1]}, {"a": [0, 2]}, {"a": [0], "b": [2]}])
def test_a_head_needs_every_output_once(groups: dict[str, list[int]]) -> None:
    with pytest.raises(PolyfaceError, match="exactly once"):
        GroupedHead({"a": 3, "b": 3}, groups)


@given(st.permutations(list(range(5))), st.integers(1, 4))
def test_a_head_of_cosines_has_them_in_the_tasks_order(places: list[int], cut: int) -> None:
    head = GroupedHead({"a": 3, "b": 4}, {"a": places[:cut], "b": places[cut:]}, cosine=True)
    features = {"a": torch.randn(2, 3), "b": torch.randn(2, 4)}
    found = head(features)
    for branch, group in (("a", places[:cut]), ("b", places[cut:])):
        for row, place in zip(head.parts[branch].weight, group, strict=True):  # type: ignore[arg-type, union-attr]
            expected = torch.nn.functional.cosine_similarity(features[branch], row[None])
            torch.testing.assert_close(found[:, place], expected)


def test_tasks_with_cosines_are_named_and_others_have_none() -> None:
    """On a branch and on the shared features; the cosines are of the branch's embedding; a bundle rebuilds them."""
    trunk = SMALL | {"pool": "avg", "shared": 8}
    plain = networks.build({"trunk": trunk, "heads": {"who": 3, "smile": 2}, "cosine": ["who"]}).eval()
    assert isinstance(plain.heads["who"], CosineLinear)
    assert isinstance(plain.heads["smile"], torch.nn.Linear)
    heads = {"who": {"face": [0, 1, 2]}, "smile": {"face": [0, 1]}}
    branches = {"face": {"levels": 0, "similarity": "cosine"}}
    network = networks.build({"trunk": SMALL, "branches": branches, "heads": heads, "cosine": ["who"]}).eval()
    images = torch.rand(3, 3, 64, 64) * 255
    output = network(images)
    directions = torch.nn.functional.normalize(network.heads["who"].parts["face"].weight)  # type: ignore[union-attr, index]
    torch.testing.assert_close(output.outputs["who"], output.embeddings["face"] @ directions.T)
    assert isinstance(network.heads["smile"].parts["face"], torch.nn.Linear)  # type: ignore[union-attr, index]
    again = networks.build(network.config).eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(images).outputs["who"], output.outputs["who"])


def test_a_task_knows_the_embedding_that_it_reads() -> None:
    branches = {"face": {"similarity": "cosine"}, "other": {"similarity": "euclidean"}, "silent": {}}
    heads = {"a": {"face": [0, 1]}, "b": {"face": [0], "other": [1]}, "c": {"silent": [0, 1]}}
    network = networks.build({"trunk": SMALL, "branches": branches, "heads": heads})
    assert [network.embedding_of(task) for task in heads] == ["face", None, None]
    assert networks.build({"trunk": SMALL | {"pool": "avg"}, "heads": {"a": 2}}).embedding_of("a") is None


@pytest.mark.parametrize("kind", [{"kind": "inception", "bottleneck": 6}, {"levels": 0}, {"hidden": [6]}])
@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_heads_read_what_the_embedding_was_made_from(kind: dict[str, Any], similarity: str) -> None:
    branches = {"face": kind | {"similarity": similarity}, "other": {"frozen": True}}
    network = networks.build({"trunk": SMALL, "branches": branches, "heads": {"who": {"face": [0, 1, 2]}}}).eval()
    images = torch.rand(3, 3, 64, 64) * 255
    output = network(images)
    features = network.branches["face"]([network.features(images)["shared"]])
    assert list(output.embeddings) == list(network.embeddings) == ["face"]  # the other branch declares nothing
    assert network.embeddings["face"] == Embedding(features.shape[1], similarity)
    part = network.heads["who"].parts["face"]  # type: ignore[union-attr, index]
    torch.testing.assert_close(output.outputs["who"], part(features))
    expected = features / features.norm(dim=1, keepdim=True) if similarity == "cosine" else features
    torch.testing.assert_close(output.embeddings["face"], expected)


@given(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), st.floats(0.5, 50))
def test_cosine_embeddings_have_length_1_whatever_the_features_have(values: list[float], factor: float) -> None:
    features = torch.tensor([values])
    form = Embedding(3, "cosine")
    if float(features.norm()) > 1e-3:
        torch.testing.assert_close(form(features).norm(), torch.tensor(1.0))
        torch.testing.assert_close(form(factor * features), form(features))
    assert bool(form(features).isfinite().all())


def test_distances_of_cosine_embeddings_are_between_0_and_4() -> None:
    """Spec 2.8: the squared distance of unit vectors is 2 − 2 cos."""
    found = Embedding(8, "cosine")(torch.randn(50, 8))
    distances = torch.cdist(found, found).square()
    torch.testing.assert_close(distances, 2 - 2 * found @ found.T, atol=1e-4, rtol=0)
    assert float(distances.min()) >= 0
    assert float(distances.max()) <= 4 + 1e-5
    opposite = Embedding(2, "cosine")(torch.tensor([[3.0, 0.0], [-0.1, 0.0], [0.0, 0.0]]))
    assert opposite.tolist() == [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]
