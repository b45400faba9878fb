"""ONNX files that answer what the network answers, whole or absent."""

from __future__ import annotations

import builtins
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from polyface.data.crops import sample
from polyface.errors import PolyfaceError
from polyface.export import onnx as module
from polyface.export.onnx import export_onnx, parity
from polyface.models.bundle import Bundle
from polyface.networks import build
from polyface.networks.shapes import Shape

Make = Callable[..., Bundle]
Exported = Callable[..., Path]
TRUNKS: dict[str, dict[str, Any]] = {
    "shared": {"name": "tcdcn"},
    "shared relu": {"name": "tcdcn", "activation": "relu"},
    "shared colour": {"name": "tcdcn", "channels": 3},
    "unshared": {"name": "tcdcn", "filters": "unshared"},
    "unshared relu": {"name": "tcdcn", "filters": "unshared", "activation": "relu"},
    "released 68": {"name": "tcdcn", "plan": "tcdcn68", "activation": "relu"},
    "timm": {"name": "timm", "model": "test_resnet", "size": 32, "channels": 3, "shared": 16},
}


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def model(make: Make, name: str) -> Bundle:
    bundle = make(trunk=TRUNKS[name])
    if name == "timm":  # batch statistics that are not those of a fresh network
        images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
        bundle.network.train()(images)
    return bundle


@pytest.mark.parametrize("name", TRUNKS)
def test_answers_as_the_network_does(make: Make, exported: Exported, name: str) -> None:
    bundle = model(make, name)
    path = exported(bundle)
    onnx.checker.check_model(str(path), full_check=True)
    size, channels = bundle.crop.size, bundle.crop.channels
    for batch in (1, 3, 17):
        images = np.random.default_rng(batch).integers(0, 256, (batch, channels, size, size)).astype(np.float32)
        with torch.inference_mode():
            expected = bundle.network.eval()(torch.from_numpy(images)).outputs
        found = dict(zip(bundle.tasks, session(path).run(list(bundle.tasks), {"images": images}), strict=True))
        for task, values in found.items():
            np.testing.assert_allclose(values, expected[task].numpy(), atol=1e-4)


def test_bytes_in_are_the_same(five: Bundle, exported: Exported) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 40, 40), dtype=np.uint8)
    one = session(exported(five)).run(None, {"images": images.astype(np.float32)})
    other = session(exported(five, input="uint8")).run(None, {"images": images})
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a, b)


def test_says_what_it_is(five: Bundle, tmp_path: Path) -> None:
    export_onnx(five, tmp_path / "model.onnx", opset=20)
    model = onnx.load(tmp_path / "model.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 20
    assert [i.name for i in model.graph.input] == ["images"]
    assert [o.name for o in model.graph.output] == ["landmarks", "pose", "smile"]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param  # any batch size
    said = json.loads({entry.key: entry.value for entry in model.metadata_props}["polyface"])
    assert said["tasks"]["smile"]["vocabulary"] == ["no", "yes"]
    assert said["crop"] == five.crop.model_dump()


@pytest.mark.parametrize("name, most", [("shared", 30), ("shared relu", 21), ("released 68", 25), ("timm", 45)])
def test_graph_is_clean(make: Make, exported: Exported, name: str, most: int) -> None:
    found = kinds(exported(model(make, name)))
    assert len(found) <= most
    unwanted = {"Cast", "Transpose", "Identity", "Shape", "BatchNormalization", "Expand", "ScatterElements", "Dropout"}
    assert not unwanted & set(found)
    assert kinds(exported(model(make, name), input="uint8")).count("Cast") == 1


def test_unshared_graph_has_no_scatter(make: Make, exported: Exported) -> None:
    found = kinds(exported(model(make, "unshared")))
    assert not {"Cast", "Identity", "Shape", "Expand", "ScatterElements", "ScatterND"} & set(found)
    assert found.count("Transpose") == 2  # to places first, and back
    assert found.count("MatMul") == 4


def test_points_of_an_exported_model(five: Bundle, picture: Callable[..., np.ndarray], exported: Exported) -> None:
    """What a user of the file alone does: crop, run, scale by the crop's side."""
    from polyface.data.crops import cut
    from polyface.inference import Analyzer

    path, box = exported(five), np.float32([20, 15, 70, 75])
    cuts = torch.from_numpy(cut(picture(), box, five.crop)[None].copy())
    images = sample(cuts, torch.from_numpy(five.crop.cut_to_input())[None], 40).numpy()
    (points,) = session(path).run(["landmarks"], {"images": images})
    ((x, _, left), (_, y, top)) = five.crop.crops(box)[0]
    found = (points.reshape(5, 2) * 40 - 0.5 - [left, top]) / [x, y]
    (result,) = Analyzer(five)(picture(), box)
    np.testing.assert_allclose(found, result.faces[0].points["landmarks"], atol=1e-3)


# --------------------------------------------------------------------------------------------------------- refusals


def test_a_difference_leaves_no_file(five: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._write

    @functools.cache  # exported once for both files
    def wrong_one(*rest: Any) -> bytes:
        network = five.network.eval()
        with torch.no_grad():
            changed = five.network.heads["pose"].bias.detach().clone() + 1e-3
            other = type(network)(network.trunk, network.config)
            other.load_state_dict(network.state_dict() | {"heads.pose.bias": changed})
        real(other.eval(), tmp_path / "aside", *rest)
        content = (tmp_path / "aside").read_bytes()
        (tmp_path / "aside").unlink()
        return content

    monkeypatch.setattr(module, "_write", lambda network, path, *rest: path.write_bytes(wrong_one(*rest)))
    (tmp_path / "old.onnx").write_bytes(b"the earlier file of Polyface")
    for name in ("new.onnx", "old.onnx"):
        with pytest.raises(PolyfaceError, match=r"not written: .* differ from PyTorch's by 0\.001"):
            export_onnx(five, tmp_path / name, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_bytes() == b"the earlier file of Polyface"


def test_parity_sees_other_weights_and_names(make: Make, exported: Exported) -> None:
    path = exported(make())
    assert parity(make().network, path) <= 1e-4
    assert parity(make(seed=9).network, path) > 1e-3
    assert parity(make({"landmarks": {"kind": "landmarks", "points": 5}}).network, path) == float("inf")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_named(five: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PolyfaceError, match=rf"needs {missing}: run `pip install 'polyface\[export\]'`"):
        export_onnx(five, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_settings_are_checked(five: Bundle, tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match="float32 or uint8"):
        export_onnx(five, tmp_path / "model.onnx", input="float16")  # type: ignore[arg-type]
    with pytest.raises(PolyfaceError, match="opset is 9"):
        export_onnx(five, tmp_path / "model.onnx", opset=9)
    with pytest.raises(PolyfaceError, match="is a folder"):
        export_onnx(five, tmp_path)


def test_a_network_that_cannot_be_exported(five: Bundle, tmp_path: Path) -> None:
    class Curious(torch.nn.Module):
        size, in_channels, maps = 40, 1, {"shared": Shape(4)}

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            if float(images.sum()) > 0:  # looks at values, which no graph can
                images = images + 1
            return {"shared": images.flatten(1)[:, :4]}

    from polyface.networks.network import FaceNetwork

    five.network = FaceNetwork(Curious(), {"heads": {n: t.output_dim for n, t in five.tasks.items()}})
    with pytest.raises(PolyfaceError, match="cannot be exported") as caught:
        export_onnx(five, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_exporting_is_quiet_and_changes_nothing(
    five: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    five.network.train()
    before = {name: tensor.clone() for name, tensor in five.network.state_dict().items()}
    worst = export_onnx(five, tmp_path / "model.onnx")
    assert five.network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in five.network.state_dict().items())
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")
    assert worst == parity(five.network.eval(), tmp_path / "model.onnx")


def test_each_picture_is_normalised_by_itself_in_the_file_too(five: Bundle, exported: Exported) -> None:
    """Whatever else is in the batch; a picture of one colour is a number."""
    network = build(five.network.config | {"normalise": {"per": "image"}})
    network.load_state_dict(five.network.state_dict())
    images = np.random.default_rng(0).uniform(0, 255, (3, 1, 40, 40)).astype(np.float32)
    images[1], images[2] = 0.1 * images[1] + 90, 77
    found = session(exported(replace(five, network=network))).run(["landmarks"], {"images": images})[0]
    with torch.inference_mode():
        one_by_one = [network.eval()(torch.from_numpy(image[None])).outputs["landmarks"] for image in images]
    np.testing.assert_allclose(found, torch.cat(one_by_one).numpy(), atol=1e-4)
