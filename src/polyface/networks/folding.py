"""A trained network cut down for inference: to the embedding that is asked for, and to fewer operations."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from polyface.errors import PolyfaceError, nearest
from polyface.networks.network import FaceNetwork
from polyface.networks.trunks.face_resnet import Unit


def chosen_branch(network: FaceNetwork, branch: str | None, name: str) -> str:
    """The branch whose embedding is taken: the given one, else the only one, or of several that called "verification",
    which is trained on photos and caricatures alike.

    Raises:
        PolyfaceError: an unknown branch, or a network without an embedding; `name` is what the model is called.
    """
    known = network.embeddings
    if not known:
        raise PolyfaceError(f"{name}: its network has no embedding; take a model that was trained to recognise")
    chosen = branch or (next(iter(known)) if len(known) == 1 else "verification")
    if chosen not in known:
        raise PolyfaceError(f"{name}: no embedding is called '{chosen}'; {nearest(chosen, known)}")
    return chosen


def embedding_only(network: FaceNetwork, branch: str) -> FaceNetwork:
    """A copy without heads and other branches; its answers are the same embedding."""
    own = copy.deepcopy(network)
    own.config |= {"branches": {branch: own.config["branches"][branch]}, "heads": {}, "cosine": []}
    own.heads, own.branches = nn.ModuleDict(), nn.ModuleDict({branch: own.branches[branch]})
    own.embeddings = {branch: own.embeddings[branch]}
    return own


def folded(network: FaceNetwork) -> FaceNetwork:
    """A copy, in evaluation mode, whose batch norms are part of the convolutions before them.

    The answers are the same but for rounding, and it cannot be trained any more. A batch norm counts as "after" a
    convolution where the code says so: in an `nn.Sequential` or a `Unit`; others (of timm models) stay.
    """
    own = copy.deepcopy(network).eval()
    for module in [module for module in own.modules() if isinstance(module, nn.Sequential | Unit)]:
        for (before, convolution), (after, norm) in pairwise(list(module.named_children())):
            if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
                setattr(module, before, fuse_conv_bn_eval(convolution, norm))
                setattr(module, after, nn.Identity())
    return own.to(memory_format=torch.channels_last)


def in_bfloat16(network: FaceNetwork) -> FaceNetwork:
    """A copy whose convolutions and linear layers hold bfloat16: to be run under autocast, which then has no weights to
    convert. Without heads: these are computed in float32."""
    own = copy.deepcopy(network)
    for module in own.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)
    return own
