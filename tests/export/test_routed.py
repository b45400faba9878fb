"""Networks with routed and merged parts in ONNX files, and cut down to one embedding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from polyface import networks, tasks
from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec
from polyface.export.onnx import export_onnx
from polyface.inference import BundleEmbedder
from polyface.models import find
from polyface.models.bundle import Bundle, load_bundle
from polyface.networks.folding import embedding_only, folded, in_bfloat16

GROUPS = {"left": [0, 1], "frontal": [2], "right": [3, 4]}
PART = {"kind": "pool", "levels": 0, "hidden": [6], "norm": True}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Hard routing in the head, stochastic routing in the embedding, a task beside them, and two embeddings that are no
    task's."""
    torch.manual_seed(0)
    routed = {name: PART | {"rows": {"task": "pose", "classes": own}} for name, own in GROUPS.items()}
    network = networks.build({
        "trunk": {"name": "timm", "model": "test_resnet", "size": 32, "pool": "map"},
        "parts": {"other": PART | {"similarity": "cosine"}, "joint": PART, **routed},
        "heads": {
            "who": {"merge": "rows", "of": list(GROUPS), "outputs": 3},
            "pose": {"reads": ["joint"], "outputs": 5},
            "smile": {"other": [1, 0]},
        },
        "embeddings": {
            "who": {"reads": ["joint", *GROUPS], "merge": "stochastic", "similarity": "inner"},
            "hard": {"reads": ["joint", *GROUPS], "merge": "hard"},
            "soft": {"reads": list(GROUPS), "merge": "expected", "similarity": "inner"},
        },
        "normalise": {"mean": [100.0, 110.0, 120.0], "std": [60.0, 61.0, 62.0]},
    })  # fmt: skip
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    with torch.no_grad():  # every pose is answered for some faces
        network.heads["pose"].bias -= network.eval()(pixels(64)).outputs["pose"].mean(0)  # type: ignore[operator]
    kinds = {
        "who": tasks.build("who", {"kind": "identity", "people": ["anna", "bert", "carl"]}),
        "pose": tasks.build("pose", {"kind": "classification", "column": "pose"}),
        "smile": tasks.build("smile", {"kind": "classification", "column": "smile"}),
    }
    return Bundle(network, kinds, CropSpec(size=32, channels=3), BoxSpec(), {"name": "tiny"})


def pixels(count: int) -> torch.Tensor:
    return torch.rand((count, 3, 32, 32), generator=torch.Generator().manual_seed(3)) * 255


def ran(path: Path, images: torch.Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))


def metadata(path: Path) -> dict[str, Any]:
    (entry,) = onnx.load(path).metadata_props
    told: dict[str, Any] = json.loads(entry.value)
    return told


def test_a_routed_network_in_onnx_answers_as_in_pytorch(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert export_onnx(bundle, path) <= 1e-4
    images = pixels(32)
    with torch.inference_mode():
        expected = bundle.network.eval()(images)
    assert len(expected.outputs["pose"].argmax(1).unique()) == 5
    found = ran(path, images)
    assert set(found) == {"who", "pose", "smile", *(f"embedding/{name}" for name in ("other", "who", "hard", "soft"))}
    for name, values in found.items():
        kind, _, embedding = name.partition("/")
        wanted = expected.embeddings[embedding] if embedding else expected.outputs[kind]
        np.testing.assert_allclose(values, wanted.numpy(), atol=1e-4)
    assert metadata(path)["embeddings"]["who"] == {"dim": 12, "similarity": "inner"}


def test_one_embedding_keeps_the_head_that_routes_it(bundle: Bundle, tmp_path: Path) -> None:
    images = pixels(16)
    with torch.inference_mode():
        expected = bundle.network.eval()(images)
        own = embedding_only(bundle.network, "who")
        assert (list(own.heads), set(own.branches), list(own.embeddings)) == (
            ["pose"], {"joint", *GROUPS}, ["who"],
        )  # fmt: skip
        assert torch.equal(own(images).embeddings["who"], expected.embeddings["who"])
        torch.testing.assert_close(folded(own)(images).embeddings["who"], expected.embeddings["who"])
        other = embedding_only(bundle.network, "other")
        assert (list(other.heads), list(other.branches)) == ([], ["other"])
        assert torch.equal(other(images).embeddings["other"], expected.embeddings["other"])
        with torch.autocast("cpu", torch.bfloat16):
            close = in_bfloat16(own)(images).embeddings["who"]
        assert float(nn.functional.cosine_similarity(close, expected.embeddings["who"]).min()) > 0.95
    for cut in (own, other):
        again = networks.build(cut.config)
        again.load_state_dict(cut.state_dict())
        assert again.embeddings == cut.embeddings
        assert list(again.state_dict()) == list(cut.state_dict())
    path = tmp_path / "who.onnx"
    assert export_onnx(bundle, path, branch="who") <= 1e-4
    found = ran(path, images)
    assert list(found) == ["pose", "embedding/who"]
    np.testing.assert_allclose(found["embedding/who"], expected.embeddings["who"].numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["hard", "soft"])
def test_an_embedding_that_is_no_tasks_is_kept_alone(bundle: Bundle, name: str) -> None:
    with torch.inference_mode():
        expected = bundle.network.eval()(pixels(8)).embeddings[name]
        own = embedding_only(bundle.network, name)
        assert (list(own.heads), list(own.embeddings)) == (["pose"], [name])
        assert torch.equal(own(pixels(8)).embeddings[name], expected)
    assert BundleEmbedder(bundle, branch=name).dim == expected.shape[1]


def test_a_bundle_of_a_graph_is_read_as_it_was_written(bundle: Bundle, tmp_path: Path) -> None:
    again = load_bundle(bundle.save(tmp_path / "tiny"), quiet=True)
    assert again.network.config == bundle.network.config
    with torch.inference_mode():
        ours, theirs = bundle.network.eval()(pixels(8)), again.network(pixels(8))
    assert all(torch.equal(ours.outputs[name], theirs.outputs[name]) for name in ours.outputs)
    assert all(torch.equal(ours.embeddings[name], theirs.embeddings[name]) for name in ours.embeddings)
    assert BundleEmbedder(again, branch="other").id == BundleEmbedder(bundle, branch="other").id


@pytest.mark.parametrize("filters", ["shared", "unshared"])
def test_parts_on_inner_maps_of_a_trunk_that_is_rewritten(filters: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = {f"on{n}": {"kind": "pool", "reads": [f"trunk.conv{n}"], "levels": 2} for n in (1, 4)}
    network = networks.build({
        "trunk": {"name": "tcdcn", "filters": filters},
        "parts": parts,
        "heads": {"smile": {"on1": [0], "on4": [1]}},
    })  # fmt: skip
    kinds = {"smile": tasks.build("smile", {"kind": "classification", "column": "smile"})}
    bundle = Bundle(network.eval(), kinds, CropSpec(size=40, channels=1), BoxSpec(), {"name": "tiny"})
    assert export_onnx(bundle, tmp_path / "model.onnx") <= 1e-4


def test_a_network_of_one_embedding_is_cut_to_itself() -> None:
    """The shipped embedder was made so: cut again, its config (which its galleries' id depends on) is the same."""
    network = load_bundle(find("identity"), quiet=True).network
    assert embedding_only(network, "verification").config == network.config


def test_heads_without_a_layer_in_onnx(tmp_path: Path) -> None:
    """Logits that are a part's output are an output of their own, beside the embedding of the same numbers."""
    torch.manual_seed(0)
    logits = {"kind": "linear", "width": 3, "reads": ["block"]}
    routed = {name: logits | {"rows": {"task": "pose", "classes": own}} for name, own in GROUPS.items()}
    network = networks.build({
        "trunk": {"name": "casia-net", "size": 32, "width": 0.1, "end": "pool4"},
        "parts": {"block": {"kind": "casia", "width": 0.1}, "joint": logits, **routed},
        "heads": {
            "who": {"reads": ["joint"], "outputs": 3, "layer": "none"},
            "who_by_pose": {"merge": "rows", "of": list(GROUPS), "outputs": 3, "layer": "none"},
            "pose": {"reads": logits["reads"], "outputs": 5},
        },
        "embeddings": {
            "as they are": {"reads": ["joint"], "similarity": "inner"},
            "stochastic": {"reads": ["joint", *GROUPS], "merge": "stochastic", "similarity": "inner"},
        },
    })  # fmt: skip
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    images = pixels(16)[:, :1]
    network.train()(images, {"pose": torch.arange(16) % 5})
    kinds = {name: tasks.build(name, {"kind": "identity", "people": ["a", "b", "c"]}) for name in network.heads}
    kinds["pose"] = tasks.build("pose", {"kind": "classification", "column": "pose"})
    bundle = Bundle(network.eval(), kinds, CropSpec(size=32, channels=1), BoxSpec(), {"name": "tiny"})
    assert export_onnx(bundle, tmp_path / "model.onnx") <= 1e-4
    found = ran(tmp_path / "model.onnx", images)
    with torch.inference_mode():
        expected, lean = network(images), folded(embedding_only(network, "stochastic"))(images)
    np.testing.assert_allclose(found["embedding/as they are"], found["who"])
    np.testing.assert_allclose(found["who_by_pose"], expected.outputs["who_by_pose"].numpy(), atol=1e-4)
    assert float(expected.outputs["who_by_pose"].std(0).min()) > 0.01
    torch.testing.assert_close(lean.embeddings["stochastic"], expected.embeddings["stochastic"])
    whole = load_bundle(bundle.save(tmp_path / "tiny"), quiet=True).network
    with torch.inference_mode():
        assert torch.equal(whole(images).outputs["who"], expected.outputs["who"])
