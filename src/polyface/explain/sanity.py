"""Whether a map depends on what the network has learnt: the randomisation check (Adebayo et al. 2018).

Weights are made random one layer after another, from the answer down to the picture. A map that explains the trained
network must change with them: its rank correlation with the trained network's map falls.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from torch import Tensor, nn

from polyface.explain.maps import METHODS
from polyface.explain.questions import Question
from polyface.metrics.resampling import Floats
from polyface.networks.network import FaceNetwork

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the layers, from the answer down, whose weights are random; at 0 the layer of the answer alone."""
DRAWS = 3
LIMIT = 0.5
"""The mean rank correlation that a map must fall below once half of the layers are random."""


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's, of two maps; 0 where one of them is the same everywhere, and so has no order in common with any."""
    first, second = (rankdata(np.asarray(one).ravel()) for one in (a, b))
    first, second = first - first.mean(), second - second.mean()
    length = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / length if length else 0.0


def layers_of(network: FaceNetwork, question: Question) -> list[nn.Module]:
    """The layers with weights on the way from the picture to an answer, in the order in which the network has them."""
    nodes = network.graph.needed([question.node])
    kept = [getattr(network, one.kept_in)[one.name] for one in nodes if one.kept_in != "embeddings"]
    every = [layer for owner in (network.trunk, *kept) for layer in owner.modules()]
    return [layer for layer in every if next(layer.parameters(recurse=False), None) is not None]


@torch.no_grad()
def randomise(layers: Sequence[nn.Module], seed: int = 0) -> None:
    """Bring the entries of every weight of these layers into a random order, in place: what they have learnt is gone,
    and how large they are is kept, so that maps neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        for weight in layer.parameters(recurse=False):
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))


@torch.no_grad()
def randomised(
    network: FaceNetwork, images: Tensor, question: Question, method: str, layer: str = "", draws: int = DRAWS
) -> Floats:
    """How alike the maps of B pictures are to those that the same method gives, of the same question, after shares of
    the layers were randomised from the answer down: rank correlations [len(SHARES), B], the mean of several draws of
    random weights, since one alone may be alike by chance."""
    explain, trained = METHODS[method], copy.deepcopy(network).eval()
    question = question.settled(question.numbers(trained(images)))
    learnt = explain(trained, images, question, layer).cpu().numpy()
    found = np.zeros((len(SHARES), len(images)))
    for draw in range(draws):
        own, done = copy.deepcopy(trained), 0
        todo = layers_of(own, question)[::-1]
        for place, share in enumerate(SHARES):
            until = max(1, round(share * len(todo)))
            randomise(todo[done:until], draw * len(todo) + done)
            done = until
            maps = explain(own, images, question, layer).cpu().numpy()
            found[place] += [rank_correlation(a, b) for a, b in zip(learnt, maps, strict=True)]
    return found / draws


def passes(correlations: ArrayLike) -> bool:
    """Whether a method's maps changed, by correlations [len(SHARES), faces]: their mean stays below `LIMIT` from the
    half of the layers on. (Of the whole network random alone, the layers next to the picture would decide.)"""
    means = np.asarray(correlations, dtype=np.float64).mean(1)
    return bool((means[np.array(SHARES) >= 0.5] < LIMIT).all())
