"""Where in its picture a network looks: Grad-CAM, guided backprop, guided Grad-CAM and occlusion.

All are of one number (`questions.Question`): of a class its logit, before the softmax, so that a constant that is added
to it changes nothing. Pictures are what the network sees, [B, C, S, S] in 0…255. `METHODS` gives each as one map
[B, S, S], 0 or more, over the picture.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from polyface.errors import PolyfaceError
from polyface.explain.layers import asked, caught, map_before, map_named
from polyface.explain.questions import Question
from polyface.networks.network import FaceNetwork

NEEDS = "occlusion needs captum, `pip install polyface[explain]`"
_WINDOWS, _OVERLAP, _AT_ONCE = 8, 2, 16
"""Occlusion: windows a side of the picture, how often each pixel is covered a side, how many pictures at once."""


def grad_cam(network: FaceNetwork, images: Tensor, question: Question, layer: str = "") -> Tensor:
    """ReLU(Σ α_c A_c) [B, h, w] of a map A [B, C, h, w], α_c the spatial mean of the number's gradient by A_c.

    Source: Selvaraju et al. 2017, Eq. 1 and 2.

    layer: a name of `layers.map_named`; by default the last map on the way to what is asked.

    Raises:
        PolyfaceError: no such map, or one that the number does not depend on.
    """
    name = map_named(network, layer) if layer else map_before(network, question.node)
    with asked(network), caught(network, name) as found:
        number = _number(network, images.detach().float().requires_grad_(), question)
        (gradient,) = torch.autograd.grad(number.sum(), found[name], allow_unused=True)
        if gradient is None:
            raise PolyfaceError(f"layer '{name}' is not on the way to {question.task}: name another one")
        weights = gradient.mean((2, 3), keepdim=True)
        return (weights * found[name]).sum(1).relu().detach().float()


def guided_backprop(network: FaceNetwork, images: Tensor, question: Question) -> Tensor:
    """The number's gradient by the pixels [B, C, S, S], which at every rectifier lets through only what is positive,
    and only where the rectifier's input is (Springenberg et al. 2015).

    The paper has ReLU alone. ELU, SiLU, GELU and other rectifiers that are smooth or leak below 0 are gated alike, by
    input > 0; where that gate is open, their own slope counts. A network without rectifiers, such as one of |tanh|, has
    its plain gradient.
    """
    with asked(network):
        pixels = images.detach().float().requires_grad_()
        with _Guided():
            number = _number(network, pixels, question)
        (gradient,) = torch.autograd.grad(number.sum(), pixels)
        return gradient


def guided_grad_cam(network: FaceNetwork, images: Tensor, question: Question, layer: str = "") -> Tensor:
    """Guided backprop [B, C, S, S] times Grad-CAM, brought to the picture's size by bilinear interpolation."""
    cam = over_picture(grad_cam(network, images, question, layer), images.shape[-1])
    return guided_backprop(network, images, question) * cam[:, None]


def occlusion(network: FaceNetwork, images: Tensor, question: Question) -> Tensor:
    """By how much the number falls where a square of the picture is covered with the picture's mean colour, [B, S, S]:
    the mean over the squares that cover a pixel (Zeiler & Fergus 2014). Needs no gradient; needs captum."""
    if importlib.util.find_spec("captum") is None:
        raise PolyfaceError(NEEDS)
    from captum.attr import Occlusion

    images = images.detach().float()
    channels, side = images.shape[1], images.shape[-1]
    stride = max(1, side // (_WINDOWS * _OVERLAP))
    with asked(network), torch.no_grad():

        def numbers(pixels: Tensor) -> Tensor:
            return question.numbers(network(pixels))

        lost: Tensor = Occlusion(numbers).attribute(
            images,
            sliding_window_shapes=(channels, _OVERLAP * stride, _OVERLAP * stride),
            strides=(channels, stride, stride),
            baselines=images.mean((2, 3), keepdim=True).expand_as(images),
            target=question.places(numbers(images)),
            perturbations_per_eval=max(1, _AT_ONCE // len(images)),
        )
    return lost[:, 0]


def over_picture(maps: Tensor, side: int) -> Tensor:
    """Maps [B, h, w] brought to [B, side, side] by bilinear interpolation."""
    return F.interpolate(maps[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]


def _number(network: FaceNetwork, pixels: Tensor, question: Question) -> Tensor:
    """The number of each face that is asked for, [B]."""
    numbers = question.numbers(network(pixels))
    return numbers.gather(1, question.places(numbers)[:, None])[:, 0]


# ------------------------------------------------------------------------------------------------ rectifiers

_NAMES = ("relu", "relu6", "elu", "celu", "selu", "silu", "gelu", "mish", "hardswish", "leaky_relu", "rrelu", "prelu")
_RECTIFIERS = {
    function
    for room in (torch, Tensor, F)
    for name in _NAMES
    for function in (getattr(room, name, None), getattr(room, f"{name}_", None))
    if function is not None
}


class _Guided(TorchFunctionMode):
    """While this lasts, gradients of rectifiers are guided, be they modules or called as functions, in place or not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _RECTIFIERS:
            return func(*args, **(kwargs or {}))
        taken = args[0] if args else kwargs["input"]
        is_open = taken.detach() > 0  # before it may be changed in place
        given = func(*args, **(kwargs or {}))
        if given.requires_grad:
            given.register_hook(lambda gradient: gradient.clamp(min=0) * is_open)
        return given


# ------------------------------------------------------------------------------------------------ methods by name


def _cam(network: FaceNetwork, images: Tensor, question: Question, layer: str) -> Tensor:
    return over_picture(grad_cam(network, images, question, layer), images.shape[-1])


def _gradients(network: FaceNetwork, images: Tensor, question: Question, layer: str) -> Tensor:
    return guided_backprop(network, images, question).abs().sum(1)


def _guided_cam(network: FaceNetwork, images: Tensor, question: Question, layer: str) -> Tensor:
    return guided_grad_cam(network, images, question, layer).abs().sum(1)


def _occlusion(network: FaceNetwork, images: Tensor, question: Question, layer: str) -> Tensor:
    return occlusion(network, images, question).relu()


Method = Callable[[FaceNetwork, Tensor, Question, str], Tensor]
METHODS: dict[str, Method] = {
    "cam": _cam,
    "gradients": _gradients,
    "guided-cam": _guided_cam,
    "occlusion": _occlusion,
}
"""Called with a network, pictures [B, C, S, S], what is asked and the layer's name ("": the default): [B, S, S], what
speaks for the number: its gradient's size, or how much is lost without a place."""
TITLES = {
    "cam": "Grad-CAM",
    "gradients": "guided backprop",
    "guided-cam": "guided Grad-CAM",
    "occlusion": "occlusion",
}
