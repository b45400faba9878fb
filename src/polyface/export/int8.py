"""An ONNX file in 8-bit integers: weights by output channel, activations by the range that they have over faces."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
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

    batches = ({name: faces[start : start + BATCH]} for start in range(0, len(faces), BATCH))
    reader = SimpleNamespace(get_next=lambda: next(batches, None))  # as a CalibrationDataReader
    with tempfile.TemporaryDirectory() as folder, quiet():
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(target),
            reader,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=KINDS,
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Exporter and quantiser tell their progress, advice and own deprecations, which are not the user's to mend."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
