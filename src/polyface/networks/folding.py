"""A trained network made smaller and quicker for inference: one embedding alone, batch norms folded, bfloat16."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from polyface.errors import PolyfaceError, nearest
from polyface.networks.graph import Graph
from polyface.networks.network import FaceNetwork
from polyface.networks.trunks.face_resnet import Unit


def chosen_embedding(network: FaceNetwork, given: str | None, model: str) -> str:
    """The name of the embedding to take: the given one, else the only one, or of several that called "verification",
    which is trained on photos and caricatures alike. model: what the model is called in errors.

    Raises:
        PolyfaceError: an unknown embedding, or a network without one.
    """
    known = network.embeddings
    if not known:
        raise PolyfaceError(f"{model}: its network has no embedding; take a model that was trained to recognise")
    chosen = given or (next(iter(known)) if len(known) == 1 else "verification")
    if chosen not in known:
        raise PolyfaceError(f"{model}: no embedding is called '{chosen}'; {nearest(chosen, known)}")
    return chosen


def embedding_only(network: FaceNetwork, name: str) -> FaceNetwork:
    """A copy with one embedding and the parts that it needs; of the heads only those by whose answers parts are routed.
    The embedding is the same."""
    own = copy.deepcopy(network)
    needed = {node.where for node in network.graph.needed([network.graph.embeddings[name]])}
    for key in {"branches", "parts", "heads", "embeddings"} & set(own.config):
        named = own.config[key].items()
        own.config[key] = {one: given for one, given in named if f"network.{key}.{one}" in needed}
    for part, options in (own.config.get("branches", {}) | own.config.get("parts", {})).items():
        if part != name:
            options.pop("similarity", None)
    own.config["cosine"] = [task for task in own.config.get("cosine", ()) if task in own.config["heads"]]
    own.graph = Graph(own.config)
    for room in ("branches", "heads"):
        kept = [node.name for node in own.graph.order if node.kept_in == room]
        setattr(own, room, nn.ModuleDict({one: getattr(own, room)[one] for one in kept}))
    own.embeddings = {name: own.embeddings[name]}
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
    convert. Heads are computed in float32 and stay so."""
    own = copy.deepcopy(network)
    for module in (*own.trunk.modules(), *own.branches.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)
    return own
