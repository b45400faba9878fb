"""ONNX files of models to which a task was added: the earlier answers are those of the model's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from polyface import tasks as task_kinds
from polyface.export.onnx import export_onnx
from polyface.models.bundle import Bundle, load_bundle
from polyface.networks import build
from polyface.networks.growing import grown

from ..toys import Make

TRUNKS: dict[str, tuple[dict[str, Any], str]] = {
    "convolutions": ({"name": "tcdcn"}, "trunk.conv4"),
    "unshared": ({"name": "tcdcn", "filters": "unshared"}, "trunk.conv3"),
    "timm": ({"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "points"}, "trunk.stage4"),
}
MARKS = {"unshared": pytest.mark.slow}
COLUMN = {"kind": "column", "blocks": 2, "widths": [4, 6], "convs_per_group": 1, "width": 8}


def extended(old: Bundle, first: str) -> Bundle:
    """A column for gender, and one for glasses that reads it, beside what the model has."""
    parts = {"gender": COLUMN | {"reads": [first]}, "glasses": COLUMN | {"reads": [first, "gender"]}}
    network = build(grown(old.network.config, {"parts": parts, "heads": {name: {name: [0, 1]} for name in parts}}))
    network.load_state_dict(network.state_dict() | old.network.state_dict())
    new = {name: task_kinds.build(name, {"kind": "classification", "column": name}) for name in parts}
    return Bundle(network, old.tasks | new, old.crop, old.boxes, dict(old.about))


def answers(path: Path, images: np.ndarray, optimised: bool) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


@pytest.mark.parametrize(
    "trunk, first", [pytest.param(*each, marks=MARKS.get(name, ()), id=name) for name, each in TRUNKS.items()]
)
def test_earlier_answers_are_those_of_the_models_own_file(
    make: Make, tmp_path: Path, trunk: dict[str, Any], first: str
) -> None:
    """Bit for bit in PyTorch and with onnxruntime's optimisations off, to 1e-6 of the largest with them."""
    old = make(trunk=trunk)
    old.network.eval()
    new = load_bundle(extended(old, first).save(tmp_path / "grown"))
    for bundle, name in ((old, "old.onnx"), (new, "new.onnx")):
        assert export_onnx(bundle, tmp_path / name) <= 1e-4
    images = (torch.rand(4, 1, 40, 40, generator=torch.Generator().manual_seed(0)) * 255).numpy()
    with torch.inference_mode():
        eager = [bundle.network(torch.from_numpy(images)).outputs for bundle in (old, new)]
    assert [*eager[1]] == [*eager[0], "gender", "glasses"]
    assert all(torch.equal(value, eager[1][name]) for name, value in eager[0].items())
    for optimised in (False, True):
        before, after = (answers(tmp_path / name, images, optimised) for name in ("old.onnx", "new.onnx"))
        assert [*after] == [*before, "gender", "glasses"]
        for name, values in before.items():
            if optimised:
                np.testing.assert_allclose(after[name], values, rtol=0, atol=1e-6 * np.abs(values).max())
            else:
                np.testing.assert_array_equal(after[name], values)
