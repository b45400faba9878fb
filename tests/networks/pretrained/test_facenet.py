"""facenet-pytorch's weights: by their names, against a forward pass written out here; and files that are not they."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork
from polyface.networks.pretrained import published

Tensors = dict[str, Tensor]
Layer = tuple[str, int, int, tuple[int, int]]
"""Name, channels in and out, kernel."""

THREE, ACROSS_7, DOWN_7, ACROSS_3, DOWN_3 = (3, 3), (1, 7), (7, 1), (1, 3), (3, 1)
ONE = (1, 1)
STEM: list[Layer] = [
    ("conv2d_1a", 3, 32, THREE), ("conv2d_2a", 32, 32, THREE), ("conv2d_2b", 32, 64, THREE),
    ("conv2d_3b", 64, 80, ONE), ("conv2d_4a", 80, 192, THREE), ("conv2d_4b", 192, 256, THREE),
]  # fmt: skip


def block(name: str, channels: int, width: int, kernels: list[tuple[int, int]], third: bool = False) -> list[Layer]:
    """A residual block's towers: a 1x1; a 1x1 and these; of Block35 a third of two 3x3."""
    made = [(f"{name}.branch0", channels, width, ONE), (f"{name}.branch1.0", channels, width, ONE)]
    made += [(f"{name}.branch1.{at}", width, width, kernel) for at, kernel in enumerate(kernels, 1)]
    if third:
        made.append((f"{name}.branch2.0", channels, width, ONE))
        made += [(f"{name}.branch2.{at}", width, width, THREE) for at in (1, 2)]
    return made


def layers() -> Iterator[Layer]:
    yield from STEM
    for number in range(5):
        yield from block(f"repeat_1.{number}", 256, 32, [THREE], third=True)
    yield "mixed_6a.branch0", 256, 384, THREE
    yield from (("mixed_6a.branch1.0", 256, 192, ONE), ("mixed_6a.branch1.1", 192, 192, THREE))
    yield "mixed_6a.branch1.2", 192, 256, THREE
    for number in range(10):
        yield from block(f"repeat_2.{number}", 896, 128, [ACROSS_7, DOWN_7])
    for branch, width in ((0, 384), (1, 256)):
        yield from ((f"mixed_7a.branch{branch}.0", 896, 256, ONE), (f"mixed_7a.branch{branch}.1", 256, width, THREE))
    yield from (("mixed_7a.branch2.0", 896, 256, ONE), ("mixed_7a.branch2.1", 256, 256, THREE))
    yield "mixed_7a.branch2.2", 256, 256, THREE
    for name in [*(f"repeat_3.{number}" for number in range(5)), "block8"]:
        yield from block(name, 1792, 192, [ACROSS_3, DOWN_3])


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """Random ones of all names and shapes; statistics unlike a fresh batch norm's."""
    torch.manual_seed(0)
    made: Tensors = {}

    def norm(name: str, width: int) -> None:
        for key, low, high in (("weight", 0.6, 1.4), ("bias", -0.3, 0.3), ("running_mean", -0.3, 0.3)):
            made[f"{name}.{key}"] = torch.empty(width).uniform_(low, high)
        made[f"{name}.running_var"] = torch.empty(width).uniform_(0.5, 2)
        made[f"{name}.num_batches_tracked"] = torch.tensor(7)

    for name, channels, width, kernel in layers():
        fan = channels * kernel[0] * kernel[1]
        made[f"{name}.conv.weight"] = torch.randn(width, channels, *kernel) * (2 / fan) ** 0.5
        norm(f"{name}.bn", width)
    for prefix, count, wide, channels in (
        ("repeat_1", 5, 96, 256),
        ("repeat_2", 10, 256, 896),
        ("repeat_3", 5, 384, 1792),
    ):
        for number in range(count):
            made[f"{prefix}.{number}.conv2d.weight"] = torch.randn(channels, wide, 1, 1) * wide**-0.5
            made[f"{prefix}.{number}.conv2d.bias"] = torch.randn(channels) * 0.1
    made["block8.conv2d.weight"], made["block8.conv2d.bias"] = (
        torch.randn(1792, 384, 1, 1) * 0.05,
        torch.randn(1792) * 0.1,
    )
    made["last_linear.weight"] = torch.randn(512, 1792) * 0.02
    norm("last_bn", 512)
    made["logits.weight"], made["logits.bias"] = torch.randn(10, 512), torch.randn(10)
    return made


@torch.no_grad()
def embedding(weights: Tensors, x: Tensor) -> Tensor:
    """What facenet-pytorch answers, layer by layer, of pictures that are normalised."""

    def unit(x: Tensor, name: str, stride: int = 1, pad: bool = True) -> Tensor:
        kernel = weights[f"{name}.conv.weight"]
        padding = (kernel.shape[2] // 2, kernel.shape[3] // 2) if pad else 0
        x = F.conv2d(x, kernel, stride=stride, padding=padding)
        bn = [weights[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *bn, eps=1e-3).relu()

    def chain(x: Tensor, name: str, count: int, last_stride: int = 1) -> Tensor:
        for at in range(count):
            last = last_stride > 1 and at == count - 1
            x = unit(x, f"{name}.{at}", last_stride if last else 1, pad=not last)
        return x

    def residual(x: Tensor, name: str, scale: float, towers: list[int], relu: bool = True) -> Tensor:
        each = [unit(x, f"{name}.branch0")] + [chain(x, f"{name}.branch{at}", n) for at, n in enumerate(towers, 1)]
        up = F.conv2d(torch.cat(each, 1), weights[f"{name}.conv2d.weight"], weights[f"{name}.conv2d.bias"])
        x = x + scale * up
        return x.relu() if relu else x

    x = unit(x, "conv2d_1a", 2, pad=False)
    x = unit(unit(x, "conv2d_2a", pad=False), "conv2d_2b")
    x = unit(F.max_pool2d(x, 3, 2), "conv2d_3b")
    x = unit(unit(x, "conv2d_4a", pad=False), "conv2d_4b", 2, pad=False)
    for number in range(5):
        x = residual(x, f"repeat_1.{number}", 0.17, [2, 3])
    x = torch.cat(
        [unit(x, "mixed_6a.branch0", 2, pad=False), chain(x, "mixed_6a.branch1", 3, 2), F.max_pool2d(x, 3, 2)], 1
    )
    for number in range(10):
        x = residual(x, f"repeat_2.{number}", 0.10, [3])
    towers = [chain(x, f"mixed_7a.branch{at}", count, 2) for at, count in enumerate((2, 2, 3))]
    x = torch.cat([*towers, F.max_pool2d(x, 3, 2)], 1)
    for number in range(5):
        x = residual(x, f"repeat_3.{number}", 0.20, [3])
    x = residual(x, "block8", 1.0, [3], relu=False).mean((2, 3)) @ weights["last_linear.weight"].T
    bn = [weights[f"last_bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    return F.normalize(F.batch_norm(x, *bn, eps=1e-3))


def network(repeats: tuple[int, int] = (5, 10), **branch: Any) -> FaceNetwork:
    own = {"kind": "inception", "blocks": 5, "bottleneck": 512, "similarity": "cosine"} | branch
    trunk = {"name": "inception-resnet", "size": 107, "repeats": list(repeats)}
    return networks.build({"trunk": trunk, "branches": {"face": own, "other": own}, "heads": {"who": {"face": [0]}}})


def start(source: Path, made: FaceNetwork, parts: tuple[str, ...] = ("trunk", "branches")) -> FaceNetwork:
    weights = published(str(source))
    assert weights is not None
    weights.start(made, parts)
    return made


@pytest.fixture(scope="module")
def file(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.save(tensors, path := tmp_path_factory.mktemp("weights") / "facenet.pt")
    return path


def test_the_answers_are_those_of_the_weights(file: Path, tensors: Tensors) -> None:
    """Of both branches, from pixels on; the published network normalises by 127.5 and 128."""
    made = start(file, network()).eval()
    pixels = torch.rand(2, 3, 107, 107) * 255
    with torch.no_grad():
        found = made(pixels).embeddings
    expected = embedding(tensors, (pixels - 127.5) / 128)
    for name in ("face", "other"):
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4)


def test_the_trunk_alone_and_a_branch_without_its_last_layer(file: Path, tensors: Tensors) -> None:
    made = network(blocks=1, bottleneck=None)
    before = {name: value.clone() for name, value in made.branches.state_dict().items()}
    start(file, made, ("trunk",))
    assert torch.equal(made.trunk.stages["conv6"][0].weight, tensors["conv2d_4b.conv.weight"])  # type: ignore[index, union-attr]
    assert all(torch.equal(value, before[name]) for name, value in made.branches.state_dict().items())
    own = start(file, network(bottleneck=None)).branches["face"].state_dict()
    assert torch.equal(own["blocks.5.up.bias"], tensors["block8.conv2d.bias"])


@pytest.mark.parametrize(
    "change, made, parts, message",
    [
        (
            lambda t: t.pop("mixed_7a.branch1.1.bn.bias"),
            network,
            ("trunk",),
            "has no mixed_7a.branch1.1.bn.bias: not the",
        ),
        (
            lambda t: t.clear(),
            network,
            ("trunk",),
            "has no conv2d_1a.conv.weight: not the weights of facenet-pytorch's",
        ),
        (
            lambda t: t.update({"conv2d_1a.conv.weight": torch.zeros(32, 1, 3, 3)}),
            network,
            ("trunk",),
            "conv2d_1a.conv.weight is [32, 1, 3, 3]; expected [32, 3, 3, 3]",
        ),
        (
            len,
            lambda: network((1, 1)),
            ("trunk",),
            "repeat_1 is 5 blocks, and here are 1: set network.trunk.repeats to [5, 10]",
        ),
        (
            len,
            lambda: network(blocks=1),
            ("trunk", "branches"),
            "repeat_3 is 5 blocks, and here are 1: set blocks of the br",
        ),
        (
            len,
            lambda: network(bottleneck=128),
            ("trunk", "branches"),
            "has a bottleneck of 512, not 128: set it so, or to null",
        ),
        (
            len,
            network,
            ("trunk", "heads"),
            "is for trunk inception-resnet and branches of kind inception: init.parts are",
        ),
    ],
)
def test_what_is_something_else(
    tensors: Tensors, tmp_path: Path, change: Callable[[Tensors], Any], made: Any, parts: Any, message: str
) -> None:
    told = dict(tensors)
    change(told)
    torch.save(told, path := tmp_path / "facenet.pt")
    with pytest.raises(PolyfaceError, match=re.escape(message)) as caught:
        start(path, made(), parts)
    assert "facenet.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_in_the_file_is_executed(tmp_path: Path) -> None:
    torch.save({"a": Path("x")}, path := tmp_path / "facenet.pt")
    with pytest.raises(PolyfaceError, match="facenet.pt: not a file of tensors alone"):
        start(path, network())
