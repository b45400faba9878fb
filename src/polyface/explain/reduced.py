"""Recognition by a vector of which dimensions were taken out (Yin & Liu 2018, Fig. 5c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from polyface.data.loader import FacePool
from polyface.data.table import Progress
from polyface.explain.energy import Indices, directions, without
from polyface.explain.weights import LinearHead
from polyface.metrics.resampling import Floats
from polyface.metrics.result import Result
from polyface.models.bundle import Bundle
from polyface.models.predict import predict
from polyface.networks.network import build
from polyface.protocols.base import Protocol

_READ = "reads"  # what no part of a network can be called


def vectors(
    bundle: Bundle, head: LinearHead, pool: FacePool, *, device: str = "cpu", progress: Progress | None = None
) -> Floats:
    """What a head reads of all faces of a pool, x [N, D]: the answers of the same network with it as an embedding."""
    asked = {"reads": list(head.reads), "merge": head.merge, "similarity": "euclidean"}  # as it is
    config = bundle.network.config
    network = build(config | {"embeddings": {**config.get("embeddings", {}), _READ: asked}})
    network.load_state_dict(bundle.network.state_dict())
    found = predict(network, {}, pool, device=device, progress=progress)
    return np.asarray(found[_READ]["embedding"], dtype=np.float64)


def results_without(
    x: ArrayLike, order: Indices, share: float, protocol: Protocol, cases: Any, head: LinearHead | None = None
) -> Mapping[str, Result]:
    """The results of a protocol where faces are compared by the cosine of what is left of x [N, D] without the first
    dimensions of an order (see `removal_orders`), so large a share of them.

    head: compare its outputs of what is left instead, such as the logits W_dᵀ·mask(x) + b of an identity task. They
    need x itself; where x is compared, its length is of no account.
    """
    left = without(x, order, share)
    compared = directions(left if head is None else head(left))
    key = "embedding" if compared.any(1).all() else "inner"  # a vector of which nothing is left has no length 1
    return protocol.evaluate({_READ: {key: compared}}, cases)


def figures_without(
    x: ArrayLike,
    orders: Mapping[str, Sequence[Indices]],
    shares: Sequence[float],
    protocol: Protocol,
    cases: Any,
    head: LinearHead | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Floats]]:
    """The first figure of each of those results, over shares: {metric: {what is taken out: [draws, shares]}}."""
    found: dict[str, dict[str, Floats]] = {}
    places = range(len(shares))
    todo = [(kind, draw, place) for kind, drawn in orders.items() for draw in range(len(drawn)) for place in places]
    for done, (kind, draw, place) in enumerate(todo, 1):
        results = results_without(x, orders[kind][draw], shares[place], protocol, cases, head)
        for prefix, result in results.items():
            metric = result.metrics[0]
            of_metric = found.setdefault(prefix + metric.name, {})
            figures = of_metric.setdefault(kind, np.full((len(orders[kind]), len(shares)), np.nan))
            figures[draw, place] = result.figure(metric)
        if progress:
            progress(done, len(todo), "reduced vectors compared" + (" by outputs" if head else ""))
    return found
