"""Recognition without some dimensions, of a network of which it is known what each dimension holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from columns import IDENTITY, PEOPLE, POSE, bundle, faces

from polyface import protocols
from polyface.data.boxes import boxes_of
from polyface.data.loader import FacePool
from polyface.errors import PolyfaceError
from polyface.explain.energy import CommonHeads, common_heads, removal_orders
from polyface.explain.reduced import figures_without, results_without, vectors
from polyface.metrics.result import rows
from polyface.models.bundle import Bundle
from polyface.models.predict import predict
from polyface.protocols.base import EvaluationSet

pytestmark = pytest.mark.usefixtures("columns")
SHARES = (0.0, 0.25, 0.5)
Made = tuple[Bundle, FacePool, CommonHeads]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    model = bundle()
    table = faces(tmp_path / "faces.parquet")
    pool = FacePool([(table, boxes_of(table, model.boxes), 1.0)], model.crop, {})
    return model, pool, common_heads(model.network)


def searched(pool: FacePool, model: Bundle, **options: Any) -> tuple[Any, Any]:
    chosen = protocols.build({"name": "gallery-probe", "draws": 4} | options)
    return chosen, chosen.cases(EvaluationSet(pool.table, tasks=model.tasks))


def test_x_is_what_the_heads_read(made: Made) -> None:
    """Column by column as it was painted, blurred where columns meet; of x each head makes the network's outputs."""
    model, pool, heads = made
    x = vectors(model, heads.first, pool)
    assert x[7] == pytest.approx(np.array([100, -100, -100, 100, -20, 40, -20, -20]) / 128, abs=0.25)
    answers = predict(model.network, model.tasks, pool)
    for name, head in heads.heads.items():
        logits = torch.from_numpy(head(x))
        np.testing.assert_allclose(logits.softmax(1), answers[name]["probabilities"], atol=1e-6)


def test_energies_show_which_dimensions_a_head_reads(made: Made) -> None:
    energies = made[2].energies()
    assert [np.flatnonzero(energy).tolist() for energy in energies.values()] == [list(IDENTITY), list(POSE)]


@pytest.mark.parametrize("outputs", [False, True])
def test_side_dimensions_cost_nothing_and_identity_dimensions_all(made: Made, outputs: bool) -> None:
    """Of eight people in galleries of one face each, chance finds one in eight."""
    model, pool, heads = made
    chosen, cases = searched(pool, model)
    orders = removal_orders(heads.energies(), "identity", draws=2)
    x = vectors(model, heads.first, pool)
    head = heads.first if outputs else None
    found = figures_without(x, orders, SHARES, chosen, cases, head)["rank-1"]
    assert found["side-task"].tolist() == [[100, 100, 100]]
    assert found["least identity"].tolist() == [[100, 100, 100]]
    assert found["identity"][0, 0] == 100
    assert found["identity"][0, 2] < 20
    assert (found["random"].shape, found["random"][:, 0].tolist()) == ((2, 3), [100, 100])


def test_without_nothing_is_as_it_was(made: Made) -> None:
    """The result of x as it is, which the same protocol gives of a network's own embedding, with rows and intervals."""
    model, pool, heads = made
    chosen, cases = searched(pool, model, over="people", tasks=["pose"], groups={"turned": {"pose": ["left", "right"]}})
    x = vectors(model, heads.first, pool)
    plain = x / np.linalg.norm(x, axis=1, keepdims=True)
    order = removal_orders(heads.energies(), "identity")["side-task"][0]
    ours = results_without(x, order, 0, chosen, cases)
    theirs = chosen.evaluate({"x": {"embedding": plain}}, cases)
    first, second = (rows("a", {0: found[""]}, resamples=50) for found in (ours, theirs))
    assert [(row.metric, row.mean, row.interval) for row in first] == [(r.metric, r.mean, r.interval) for r in second]
    assert {"rank-1", "rank-1 turned"} <= {row.metric for row in first}


def test_faces_of_which_nothing_is_left_are_found_by_nobody(made: Made) -> None:
    """Without the dimensions in which its faces differ from 0, a network that is all alike finds no one."""
    model, pool, heads = made
    chosen, cases = searched(pool, model)
    x = vectors(model, heads.first, pool)
    x[:, 4:] = 0
    order = removal_orders(heads.energies(), "identity")["identity"][0]
    (result,) = results_without(x, order, 0.5, chosen, cases).values()
    assert result.figure(result.metrics[0]) == 0
    with pytest.raises(PolyfaceError, match="all 8 dimensions would be taken out"):
        results_without(x, order, 1.0, chosen, cases)


def test_a_bundle_is_left_as_it_is(made: Made) -> None:
    model, pool, heads = made
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    config = dict(model.network.config)
    vectors(model, heads.first, pool)
    assert model.network.config == config
    assert not model.network.embeddings
    assert all(torch.equal(before[name], tensor) for name, tensor in model.network.state_dict().items())
    assert len(pool) == 6 * len(PEOPLE)
