"""An ONNX file in 8-bit integers: weights by output channel, activations by the range that they have over faces."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

BATCH = 8
KINDS = ["Conv", "Add", "Relu", "AveragePool", "MaxPool", "Concat"]
"""What is computed in integers: everything between the first convolution and the average over the last map."""


def quantise(source: Path, target: Path, faces: NDArray[Any], name: str) -> None:
    """Write the float32 ONNX file `source` in integers as `target`, calibrated on faces [N, C, S, S], its input `name`.

    Ranges are from the smallest to the largest value over the faces (Jacob et al. 2018, with the whole range and one
    scale for each output channel of a convolution).
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(target),
            _reader(faces, name),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=KINDS,
        )


def _reader(faces: NDArray[Any], name: str) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # no types
        def __init__(self) -> None:
            self.batches = iter([{name: faces[start : start + BATCH]} for start in range(0, len(faces), BATCH)])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.batches, None)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantiser logs to the root logger what it passes over and what it advises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
