"""Networks as graphs: what parts read, what is refused, what is frozen and shared; old configs give what they gave."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork
from polyface.networks.heads import GroupedHead
from polyface.networks.parts import PARTS
from polyface.networks.parts.pool import PoolPart
from polyface.networks.shapes import Shape, single_map
from polyface.networks.trunks import TRUNKS
from polyface.networks.trunks.tcdcn import TCDCN

TINY = {"name": "timm", "model": "test_resnet", "size": 32, "channels": 3, "pool": "map"}
GREY = {"name": "tcdcn"}


class ColumnPart(nn.Module):
    """A toy progressive column: two blocks; the second also reads the first blocks of earlier columns."""

    def __init__(self, reads: Sequence[Shape], channels: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        own, *earlier = reads
        assert all(shape.stride == own.stride for shape in earlier)
        self.first = nn.Sequential(nn.Conv2d(own.channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.adapters = nn.ModuleList(nn.Conv2d(shape.channels, channels, 1, bias=False) for shape in earlier)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Dropout(dropout))
        self.maps = {"": Shape(channels), "block1": Shape(channels, own.stride)}

    def forward(self, reads: Sequence[Tensor]) -> dict[str, Tensor]:
        own, *earlier = reads
        first = self.first(own)
        lateral = sum((adapter(map) for adapter, map in zip(self.adapters, earlier, strict=True)), first)
        return {"": self.second(lateral).mean((2, 3)), "block1": first}


@pytest.fixture(autouse=True)
def column() -> Iterator[None]:
    PARTS.add("column", ColumnPart)
    yield
    PARTS.remove("column")


def images(network: FaceNetwork, count: int = 4, seed: int = 0) -> Tensor:
    shape = (count, network.channels, network.size, network.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 255


def columns(**age: Any) -> dict[str, Any]:
    """A frozen column on an inner map of the trunk, and one that reads its first block."""
    parts = {
        "emotion": {"kind": "column", "reads": ["trunk.stage3"], "frozen": True, "dropout": 0.5},
        "age": {"kind": "column", "reads": ["trunk.stage3", "emotion.block1"], "dropout": 0.5} | age,
    }
    heads = {"emotion": {"emotion": [0, 1, 2], "frozen": True}, "age": {"age": [0, 1]}}
    return {"trunk": TINY | {"frozen": True}, "parts": parts, "heads": heads}


def built(config: dict[str, Any], seed: int = 0) -> FaceNetwork:
    torch.manual_seed(seed)
    return networks.build(config)


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


# ------------------------------------------------------------------------------------------------ as before


BEFORE: dict[str, tuple[dict[str, Any], str]] = {
    "vector": ({"trunk": GREY, "heads": {"landmarks": 10, "smile": 2}}, "8e10aa4ba1243cfb"),
    "inception": (
        {
            "trunk": {"name": "inception-resnet", "size": 96},
            "branches": {
                "verification": {"kind": "inception", "similarity": "cosine", "bottleneck": 8},
                "visual": {"kind": "inception", "similarity": "euclidean", "bottleneck": None},
            },
            "heads": {"verification": {"verification": [0, 1, 2]}, "visual": {"visual": [0, 1]}},
        },
        "d11a1870e6d525c4",
    ),
    "residual": (
        {
            "trunk": {"name": "face-resnet", "size": 48, "frozen": ["stem"]},
            "branches": {"face": {"kind": "residual", "bottleneck": 7, "similarity": "cosine"}},
            "heads": {"who": {"face": [0, 1, 2]}},
            "normalise": {"mean": 0, "std": 1},
        },
        "2d08cb2fb6a726e5",
    ),
}


@pytest.mark.parametrize("config, expected", BEFORE.values(), ids=list(BEFORE))
def test_start_weights_are_those_that_networks_had_before_there_were_graphs(
    config: dict[str, Any], expected: str
) -> None:
    """Names, shapes, order and every bit, at seed 3 (all of it from uniform numbers, which are the same everywhere)."""
    given = copy.deepcopy(config)
    network = built(config, seed=3)
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    assert digest.hexdigest()[:16] == expected
    assert network.config == given


def test_a_network_is_made_trunk_first_then_branches_then_heads() -> None:
    """The order in which random numbers are drawn, and so the start of every recipe."""
    config = {
        "trunk": GREY,
        "parts": {"a": {"reads": ["trunk.conv4"], "hidden": [3]}, "b": {"reads": ["trunk.conv3"], "levels": 2}},
        "heads": {"x": {"b": [1], "a": [0]}, "y": 2},
    }
    network = built(config)
    torch.manual_seed(0)
    trunk = TCDCN()
    made = {
        "trunk": trunk,
        "branches.a": PoolPart([Shape(64, 8)], hidden=[3]),
        "branches.b": PoolPart([Shape(64, 8)], levels=2),
        "heads.x": GroupedHead({"a": 3, "b": 5 * 64}, {"b": [1], "a": [0]}),
        "heads.y": nn.Linear(100, 2),
    }
    expected = {f"{at}.{name}": value for at, module in made.items() for name, value in module.state_dict().items()}
    assert list(network.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_branches_are_parts_that_read_the_trunk() -> None:
    options = {"a": {"levels": 2, "hidden": [5]}, "b": {"levels": 0, "similarity": "cosine"}}
    heads = {"x": {"a": [0, 1]}, "y": {"b": [0]}}
    old = built({"trunk": TINY, "branches": options, "heads": heads}).eval()
    new = built({"trunk": TINY, "parts": options, "heads": heads}).eval()
    assert list(old.state_dict()) == list(new.state_dict())
    ours, theirs = old(images(old)), new(images(new))
    assert torch.equal(ours.embeddings["b"], theirs.embeddings["b"])
    assert all(torch.equal(ours.outputs[name], theirs.outputs[name]) for name in heads)


# ------------------------------------------------------------------------------------------------ the graph


def test_a_part_reads_an_inner_map_of_the_trunk_and_of_an_earlier_part() -> None:
    network = built(columns()).eval()
    pixels = images(network)
    output = network(pixels)
    maps = network.features(pixels)
    earlier = network.branches["emotion"]([maps["stage3"]])
    features = network.branches["age"]([maps["stage3"], earlier["block1"]])[""]
    layer = network.heads["age"].parts["age"]  # type: ignore[union-attr, index]
    assert torch.equal(output.outputs["age"], layer(features))
    alone = network.branches["age"]([maps["stage3"], torch.zeros_like(earlier["block1"])])[""]
    assert not torch.allclose(features, alone)


def test_the_order_of_the_recipe_need_not_be_the_order_of_the_walk() -> None:
    config = columns()
    later = config | {"parts": dict(reversed(config["parts"].items()))}
    assert [node.name for node in built(later).graph.order] == ["emotion", "age", "emotion", "age"]
    assert list(built(later).state_dict()) == list(built(config).state_dict())


def test_declared_maps_are_the_maps() -> None:
    trunks: list[dict[str, Any]] = [
        GREY, {"name": "tcdcn", "plan": "tcdcn68", "filters": "unshared"}, TINY, TINY | {"pool": "avg", "shared": 5},
        TINY | {"pool": "points", "shared": 5, "points": 3}, {"name": "face-resnet"},
        {"name": "inception-resnet", "size": 160}, {"name": "casia-net"}, {"name": "casia-net", "end": "pool4"},
    ]  # fmt: skip
    for options in trunks:
        network = built({"trunk": options, "heads": {}}).eval()
        with torch.inference_mode():
            maps = network.features(images(network, 1))
        declared = network.trunk.maps
        assert set(maps) == set(declared)  # type: ignore[arg-type]
        for name, values in maps.items():
            shape = declared[name]  # type: ignore[index]
            assert (values.shape[1], values.ndim == 4) == (shape.channels, shape.stride > 0), (options, name)
            if shape.stride:  # padding takes or adds a few places
                seen = 150 if options["name"] == "face-resnet" else network.size
                assert abs(values.shape[2] - seen / shape.stride) < 6, (options, name)


POOLED = {"kind": "pool", "levels": 0}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"parts": {"a": POOLED | {"reads": ["trunc"]}}}, "network.parts.a names 'trunc'.*'trunk'"),
        ({"parts": {"a": POOLED | {"reads": ["trunk.stage9"]}}}, "network.parts.a names 'trunk.stage9'.*'trunk.stage"),
        ({"parts": {"a": POOLED | {"reads": ["b"]}, "b": POOLED | {"reads": ["a"]}}}, "parts.a → network.parts.b → "),
        ({"parts": {"a": POOLED | {"reads": ["a"]}}}, "network.parts.a needs its own result"),
        ({"parts": {"a": POOLED, "b": POOLED}}, "network.parts.b: no head and no embedding reads it"),
        ({"parts": {"a": POOLED}, "branches": {"a": POOLED}}, "network.parts.a: network.branches has one"),
        ({"parts": {"a": POOLED | {"reads": []}}}, r"network.parts.a: reads is \[\]"),
        ({"parts": {"a": POOLED | {"reads": "trunk"}}}, "network.parts.a: reads is 'trunk'; expected a list"),
        ({"parts": {"a": POOLED | {"reads": ["trunk", "trunk.stage1"]}}}, "network.parts.a .*reads 2 of them"),
        ({"parts": {"a": POOLED | {"froozen": True}}}, "network.parts.a .*'froozen'.*'frozen'"),
        ({"heads": {"x": 2}}, "network.heads.x reads 'trunk', which is a map.*network.trunk.pool"),
        ({"parts": {"a": POOLED}, "heads": {"x": {"b": [0]}}}, "network.heads.x names 'b'"),
        ({"parts": {"a": POOLED}, "heads": {"x": {"reads": ["a.block1"], "outputs": 2}}}, "heads.x names 'a.block1'"),
        ({"heads": {"x": {"reads": ["trunk.stage1"], "outputs": 2}}}, "heads.x reads 'trunk.stage1', which is a map"),
        ({"parts": {"a": POOLED}, "heads": {"x": {"reed": ["a"], "outputs": 2}}}, "unknown key 'reed'.*'reads'"),
        ({"parts": {"a": POOLED}, "heads": {"x": {"merge": "rows", "outputs": 2}}}, "heads.x: reads is None"),
        ({"parts": {"a": POOLED}, "embeddings": {"x": {"reads": ["c"]}}}, "network.embeddings.x names 'c'"),
        ({"parts": {"x": POOLED | {"similarity": "cosine"}}, "embeddings": {"x": {"reads": ["x"]}},
          "heads": {}}, "network.embeddings.x: its part has a similarity already"),
        ({"parts": {"a": POOLED}, "embeddings": {"x": {"reads": ["a"], "merge": "sum"}}}, "x: merge is 'sum'"),
        ({"parts": {"trunk": POOLED}, "heads": {}}, "network.parts.trunk: nothing can be called 'trunk'"),
        ({"parts": {"a.b": POOLED | {"frozen": True}}, "heads": {}}, "network.parts.a.b: nothing can be called"),
        ({"parts": {"a": POOLED}, "heads": {"keys": {"a": [0]}}}, "network.heads.keys: nothing can be called 'keys'"),
        ({"trunk": {"name": "tcdnc"}}, "network.trunk.name is 'tcdnc'.*'tcdcn'"),
        ({"trunk": {"name": "tcdcn", "filter": "shared"}}, "network.trunk .*'filter'.*'filters'"),
        ({"trunk": TINY | {"frozen": ["stem"]}}, "network.trunk .*frozen names 'stem'"),
    ],
)  # fmt: skip
def test_a_graph_that_cannot_be_is_refused_by_the_recipes_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        networks.build({"trunk": TINY, "heads": {"x": {"a": [0, 1]}}} | changes)
    assert "\n" not in str(caught.value)


def test_parts_must_say_what_they_give() -> None:
    class Silent(nn.Module):
        def __init__(self, reads: Sequence[Shape]) -> None:
            super().__init__()

    PARTS.add("silent", Silent)
    try:
        with pytest.raises(PolyfaceError, match=r"network.parts.a \(silent\): it does not declare"):
            networks.build({"trunk": TINY, "parts": {"a": {"kind": "silent"}}, "heads": {"x": {"a": [0]}}})
    finally:
        PARTS.remove("silent")
    with pytest.raises(PolyfaceError, match="expected one map"):
        single_map([Shape(3)])


# ------------------------------------------------------------------------------------------------ heads, embeddings


def test_a_head_reads_several_parts_whole() -> None:
    parts = {"a": POOLED, "b": {"kind": "pool", "levels": 2}}
    network = built({"trunk": TINY, "parts": parts, "heads": {"x": {"reads": ["b", "a"], "outputs": 3}}}).eval()
    output, maps = network(images(network)), network.features(images(network))["shared"]
    joined = torch.cat([network.branches["b"]([maps]), network.branches["a"]([maps])], 1)
    torch.testing.assert_close(output.outputs["x"], network.heads["x"](joined))
    assert network.heads["x"].in_features == 6 * network.shared_dim


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "inner"])
def test_a_task_owns_an_embedding_over_several_parts(similarity: str) -> None:
    parts = {"a": POOLED | {"similarity": "euclidean"}, "b": POOLED}
    config = {
        "trunk": TINY, "parts": parts, "heads": {"who": {"a": [0, 1]}, "smile": {"a": [0]}, "hat": {"b": [0]}},
        "embeddings": {"who": {"reads": ["a", "b"], "similarity": similarity}},
    }  # fmt: skip
    network = built(config).eval()
    output, maps = network(images(network)), network.features(images(network))["shared"]
    joined = torch.cat([network.branches["a"]([maps]), network.branches["b"]([maps])], 1)
    expected = nn.functional.normalize(joined) if similarity == "cosine" else joined
    torch.testing.assert_close(output.embeddings["who"], expected)
    assert (network.embeddings["who"].dim, network.embeddings["who"].similarity) == (joined.shape[1], similarity)
    assert [network.embedding_of(task) for task in config["heads"]] == ["who", "a", None]


# ------------------------------------------------------------------------------------------------ frozen, shared


def test_what_is_frozen_stays_bit_identical_while_the_rest_learns() -> None:
    """Batch norms and dropout included, whatever train() is called, and with every parameter in the optimiser."""
    network = built(columns())
    pixels, generator = images(network, 8), torch.Generator().manual_seed(0)
    target = torch.randint(0, 2, (8,), generator=generator)
    before, answer = bits(network), network.eval()(pixels).outputs["emotion"]
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        network.train()
        output = network(pixels)
        assert torch.equal(output.outputs["emotion"], answer)  # no dropout, statistics as they were
        losses = nn.functional.cross_entropy(output.outputs["age"], target) + output.outputs["emotion"].sum()
        optimiser.zero_grad()
        losses.backward()
        optimiser.step()
    after = bits(network)
    kept = ("trunk.", "branches.emotion.", "heads.emotion.")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in changed if name.startswith(kept)}
    assert {name for name in before if not name.startswith(kept)} <= changed
    assert {name for name, p in network.named_parameters() if not p.requires_grad} == {
        name for name, _ in network.named_parameters() if name.startswith(kept)
    }
    assert torch.equal(network.eval()(pixels).outputs["emotion"], answer)
    copied = copy.deepcopy(network).train()
    assert not any(module.training for module in copied.branches["emotion"].modules())


def test_a_frozen_part_may_go_unread() -> None:
    heads = {"x": {"a": [0]}}
    network = built({"trunk": TINY, "parts": {"a": POOLED, "b": POOLED | {"frozen": True}}, "heads": heads})
    assert list(network.branches) == ["a", "b"]


def test_shared_parameters_are_the_trunks_and_those_of_parts_with_two_readers() -> None:
    def names(network: FaceNetwork) -> list[str]:
        known = {parameter: name for name, parameter in network.named_parameters()}
        return [known[parameter] for parameter in network.shared_parameters()]

    for config, _ in BEFORE.values():
        network = built(config)
        own = [f"trunk.{name}" for name, p in network.trunk.named_parameters() if p.requires_grad]
        assert names(network) == own
    parts = {"low": {"hidden": [3]}, "a": {"hidden": [2]}, "b": {"hidden": [2]}}
    heads = {"x": {"a": [0]}, "y": {"reads": ["low", "b"], "outputs": 1}, "z": {"reads": ["low"], "outputs": 1}}
    network = built({"trunk": TINY, "parts": parts, "heads": heads})
    inner = [f"branches.low.{name}" for name, _ in network.branches["low"].named_parameters()]
    assert names(network) == [f"trunk.{name}" for name, _ in network.trunk.named_parameters()] + inner
    assert names(built(columns())) == []


# ------------------------------------------------------------------------------------------------ normalisation, sizes


def test_normalisation_by_channel() -> None:
    """(50 − 100) / 20 = −2.5, (50 − 50) / 10 = 0, (50 − 0) / 100 = 0.5."""
    seen: list[Tensor] = []
    network = built({"trunk": TINY, "heads": {}, "normalise": {"mean": [100, 50, 0.0], "std": [20.0, 10, 100]}})
    network.eval().trunk.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(torch.full((1, 3, 32, 32), 50, dtype=torch.uint8))
    assert [channel.unique().tolist() for channel in seen[0][0]] == [[-2.5], [0.0], [0.5]]
    same = built({"trunk": TINY, "heads": {}, "normalise": {"mean": [100.0] * 3, "std": [20.0] * 3}}).eval()
    plain = built({"trunk": TINY, "heads": {}, "normalise": {"mean": 100.0, "std": 20.0}}).eval()
    assert torch.equal(same(images(same)).shared, plain(images(plain)).shared)


@pytest.mark.parametrize(
    "normalise",
    [{"std": 0}, {"std": [1, 1, 0]}, {"mean": float("nan")}, {"std": float("inf")}, {"mean": [1, 2]}, {"mean": "grey"},
     {"std": -1.0}, {"mean": [[1], [2], [3]]}, {"std": None}],
)  # fmt: skip
def test_normalisation_that_gives_no_numbers_is_refused(normalise: dict[str, Any]) -> None:
    (key,) = normalise
    with pytest.raises(PolyfaceError, match=f"network.normalise.{key} is .*; expected a finite number"):
        networks.build({"trunk": TINY, "heads": {}, "normalise": normalise})


def test_a_trunk_that_pools_takes_any_size() -> None:
    class Whole(nn.Module):
        any_size = False

        def __init__(self, reads: Sequence[Shape]) -> None:
            super().__init__()
            self.maps = {"": Shape(reads[0].channels)}

        def forward(self, reads: Sequence[Tensor]) -> Tensor:
            return reads[0].flatten(1)

    PARTS.add("whole", Whole)
    try:
        pooled, whole = {"a": {"levels": 2}}, {"a": {"levels": 2}, "b": {"kind": "whole", "frozen": True}}
        heads = {"x": {"a": [0, 1]}}
        takes = built({"trunk": TINY, "parts": pooled, "heads": heads}).eval()
        assert takes.any_size
        assert [takes(torch.rand(2, 3, s, s)).outputs["x"].shape for s in (32, 48, 64)] == [(2, 2)] * 3
        assert not built({"trunk": TINY, "parts": whole, "heads": heads}).any_size
    finally:
        PARTS.remove("whole")
    for pool, expected in (("avg", True), ("points", True), ("flatten", False)):
        network = built({"trunk": TINY | {"pool": pool}, "heads": {"x": 2}}).eval()
        assert network.any_size is expected
        if expected:
            assert network(torch.rand(2, 3, 64, 64)).outputs["x"].shape == (2, 2)
    assert built({"trunk": {"name": "face-resnet", "size": 48}, "heads": {}}).any_size
    assert built({"trunk": {"name": "inception-resnet", "size": 96}, "heads": {}}).any_size
    assert not built({"trunk": GREY, "heads": {"x": 2}}).any_size


# ------------------------------------------------------------------------------------------------ registries


def test_kinds_are_the_files() -> None:
    assert {"pool", "inception", "residual", "casia"} <= set(PARTS.names())
    assert {"timm", "tcdcn", "face-resnet", "inception-resnet", "casia-net"} <= set(TRUNKS.names())
    assert all("(" not in PARTS.about(name)[:1] for name in PARTS.names())
    assert [TRUNKS.get(name) for name in ("tcdcn", "timm")] == [TCDCN, TRUNKS.get("timm")]


def test_a_broken_package_stops_only_recipes_that_name_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    import polyface.registry

    class Point:
        name, value, dist = "torn", "torn_package:Torn", None

        def load(self) -> Any:
            raise ImportError("no module named torn")

    monkeypatch.setattr(polyface.registry, "entry_points", lambda group: [Point()])
    networks.build({"trunk": GREY, "heads": {"x": 2}})
    with pytest.raises(PolyfaceError, match="trunk 'torn' .*cannot be loaded: ImportError: no module named torn"):
        networks.build({"trunk": {"name": "torn"}, "heads": {"x": 2}})
    with pytest.raises(PolyfaceError, match="part 'torn' .*cannot be loaded"):
        networks.build({"trunk": TINY, "parts": {"a": {"kind": "torn"}}, "heads": {"x": {"a": [0]}}})


@pytest.mark.parametrize("name", ["a.b", "", ".", 3, None, "keys"])
@pytest.mark.parametrize("key", ["heads", "parts"])
def test_names_that_no_module_can_have(key: str, name: Any) -> None:
    parts = {"kind": "pool", "levels": 0}
    config = {"trunk": TINY, "heads": {"x": 2}, "parts": {}}
    config[key] = {name: parts if key == "parts" else 2}
    with pytest.raises(PolyfaceError, match=rf"network\.{key}\..*: nothing can be called '.*' here; take another name"):
        built(config)


def test_a_picture_is_normalised_by_its_own_mean_and_deviation() -> None:
    """By hand; contrast and brightness make no difference, and a picture of one colour is 0."""
    network = built({"trunk": TINY, "heads": {}, "normalise": {"per": "image"}}).eval()
    plain = built({"trunk": TINY, "heads": {}, "normalise": {"mean": 0, "std": 1}}).eval()
    plain.load_state_dict(network.state_dict())
    images = torch.rand(3, 3, network.size, network.size) * torch.tensor([200.0, 20, 0]).view(3, 1, 1, 1) + 30
    by_hand = torch.stack([(one - one.mean()) / one.std(correction=0).clamp(min=one.numel() ** -0.5) for one in images])
    assert by_hand[2].abs().max() < 1e-3
    with torch.no_grad():
        torch.testing.assert_close(network(images).shared, plain(by_hand).shared)
        torch.testing.assert_close(network(images[:2]).shared, network(0.5 * images[:2] + 7).shared)
    images.requires_grad_()
    network(images).shared.sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


@pytest.mark.parametrize(
    "normalise, message",
    [
        ({"per": "face"}, "network.normalise.per is 'face'; expected image"),
        ({"per": "image", "std": 3}, "nothing to std"),
    ],
)
def test_a_normalisation_by_what_there_is_not(normalise: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        networks.build({"trunk": TINY, "heads": {}, "normalise": normalise})
