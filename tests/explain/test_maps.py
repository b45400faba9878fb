"""Heat maps: numbers by hand, captum as the oracle where it has the method, and what no map may depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import GENDER, RECTIFIERS, network
from torch import Tensor, nn

from polyface import networks
from polyface import tasks as kinds
from polyface.errors import PolyfaceError
from polyface.explain.layers import asked, map_before, map_named, map_names
from polyface.explain.maps import METHODS, grad_cam, guided_backprop, guided_grad_cam, occlusion, over_picture
from polyface.explain.questions import Question, question
from polyface.networks import FaceNetwork
from polyface.networks.parts import PARTS
from polyface.networks.shapes import Shape

KINDS: dict[str, dict[str, Any]] = {
    "landmarks": {"kind": "landmarks", "points": 5},
    "gender": {"kind": "classification", "column": "gender"},
    "attributes": {"kind": "attributes", "attributes": ["Smiling", "Male", "Bald"]},
    "age": {"kind": "regression", "column": "age"},
    "heading": {"kind": "regression", "column": "heading", "circular": True},
    "identity": {"kind": "identity", "people": ["Ann", "Bob", "Cid"]},
}
TASKS = {name: kinds.build(name, config) for name, config in KINDS.items()}


def pixels(count: int = 2, size: int = 32, seed: int = 0, channels: int = 3) -> Tensor:
    return 255 * torch.rand((count, channels, size, size), generator=torch.Generator().manual_seed(seed))


class Wrapped(nn.Module):
    """A network as captum wants it: pictures in, the numbers of one task out."""

    def __init__(self, own: FaceNetwork, asked: Question) -> None:
        super().__init__()
        self.own, self.asked = own, asked

    def forward(self, images: Tensor) -> Tensor:
        return self.asked.numbers(self.own(images))


# ------------------------------------------------------------------------------------------------ Grad-CAM


def test_grad_cam_by_hand(small: None) -> None:
    """y = w · mean(A): α_c = w_c / (h·w), so that the map is ReLU(Σ w_c A_c) / (h·w)."""
    own = network({"gender": 2})
    images, one = pixels(), question(own, GENDER, "gender=female")
    maps = own.features(images)["two"]
    weight = own.heads["gender"].weight[1]  # type: ignore[index]
    expected = (weight[:, None, None] * maps).sum(1).relu() / 64
    assert expected.max() > 0
    torch.testing.assert_close(grad_cam(own, images, one), expected)


def test_captum_has_the_same_grad_cam_and_guided_backprop(small: None) -> None:
    captum = pytest.importorskip("captum.attr")
    own = network({"gender": 2}, widths=(8, 16, 16))
    images, one = pixels(), question(own, GENDER, "gender=male")
    wrapped, layer = Wrapped(own, one), own.trunk.layers[1]  # type: ignore[index]
    # of the convolution's output, which is what captum takes of a layer; here the map is what the rectifier makes of it
    theirs = captum.LayerGradCam(lambda images: wrapped(images), layer).attribute(images, 0, relu_attributions=True)
    assert theirs.shape[2:] == grad_cam(own, images, one, "trunk.two").shape[1:]
    act, own.trunk.act = own.trunk.act, nn.Identity()
    theirs = captum.LayerGradCam(wrapped, layer).attribute(images, 0, relu_attributions=True)[:, 0]
    torch.testing.assert_close(grad_cam(own, images, one, "trunk.two"), theirs)
    own.trunk.act = act
    with pytest.warns(UserWarning, match="backward hooks"):
        guided = captum.GuidedBackprop(wrapped).attribute(images, target=0)
    assert guided.abs().max() > 0
    torch.testing.assert_close(guided_backprop(own, images, one), guided)


def test_the_layer_is_named_or_the_last_one_on_the_way(small: None) -> None:
    own = network({"gender": 2})
    assert map_names(own) == ["trunk.one", "trunk.two"]  # "shared" is a vector
    assert map_before(own, own.graph.heads["gender"]) == map_named(own, "trunk") == "trunk.two"
    one = question(own, GENDER, "gender")
    assert grad_cam(own, pixels(), one, "trunk.one").shape == (2, 16, 16)
    with pytest.raises(PolyfaceError, match="layer names 'trunk.on'; did you mean 'trunk.one'"):
        grad_cam(own, pixels(), one, "trunk.on")


class Inner(nn.Module):
    """A part with an inner map."""

    def __init__(self, reads: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(reads[0].channels, 4, 3, padding=1)
        self.maps = {"": Shape(4), "block1": Shape(4, reads[0].stride)}

    def forward(self, reads: Any) -> dict[str, Tensor]:
        x = self.conv(reads[0]).relu()
        return {"": x.mean((2, 3)), "block1": x}


@pytest.fixture
def inner() -> Any:
    PARTS.add("inner", Inner)
    yield
    PARTS.remove("inner")


def test_a_part_with_maps_of_its_own_is_what_its_tasks_are_explained_by(inner: None) -> None:
    torch.manual_seed(0)
    trunk = {"name": "casia-net", "size": 32, "width": 0.25, "channels": 3, "end": "pool4"}
    parts = {"own": {"kind": "inner"}, "other": {"kind": "inner"}}
    heads = {"gender": {"reads": ["own"], "outputs": 2}, "smile": {"reads": ["other"], "outputs": 2}}
    own = networks.build({"trunk": trunk, "parts": parts, "heads": heads}).eval()
    assert map_before(own, own.graph.heads["smile"]) == map_named(own, "other") == "other.block1"
    assert map_named(own, "trunk") == "trunk.shared"
    one = question(own, GENDER, "gender=male")
    torch.testing.assert_close(grad_cam(own, pixels(), one), grad_cam(own, pixels(), one, "own.block1"))
    with pytest.raises(PolyfaceError, match="layer 'other.block1' is not on the way to gender"):
        grad_cam(own, pixels(), one, "other.block1")


# ------------------------------------------------------------------------------------------------ guided backprop


@pytest.mark.parametrize("rectifier", [name for name, act in RECTIFIERS.items() if name not in ("elu", "silu", "gelu")])
def test_a_rectifier_is_guided_however_it_is_called(small: None, rectifier: str) -> None:
    own, other = network({"gender": 2}), network({"gender": 2}, rectifier=rectifier)
    own.trunk.act = nn.ReLU()
    one = question(own, GENDER, "gender=male")
    expected = guided_backprop(own, pixels(), one)
    assert expected.abs().max() > 0
    torch.testing.assert_close(guided_backprop(other, pixels(), one), expected)


@pytest.mark.parametrize("rectifier", ["module", "elu", "silu", "gelu"])
def test_the_gate_is_the_rectifiers_input_above_0_and_its_slope_counts_where_it_is_open(
    small: None, rectifier: str
) -> None:
    """One 1×1 convolution that passes red on, a rectifier f, the mean, a head of ±1: dy/dx = ±f'(x) / places."""
    own = network({"gender": 2}, widths=(1,), kernel=1, rectifier=rectifier)
    with torch.no_grad():
        conv, head = own.trunk.layers[0], own.heads["gender"]  # type: ignore[index]
        conv.weight.zero_()[0, 0] = 1
        conv.bias.zero_()
        head.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        head.bias.zero_()
    images = pixels(1)
    images[:, 0, ::2] = 20  # below the mean of 127.5: the gate is closed
    up, down = (guided_backprop(own, images, question(own, GENDER, f"gender={word}")) for word in ("male", "female"))
    assert (up[:, 0, ::2] == 0).all()
    assert (down == 0).all()  # a gradient below 0 is not let through
    x = ((images - own.mean) / own.std)[:, :1].requires_grad_()
    (slope,) = torch.autograd.grad(RECTIFIERS[rectifier](x).sum(), x)
    torch.testing.assert_close(up[:, :1], torch.where(x > 0, slope, 0.0) / own.std / 32**2)
    assert (up[:, 1:] == 0).all()


def test_guided_grad_cam_is_their_product(small: None) -> None:
    own = network({"gender": 2})
    one = question(own, GENDER, "gender=male")
    cam = over_picture(grad_cam(own, pixels(), one), 32)
    expected = guided_backprop(own, pixels(), one) * cam[:, None]
    assert expected.abs().max() > 0
    torch.testing.assert_close(guided_grad_cam(own, pixels(), one), expected)


# ------------------------------------------------------------------------------------------------ occlusion


def test_occlusion_by_hand(small: None) -> None:
    """A number that counts bright pixels falls where they are covered, and nowhere else."""
    pytest.importorskip("captum")
    own = network({"gender": 2}, widths=(1,), kernel=1)
    with torch.no_grad():
        own.trunk.layers[0].weight.fill_(1)  # type: ignore[index]
        own.heads["gender"].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, 8:12, 16:20] = 255
    images[1, :, 0:4, 0:4] = 255
    lost = occlusion(own, images, question(own, GENDER, "gender=male"))
    assert lost.shape == (2, 32, 32)
    for one, (top, left) in zip(lost, ((8, 16), (0, 0)), strict=True):
        inside = torch.zeros(32, 32, dtype=torch.bool)
        inside[top : top + 4, left : left + 4] = True
        near = torch.zeros(32, 32, dtype=torch.bool)
        near[max(0, top - 4) : top + 8, max(0, left - 4) : left + 8] = True
        assert (one[inside] > 0).all()
        assert one[inside].mean() > 2 * one[near & ~inside].mean()
        assert (one[~near] <= 0).all()  # black covered by a grey mean


def test_without_captum_there_is_one_line(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    own = network({"gender": 2})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PolyfaceError, match=r"occlusion needs captum, `pip install polyface\[explain\]`"):
        occlusion(own, pixels(), question(own, GENDER, "gender"))


# ------------------------------------------------------------------------------------------------ what is asked


@pytest.mark.parametrize(
    "asked, told",
    [("landmarks=2.y", "landmarks: 2.y"), ("attributes=Male", "attributes: Male"), ("age", "age: years")]
    + [("heading", "heading: value"), ("identity=Bob", "identity: Bob"), ("gender", "gender: ")],
)
def test_every_kind_of_task_has_numbers_to_explain(small: None, asked: str, told: str) -> None:
    own = network({name: task.output_dim for name, task in TASKS.items()})
    one, images = question(own, TASKS, asked), pixels()
    numbers = one.numbers(own(images))
    assert numbers.shape == (2, len(one.names))
    assert one.told(int(one.places(numbers)[0])).startswith(told)
    assert grad_cam(own, images, one).shape == (2, 8, 8)
    assert guided_backprop(own, images, one).abs().max() > 0


def test_where_none_is_named_each_face_is_asked_about_its_own_answer(small: None) -> None:
    own = network({"gender": 2})
    images = pixels(24)
    with torch.no_grad():
        own.heads["gender"].bias -= own(images).outputs["gender"].median(0).values  # type: ignore[operator]
    answered = own(images).outputs["gender"].argmax(1)
    assert len(set(answered.tolist())) == 2
    found = grad_cam(own, images, question(own, GENDER, "gender"))
    for place, word in enumerate(("male", "female")):
        expected = grad_cam(own, images, question(own, GENDER, f"gender={word}"))
        torch.testing.assert_close(found[answered == place], expected[answered == place])


@pytest.mark.parametrize(
    "asked, line",
    [
        ("gendr", "task names 'gendr'; did you mean 'gender'?"),
        ("gender=femal", "task gender names 'femal'; did you mean 'female'?"),
        ("landmarks=5.x", "task landmarks names '5.x'"),
    ],
)
def test_an_unknown_question_is_one_line(small: None, asked: str, line: str) -> None:
    own = network({name: task.output_dim for name, task in TASKS.items()})
    with pytest.raises(PolyfaceError, match=line):
        question(own, TASKS, asked)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_a_match_is_explained_by_how_similar_two_faces_are(small: None, similarity: str) -> None:
    torch.manual_seed(0)
    embeddings = {"match": {"reads": ["trunk"], "similarity": similarity}}
    own = networks.build({"trunk": {"name": "small"}, "heads": {}, "embeddings": embeddings}).eval()
    with pytest.raises(PolyfaceError, match="'match' is an embedding, which two faces are compared by"):
        question(own, {}, "match")
    first, second = pixels(1), pixels(1, seed=1)
    with torch.no_grad():
        one = question(own, {}, "match", own(second).embeddings)
    numbers = one.numbers(own(first))
    assert numbers.shape == (1, 1)
    assert one.numbers(own(second)).item() == pytest.approx(1.0 if similarity == "cosine" else 0.0, abs=1e-5)
    assert numbers.item() < one.numbers(own(second)).item()
    # a face cannot be more similar than to itself: nothing speaks for more
    itself, another = (guided_backprop(own, face, one).abs().max() for face in (second, first))
    assert another > 100 * itself


# ------------------------------------------------------------------------------------------------ any network

TRUNKS: dict[str, dict[str, Any]] = {
    "tcdcn": {"name": "tcdcn"},
    "unshared": {"name": "tcdcn", "filters": "unshared"},
    "tcdcn68": {"name": "tcdcn", "plan": "tcdcn68", "activation": "relu"},
    "casia-net": {"name": "casia-net", "size": 32, "width": 0.25},
    "resnet": {"name": "timm", "model": "resnet10t", "size": 64, "pool": "points", "points": 4},
    "depthwise": {"name": "timm", "model": "mobilenetv3_small_050", "size": 64, "pool": "avg"},
    "silu": {"name": "timm", "model": "efficientnet_lite0", "size": 64, "pool": "avg"},
    "face-resnet": {"name": "face-resnet", "size": 64},
    "inception": {"name": "inception-resnet", "size": 75},
}
TOPS = {"face-resnet": {"kind": "residual"}, "inception": {"kind": "inception", "blocks": 0}}


@pytest.mark.parametrize("trunk", TRUNKS)
def test_any_network_is_explained_and_a_constant_that_is_added_to_the_number_changes_nothing(trunk: str) -> None:
    torch.manual_seed(0)
    part = {"top": TOPS[trunk]} if trunk in TOPS else {}
    heads = {"gender": {"reads": list(part) or ["trunk"], "outputs": 2}}
    own = networks.build({"trunk": TRUNKS[trunk], "parts": part, "heads": heads}).eval()
    images, one = pixels(2, own.size, channels=own.channels), question(own, GENDER, "gender=female")
    methods = [name for name in METHODS if name != "occlusion"]  # which reads no inner map
    before = [METHODS[name](own, images, one, "") for name in methods]
    with torch.no_grad():
        own.heads["gender"].bias[1] += 7  # type: ignore[index]
    for name, heat in zip(methods, before, strict=True):
        assert heat.shape == (2, own.size, own.size)
        assert heat.isfinite().all()
        assert (heat >= 0).all()
        torch.testing.assert_close(METHODS[name](own, images, one, ""), heat, msg=name)
    assert before[methods.index("gradients")].max() > 0


def test_a_constant_changes_nothing_of_occlusion_either(small: None) -> None:
    pytest.importorskip("captum")
    own = network({"gender": 2})
    one = question(own, GENDER, "gender=male")
    before = occlusion(own, pixels(), one)
    with torch.no_grad():
        own.heads["gender"].bias[0] += 1  # type: ignore[index]
    torch.testing.assert_close(occlusion(own, pixels(), one), before, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------ what is left behind


@pytest.mark.parametrize("name", [name for name in METHODS if name != "occlusion"])
def test_an_error_leaves_no_hook_no_mode_and_no_gradient(small: None, name: str) -> None:
    own = network({"gender": 2}).train()

    def fail(said: Any) -> Tensor:
        raise ValueError("broken")

    one = question(own, GENDER, "gender")
    broken = Question("gender", one.names, fail, one.node)
    with pytest.raises(ValueError, match="broken"):
        METHODS[name](own, pixels(), broken, "")
    assert own.training
    assert not own.trunk._forward_hooks
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    torch.relu(x).sum().mul(-1).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, -1]  # a guided rectifier would have stopped it
    METHODS[name](own, pixels(), one, "")
    assert all(parameter.grad is None for parameter in own.parameters())
    assert own.training


def test_modes_come_back_as_they_were(small: None) -> None:
    own = network({"gender": 2}).train()
    own.trunk.eval()
    with torch.no_grad(), asked(own):
        assert not own.training
        assert torch.is_grad_enabled()
    assert (own.training, own.trunk.training) == (True, False)
