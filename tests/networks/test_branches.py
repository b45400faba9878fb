"""Branches, embeddings, pyramid pooling, grouped heads, and the networks of Mao et al. 2020 that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks.heads import Embedding, GroupedHead
from polyface.networks.layers import CosineLinear
from polyface.networks.parts.inception import InceptionPart
from polyface.networks.parts.pool import PoolPart, SpatialPyramid
from polyface.networks.parts.residual import ResidualPart
from polyface.networks.shapes import Shape
from polyface.schema import ATTRIBUTES

RESNET50 = {"name": "timm", "model": "resnet50", "size": 224, "pool": "map"}
SMALL = {"name": "timm", "model": "test_resnet", "size": 64, "channels": 3, "pool": "map"}
OBJECTIVE, SUBJECTIVE = list(range(0, 40, 2)) + [1, 3], list(range(5, 40, 2))
DMM: dict[str, Any] = {
    "branches": {
        "objective": {"levels": 1, "hidden": [1024]},
        "subjective": {"levels": 3, "hidden": [2048, 1024]},
        "points": {"levels": 1, "hidden": [1024]},
    },
    "heads": {
        "attributes": {"objective": OBJECTIVE, "subjective": SUBJECTIVE},
        "landmarks": {"points": list(range(144))},
    },
}


def small(hidden: int = 8) -> networks.FaceNetwork:
    branches = {name: {"levels": options["levels"], "hidden": [hidden]} for name, options in DMM["branches"].items()}
    torch.manual_seed(0)
    return networks.build({"trunk": SMALL, "branches": branches, "heads": DMM["heads"]})


def parameters(config: dict[str, Any]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in networks.build(config).parameters())


# ------------------------------------------------------------------------------------------------ pooling


@given(st.integers(3, 12), st.integers(3, 12), st.integers(1, 4))
def test_pyramid_is_adaptive_max_pooling_level_by_level(height: int, width: int, levels: int) -> None:
    maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * 13 + width))
    expected = [torch.nn.functional.adaptive_max_pool2d(maps, n).flatten(1) for n in range(1, levels + 1)]
    assert torch.equal(SpatialPyramid(levels)(maps), torch.cat(expected, 1))


def test_pyramid_length_does_not_depend_on_the_map() -> None:
    pool = SpatialPyramid(3)
    assert {tuple(pool(torch.randn(2, 5, h, w)).shape) for h, w in ((3, 3), (7, 7), (4, 9))} == {(2, 14 * 5)}


def test_pyramid_levels_agree_with_each_other() -> None:
    """The first C numbers are the one-level vector; the maximum over the 3×3 bins is the global one."""
    maps = torch.randn(4, 6, 7, 7)
    three = SpatialPyramid(3)(maps)
    assert torch.equal(three[:, :6], SpatialPyramid(1)(maps))
    assert torch.equal(three[:, 6 * 5 :].view(4, 6, 9).amax(2), three[:, :6])


def test_branch_by_average_without_layers_is_the_mean() -> None:
    maps = torch.randn(2, 6, 5, 5)
    branch = PoolPart([Shape(6, 8)], levels=0)
    torch.testing.assert_close(branch([maps]), maps.mean((2, 3)))
    assert branch.maps == {"": Shape(6)}


def test_normalised_layers_are_of_mean_zero_before_their_relu() -> None:
    torch.manual_seed(0)
    branch = PoolPart([Shape(6, 8)], levels=2, hidden=[16, 4], norm=True)
    seen: list[torch.Tensor] = []
    relus = [layer for layer in branch.fc if isinstance(layer, torch.nn.ReLU)]
    assert len(relus) == 2
    for relu in relus:
        relu.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    branch([torch.randn(64, 6, 5, 5) * 9 + 4])
    for values in seen:
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(values.std(0), torch.ones(values.shape[1]), atol=0.05, rtol=0)
    assert not any(isinstance(layer, torch.nn.BatchNorm1d) for layer in PoolPart([Shape(6, 8)], hidden=[4]).fc)


# ------------------------------------------------------------------------------------------------ heads


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


def test_branches_are_isolated() -> None:
    """∂ objective / ∂ the subjective branch is 0, and the other way round; the trunk hears both."""
    network = small()
    output = network(torch.rand(2, 3, 64, 64) * 255).outputs["attributes"]
    for own, other, places in (("objective", "subjective", OBJECTIVE), ("subjective", "objective", SUBJECTIVE)):
        network.zero_grad()
        output[:, places].sum().backward(retain_graph=True)
        foreign = [*network.branches[other].parameters(), *network.heads["attributes"].parts[other].parameters()]  # type: ignore[union-attr, index]
        assert all(p.grad is None or not p.grad.any() for p in foreign)
        assert all(p.grad is not None and p.grad.any() for p in network.branches[own].parameters())
        assert any(p.grad is not None and p.grad.any() for p in network.trunk.parameters())


def test_every_parameter_gets_a_gradient() -> None:
    network = small()
    output = network(torch.rand(4, 3, 64, 64) * 255)
    sum(o.square().sum() for o in output.outputs.values()).backward()  # type: ignore[union-attr]
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_shared_is_the_map_that_the_branches_read() -> None:
    network = small()
    output = network(torch.rand(2, 3, 64, 64) * 255)
    assert output.shared.ndim == 4
    assert output.shared.shape[1] == network.shared_dim
    for values in output.outputs.values():
        (gradient,) = torch.autograd.grad(values.sum(), output.shared, retain_graph=True)
        assert gradient.any()


def test_a_network_with_branches_is_rebuilt_from_its_config() -> None:
    network = small().eval()
    again = networks.build(network.config).eval()
    again.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 64, 64) * 255
    ours, theirs = network(images).outputs, again(images).outputs
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"level": 3}, "branches.a .*unknown option 'level'.*levels"),
        ({"levels": -1}, "branches.a .*at least 1 level"),
        ({"hidden": ["many"]}, "branches.a "),
        ({"kind": "inseption"}, "branches.a.kind is 'inseption'.*'inception'"),
        ({"kind": "inception", "levels": 1}, "branches.a .*unknown option 'levels'"),
        ({"kind": "inception", "block": 1}, "unknown option 'block'.*'blocks'"),
        ({"similarty": "cosine"}, "unknown option 'similarty'.*'similarity'"),
        ({"similarity": "cosin"}, "branches.a.similarity: .*'cosin'.*'cosine'"),
        ({"kind": "inception", "blocks": -1}, "branches.a .*blocks is -1"),
        ({"kind": "inception", "bottleneck": 0}, "bottleneck 0"),
        ({"kind": "inception", "dropout": 2}, "branches.a .*dropout"),
    ],
)
def test_bad_branches(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        networks.build({"trunk": SMALL, "branches": {"a": options}, "heads": {"x": {"a": [0]}}})
    with pytest.raises(PolyfaceError, match=message.replace("branches", "parts")):
        networks.build({"trunk": SMALL, "parts": {"a": options}, "heads": {"x": {"a": [0]}}})


def test_a_head_of_an_unknown_branch() -> None:
    with pytest.raises(PolyfaceError, match="heads.x names 'fase'.*face"):
        networks.build({"trunk": SMALL, "branches": {"face": {}}, "heads": {"x": {"fase": [0]}}})


@pytest.mark.parametrize("kind", ["pool", "inception"])
def test_branches_need_a_map(kind: str) -> None:
    config = {"trunk": SMALL | {"pool": "avg"}, "branches": {"a": {"kind": kind}}, "heads": {"x": {"a": [0]}}}
    with pytest.raises(PolyfaceError, match="network.branches.a .*set network.trunk.pool to map"):
        networks.build(config)


# ------------------------------------------------------------------------------------------------ inception, embeddings


def inception(similarity: str | None = "cosine", **options: Any) -> networks.FaceNetwork:
    """Two branches of Block8s on a small timm trunk, a head each."""
    torch.manual_seed(0)
    branch = {"kind": "inception"} | ({"similarity": similarity} if similarity else {}) | options
    names = ("visual", "caricature")
    heads = {name: {name: [0, 1]} for name in names}
    return networks.build({"trunk": SMALL, "branches": {name: branch for name in names}, "heads": heads})


def test_any_map_feeds_the_inception_branch() -> None:
    """The towers keep their widths; in and out follow the map's channels, or the bottleneck."""
    network = inception(bottleneck=5)
    branch = network.branches["visual"]
    assert isinstance(branch, InceptionPart)
    ups = [(block.up.in_channels, block.up.out_channels) for block in branch.blocks]  # type: ignore[union-attr]
    assert ups == [(384, network.shared_dim)] * 2
    assert [head.parts[name].in_features for name, head in network.heads.items()] == [5] * 2  # type: ignore[union-attr, index]
    assert inception().branches["visual"].maps == {"": Shape(network.shared_dim)}
    output = network(torch.rand(4, 3, 64, 64) * 255)
    sum(o.square().sum() for o in output.outputs.values()).backward()  # type: ignore[union-attr]
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


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


def test_a_network_without_similarities_has_no_embeddings() -> None:
    assert inception(similarity=None).eval()(torch.rand(2, 3, 64, 64)).embeddings == {}
    assert inception(similarity=None).embeddings == {}


def test_embeddings_stay_float32_under_bfloat16() -> None:
    network = inception().eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.rand(2, 3, 64, 64) * 255)
    assert {value.dtype for value in output.embeddings.values()} == {torch.float32}
    for value in output.embeddings.values():
        torch.testing.assert_close(value.norm(dim=1), torch.ones(2))


def test_a_network_with_inception_branches_is_exported(tmp_path: Path) -> None:
    import onnxruntime

    from polyface import tasks
    from polyface.data.crops import CropSpec
    from polyface.export.onnx import export_onnx
    from polyface.models.bundle import Bundle

    network = inception(bottleneck=4)
    kinds = {name: tasks.build(name, {"kind": "classification", "column": "smile"}) for name in network.branches}
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of the batch: those of a fresh network hardly tell faces apart
    network.train()(torch.rand(8, 3, 64, 64) * 255)
    bundle = Bundle(network, kinds, CropSpec(size=64, channels=3))
    assert export_onnx(bundle, tmp_path / "model.onnx") <= 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    images = torch.rand(3, 3, 64, 64) * 255
    with torch.inference_mode():
        expected = network.eval()(images).outputs
    for name, values in zip(kinds, session.run(list(kinds), {"images": images.numpy()}), strict=True):
        np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-4)
        assert float(expected[name].std(0).min()) > 0.01  # faces differ by far more than what is allowed


# ------------------------------------------------------------------------------------------------ residual


def test_a_residual_branch_is_a_block_and_the_average() -> None:
    """4×4 → 2×2, of which the last row and column are the average alone; dropout, then the layer without bias."""
    branch = ResidualPart([Shape(256, 32)], bottleneck=5).eval()
    maps = torch.randn(2, 256, 4, 4)
    with torch.no_grad():
        expected = branch.blocks(maps).mean((2, 3)) @ branch.bottleneck.weight.T  # type: ignore[union-attr, operator]
        torch.testing.assert_close(branch([maps]), expected)
    assert branch.maps == {"": Shape(5)}
    assert branch.bottleneck.bias is None
    plain = ResidualPart([Shape(256, 32)], dropout=0.5)
    assert plain.maps == {"": Shape(256)}
    pooled = plain.train()([maps])
    assert 0.3 < float((pooled == 0).float().mean()) < 0.7
    assert plain.eval()([maps]).shape == (2, 256)


def test_a_residual_branch_reads_the_map_of_its_trunk() -> None:
    config: dict[str, Any] = {"branches": {"a": {"kind": "residual"}}, "heads": {"x": {"a": [0, 1]}}}
    network = networks.build(config | {"trunk": {"name": "face-resnet", "size": 32}})
    network(torch.rand(2, 3, 32, 32) * 255).outputs["x"].sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    with pytest.raises(PolyfaceError, match="branches.a .*kind residual reads a map of 256 channels"):
        networks.build(config | {"trunk": SMALL | {"model": "resnet18"}})


# ------------------------------------------------------------------------------------------------ the paper's


def test_parameter_counts_of_the_paper() -> None:
    """Spec 3.3: DMM-CNN 88,713,464 (354.9 MB of float32), DMM-SPP 86,615,288, Baseline 23,589,992."""
    every = list(range(len(ATTRIBUTES)))
    spp = {
        "branches": {"face": {"levels": 3, "hidden": [2048, 1024]}, "points": {"levels": 1, "hidden": [1024]}},
        "heads": {"attributes": {"face": every}, "landmarks": DMM["heads"]["landmarks"]},
    }
    plain = {"branches": {"face": {"levels": 0}}, "heads": {"attributes": {"face": every}}}
    assert (len(OBJECTIVE), len(SUBJECTIVE)) == (22, 18)
    assert [parameters({"trunk": RESNET50} | config) for config in (DMM, spp, plain)] == [
        88_713_464,
        86_615_288,
        23_589_992,
    ]
