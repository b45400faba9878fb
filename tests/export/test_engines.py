"""Exported files beyond the default: OpenCV's engine, older operator sets, float16, files in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from polyface.cli import app
from polyface.errors import PolyfaceError
from polyface.export.onnx import TOLERANCES, export_onnx
from polyface.models.bundle import Bundle

Make = Callable[..., Bundle]
Exported = Callable[..., Path]
POINTS = {"name": "timm", "model": "test_resnet", "size": 64, "pool": "points", "shared": 16, "points": 8}


def images_of(bundle: Bundle, batch: int) -> np.ndarray:
    shape = (batch, bundle.network.channels, bundle.network.size, bundle.network.size)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def expected(bundle: Bundle, images: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        return [each.numpy() for each in bundle.network.eval()(torch.from_numpy(images)).outputs.values()]


@pytest.mark.parametrize("trunk", [POINTS, POINTS | {"pool": "avg"}, {"name": "tcdcn"}])
def test_opencv_reads_it_and_answers_alike(make: Make, exported: Exported, trunk: dict[str, object]) -> None:
    cv2 = pytest.importorskip("cv2")
    bundle = make(trunk=trunk)
    images = images_of(bundle, 1)
    network = cv2.dnn.readNetFromONNX(str(exported(bundle)))
    network.setInput(images, "images")
    for found, wanted in zip(network.forward(list(bundle.tasks)), expected(bundle, images), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_positions_are_products_with_matrices(make: Make, exported: Exported) -> None:
    """A product with a vector of one dimension is what other engines do not read."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(exported(make(trunk=POINTS)))).graph
    known = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    known |= {value.name: len(value.dims) for value in graph.initializer}
    factors = [known[name] for node in graph.node if node.op_type == "MatMul" for name in node.input]
    assert len(factors) >= 4
    assert min(factors) >= 2


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_the_operator_set_is_the_one_asked_for(five: Bundle, exported: Exported, opset: int) -> None:
    path = exported(five, opset=opset)
    assert {entry.domain: entry.version for entry in onnx.load(path).opset_import}[""] == opset
    for batch in (1, 3):
        images = images_of(five, batch)
        found = onnxruntime.InferenceSession(str(path)).run(None, {"images": images})
        for one, other in zip(found, expected(five, images), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_float16_is_half_as_large_and_answers_nearly_alike(five: Bundle, exported: Exported, tmp_path: Path) -> None:
    whole, half = exported(five), tmp_path / "half.onnx"
    worst = export_onnx(five, half, precision="float16")
    assert 1e-6 < worst <= TOLERANCES["float16"]
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    session, images = onnxruntime.InferenceSession(str(half)), images_of(five, 3)
    assert {value.type for value in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float)"}
    assert {value.data_type for value in onnx.load(half).graph.initializer if value.dims} >= {onnx.TensorProto.FLOAT16}
    for one, other in zip(session.run(None, {"images": images}), expected(five, images), strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCES["float16"])


def test_wrong_precisions(five: Bundle, tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match="precision is 'half', expected float32 or float16"):
        export_onnx(five, tmp_path / "m.onnx", precision="half")  # type: ignore[arg-type]
    with pytest.raises(PolyfaceError, match="int8 and precision float16 exclude each other"):
        export_onnx(five, tmp_path / "m.onnx", precision="float16", int8=images_of(five, 2))
    assert not list(tmp_path.iterdir())


def test_a_file_of_others_is_never_replaced(five: Bundle, tmp_path: Path, saved: Path) -> None:
    letter, link = tmp_path / "letter.onnx", tmp_path / "link.onnx"
    letter.write_text("mine")
    link.symlink_to(letter)
    for path in (letter, link):
        said = CliRunner().invoke(app, ["export", str(saved), str(path)])
        assert isinstance(said.exception, PolyfaceError)
        assert "was not made by Polyface" in str(said.exception)
        assert letter.read_text() == "mine"
    command = ["export", str(saved), str(letter), "--overwrite", "--opset", "17", "--precision", "float16"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert onnx.load(letter).opset_import[0].version == 17
    export_onnx(five, letter)  # its own file may be
