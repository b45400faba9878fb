"""A trained network cut down for inference: to the embedding that is asked for, and to fewer operations."""

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


def embedding_only(network: FaceNetwork, name: str) -> FaceNetwork:
    """A copy with that embedding and what it is computed from alone: no heads but those that route its parts."""
    own = copy.deepcopy(network)
    needed = network.graph.needed([network.graph.embeddings[name]])
    parts = [node.name for node in needed if node.kept_in == "branches"]
    heads = [node.name for node in needed if node.kept_in == "heads"]
    config = own.config = dict(network.config)
    for key in {"branches", "parts"} & set(config):
        config[key] = {part: dict(config[key][part]) for part in parts if part in config[key]}
        for part in set(config[key]) - {name}:
            config[key][part].pop("similarity", None)
    config["heads"] = {head: config["heads"][head] for head in heads}
    config["cosine"] = [head for head in config.get("cosine", ()) if head in heads]
    if "embeddings" in config:
        config["embeddings"] = {one: given for one, given in config["embeddings"].items() if one == name}
    own.graph = Graph(config)
    own.branches = nn.ModuleDict({part: own.branches[part] for part in parts})
    own.heads = nn.ModuleDict({head: own.heads[head] for head in heads})
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
