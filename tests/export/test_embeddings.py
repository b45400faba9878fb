"""Embeddings in ONNX files, whole networks and single branches, and networks cut down for inference."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
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
from polyface.errors import PolyfaceError
from polyface.export import onnx as module
from polyface.export.onnx import export_onnx
from polyface.inference import BundleEmbedder
from polyface.models.bundle import Bundle
from polyface.networks.folding import chosen_embedding, embedding_only, folded
from polyface.networks.layers import CosineLinear

TINY = {"name": "timm", "model": "test_resnet", "size": 64, "channels": 3, "pool": "map"}
MADE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pool": (TINY, {"kind": "pool", "levels": 0, "hidden": [32]}),
    "pyramid": (TINY, {"kind": "pool", "levels": 2, "hidden": [16], "norm": True}),
    "inception": ({"name": "inception-resnet", "size": 96}, {"kind": "inception", "bottleneck": 8}),
    "residual": ({"name": "face-resnet", "size": 48}, {"kind": "residual", "bottleneck": 16}),
    "residual at its own size": ({"name": "face-resnet"}, {"kind": "residual"}),  # its picture is not enlarged
}
PEOPLE = ["anna", "bert", "carl"]


def made(name: str, *names: str, similarity: str = "cosine", seed: int = 0) -> Bundle:
    """A random network of this kind, whose batch norms have statistics unlike a fresh one's; branches by `names`."""
    trunk, branch = MADE[name]
    names = names or ("verification",)
    torch.manual_seed(seed)
    network = networks.build({
        "trunk": trunk,
        "branches": {one: {**branch, "similarity": similarity} for one in names},
        "heads": {one: {one: [2, 0, 1]} for one in names},
        "cosine": names[:1],
    })  # fmt: skip
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.6, 1.4)
            nn.init.uniform_(norm.bias, -0.3, 0.3)
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    kinds = {one: tasks.build(one, {"kind": "identity", "people": PEOPLE}) for one in names}
    return Bundle(network.eval(), kinds, CropSpec(size=network.size), BoxSpec(), {"name": "tiny"})


def images(bundle: Bundle, count: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures [count, 3, S, S], float32 of 0…255."""
    small = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (count, 3, 6, 6)).astype(np.float32))
    return nn.functional.interpolate(small, size=bundle.network.size, mode="bilinear").numpy()


def ran(path: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": pixels}), strict=True))


def said(path: Path) -> dict[str, Any]:
    (entry,) = onnx.load(path).metadata_props
    assert entry.key == "polyface"
    told: dict[str, Any] = json.loads(entry.value)
    return told


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


# ---------------------------------------------------------------------------------------------------------- exporting


@pytest.mark.parametrize("name", ["pool", "inception", "residual"])
def test_the_embedding_alone(tmp_path: Path, name: str) -> None:
    bundle, path = made(name, "face", "other"), tmp_path / "model.onnx"
    assert export_onnx(bundle, path, branch="other") <= 1e-4
    for batch in (1, 2, 7):
        pixels = images(bundle, batch, seed=batch)
        with torch.inference_mode():
            expected = bundle.network(torch.from_numpy(pixels)).embeddings
        found = ran(path, pixels)
        assert list(found) == ["embedding/other"]
        np.testing.assert_allclose(found["embedding/other"], expected["other"].numpy(), atol=1e-5)
        assert (expected["other"] - expected["face"]).abs().max() > 1e-3  # the test would see the wrong one
    assert not {"Pad", "Gather", "Range", "BatchNormalization", "Identity", "Dropout"} & set(kinds(path))


def test_tasks_come_before_embeddings(tmp_path: Path) -> None:
    bundle, path = made("pool", "verification", "visual", similarity="euclidean"), tmp_path / "model.onnx"
    export_onnx(bundle, path)
    pixels = images(bundle, 2)
    found = ran(path, pixels)
    assert list(found) == ["verification", "visual", "embedding/verification", "embedding/visual"]
    with torch.inference_mode():
        expected = bundle.network(torch.from_numpy(pixels))
    for task, values in expected.outputs.items():
        np.testing.assert_allclose(found[task], values.numpy(), atol=1e-4)
        np.testing.assert_allclose(found[f"embedding/{task}"], expected.embeddings[task].numpy(), atol=1e-4)
    told = said(path)
    assert list(told["tasks"]) == ["verification", "visual"]
    assert told["embeddings"]["visual"] == {"dim": bundle.network.embeddings["visual"].dim, "similarity": "euclidean"}
    export_onnx(bundle, path, branch="visual")
    assert (said(path)["tasks"], list(said(path)["embeddings"])) == ({}, ["visual"])


def test_a_branch_that_is_not_there(tmp_path: Path, make: Callable[..., Bundle]) -> None:
    with pytest.raises(PolyfaceError, match="did you mean 'verification'"):
        export_onnx(made("pool"), tmp_path / "model.onnx", branch="verifcation")
    with pytest.raises(PolyfaceError, match="toy: its network has no embedding"):
        export_onnx(make(), tmp_path / "model.onnx", branch="face")
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------- 8-bit integers


def test_in_integers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle, path = made("pool", "face", "verification"), tmp_path / "model.onnx"
    faces = images(bundle, 24)
    assert 1e-4 < export_onnx(bundle, path, input="uint8", int8=faces) < 0.1
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(kinds(path))
    assert list(said(path)["embeddings"]) == ["verification"]
    for batch in (1, 7):
        pixels = images(bundle, batch, seed=5 + batch).astype(np.uint8)  # not those of the calibration
        with torch.inference_mode():
            expected = bundle.network(torch.from_numpy(pixels)).embeddings["verification"].numpy()
        assert ((ran(path, pixels)["embedding/verification"] * expected).sum(1) > 0.99).all()
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


def test_integers_that_answer_otherwise_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_onnx(made("pool", seed=1), tmp_path / "other.onnx", branch="verification")
    other = (tmp_path / "other.onnx").read_bytes()
    monkeypatch.setattr(module, "quantise", lambda source, target, *rest: Path(target).write_bytes(other))
    bundle = made("pool")
    with pytest.raises(PolyfaceError, match=r"not written: .* cosine of .*, below 0.99"):
        export_onnx(bundle, tmp_path / "new.onnx", int8=images(bundle, 3))
    for wrong in (images(bundle, 3)[:, :, 1:], images(bundle, 0), images(bundle, 1)[0]):
        with pytest.raises(PolyfaceError, match=r"expected faces \[N, 3, 64, 64\]"):
            export_onnx(bundle, tmp_path / "new.onnx", int8=wrong)
    assert [p.name for p in tmp_path.iterdir()] == ["other.onnx"]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Callable[..., np.ndarray], told: Any
) -> None:
    from PIL import Image
    from typer.testing import CliRunner

    from polyface.cli import app

    folder, photos = made("pool", "face", "verification").save(tmp_path / "model"), tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        Image.fromarray(picture(seed=seed)).save(photos / f"{seed}.png")
    taken: list[Any] = []
    monkeypatch.setattr(module, "export_onnx", lambda *given, **options: taken.append(options) or 0.0)
    monkeypatch.setattr("polyface.inference.embedder.RetinaFace", lambda *_: told([20, 15, 70, 75], [30, 5, 110, 85]))
    command = ["export", str(folder), str(tmp_path / "m.onnx"), "--branch", "face", "--int8", str(photos)]
    assert CliRunner().invoke(app, command).exit_code == 0
    (options,) = taken
    assert (options["branch"], options["int8"].shape) == ("face", (6, 3, 64, 64))
    assert 0 <= options["int8"].min() < options["int8"].max() <= 255.01


# ------------------------------------------------------------------------------------------------------ lean networks


@pytest.mark.parametrize("name", MADE)
def test_folding_keeps_the_answers(name: str) -> None:
    bundle = made(name, "face", "other")
    before = {key: value.clone() for key, value in bundle.network.state_dict().items()}
    lean = folded(embedding_only(bundle.network, "other"))
    pixels = torch.from_numpy(images(bundle, 3))
    with torch.inference_mode():
        whole, found = bundle.network(pixels), lean(pixels)
    assert (list(found.outputs), list(found.embeddings)) == ([], ["other"])
    torch.testing.assert_close(found.embeddings["other"], whole.embeddings["other"], atol=1e-5, rtol=0)
    if MADE[name][0] is not TINY:  # timm's own layers are left as they are
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in lean.modules())
    assert not any(isinstance(layer, CosineLinear) for layer in lean.modules())
    assert all(torch.equal(value, before[key]) for key, value in bundle.network.state_dict().items())
    assert networks.build(lean.config).embeddings == lean.embeddings


def test_a_norm_that_no_convolution_precedes_stays() -> None:
    network = copy.deepcopy(made("pool").network)
    network.branches["verification"].pool = nn.Sequential(  # type: ignore[assignment]
        nn.BatchNorm2d(network.shared_dim), nn.Conv2d(network.shared_dim, network.shared_dim, 1), nn.ReLU(),
        nn.BatchNorm2d(network.shared_dim), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    pool = folded(network).branches["verification"].pool
    assert [type(layer) for layer in pool] == [type(layer) for layer in network.branches["verification"].pool]  # type: ignore[arg-type, union-attr]


def test_bfloat16_embeddings_are_close(picture: Callable[..., np.ndarray], told: Any) -> None:
    bundle, boxes = made("residual"), told([20, 15, 70, 75], [30, 5, 110, 85])
    whole, half = (BundleEmbedder(bundle, detector=boxes, precision=p) for p in ("float32", "bfloat16"))  # type: ignore[arg-type]
    assert whole.id == half.id
    (one,), (other,) = whole.embed([picture()]), half.embed([picture()])
    for a, b in zip(one, other, strict=True):
        assert b.embedding.dtype == np.float32
        assert 0.99 < float(a.embedding @ b.embedding) < 1 - 1e-7  # close, and not the same computation
        assert np.linalg.norm(b.embedding) == pytest.approx(1, abs=1e-4)
    with pytest.raises(PolyfaceError, match="precision is 'half', expected float32 or bfloat16"):
        BundleEmbedder(bundle, precision="half")  # type: ignore[arg-type]


def test_what_the_network_sees(picture: Callable[..., np.ndarray], told: Any) -> None:
    bundle = made("pool")
    engine = BundleEmbedder(bundle, detector=told([20, 15, 70, 75], [30, 5, 110, 85], none_at_width=50), batch=2)
    pictures = [picture(seed=1), picture(50), picture(seed=2)]
    seen = engine.inputs(pictures)
    with torch.inference_mode():
        expected = bundle.network(torch.from_numpy(seen)).embeddings["verification"].numpy()
    found = [face.embedding for faces in engine.embed(pictures) for face in faces]
    np.testing.assert_allclose(np.array(found), expected, atol=1e-5)
    assert seen.shape == (4, 3, 64, 64)
    assert engine.inputs([picture(50)]).shape == (0, 3, 64, 64)


def test_the_branch_that_is_taken() -> None:
    assert chosen_embedding(made("pool", "face").network, None, "tiny") == "face"
    assert chosen_embedding(made("pool", "verification", "visual").network, None, "tiny") == "verification"
    with pytest.raises(PolyfaceError, match="tiny: no embedding is called 'verification'"):
        chosen_embedding(made("pool", "photo", "drawing").network, None, "tiny")
