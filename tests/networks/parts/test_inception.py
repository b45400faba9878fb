"""Inception parts on any map, and networks of them with embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyface import networks
from polyface.networks.parts.inception import InceptionPart
from polyface.networks.shapes import Shape

SMALL = {"name": "timm", "model": "test_resnet", "size": 64, "channels": 3, "pool": "map"}


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
