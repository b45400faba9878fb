"""A bundle's network as one ONNX file, checked against PyTorch before it is put in place."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.export.int8 import quantise, quiet
from polyface.files import atomic_path, check_output
from polyface.models.bundle import Bundle
from polyface.networks.folding import chosen_embedding, embedding_only
from polyface.networks.layers import AbsTanh, LocallyConnected2d, from_locations, to_locations
from polyface.networks.network import FaceNetwork
from polyface.networks.trunks.face_resnet import ResidualBlock
from polyface.networks.trunks.tcdcn import TCDCN
from polyface.networks.trunks.timm_trunk import SpatialPoints

INPUT = "images"
TOLERANCE = 1e-4
TOLERANCES = {"float32": TOLERANCE, "float16": 2e-2}
"""The largest difference from PyTorch's answers, by precision."""
LEAST_COSINE = 0.99
OPSETS = range(13, 24)


def export_onnx(
    bundle: Bundle,
    path: Path | str,
    *,
    input: Literal["float32", "uint8"] = "float32",
    opset: int = 18,
    precision: Literal["float32", "float16"] = "float32",
    branch: str | None = None,
    int8: NDArray[Any] | None = None,
    overwrite: bool = False,
) -> float:
    """Write the bundle's network as ONNX, whole or not at all; returns the largest difference from PyTorch's answers.

    Its input `images` is [batch, channels, size, size] of pixel values 0…255 (normalisation is inside); its outputs
    carry the tasks' names, [batch, output_dim] each, as the network's heads give them: points in units of the crop,
    logits of classes. An embedding is the output `embedding/<name>`, [batch, dim], ready to be compared. Any batch
    size. The file's metadata `polyface` holds, as JSON, the tasks with their vocabularies, the embeddings with their
    length and similarity, the crop, and `about` of the bundle. Routed parts see every face, and are merged by the
    network's answers.

    input: type of the pixels. opset: ONNX operator set, 13 to 23; older engines want an older one. precision: of the
    weights and of what is computed, float16 for half the file; inputs and outputs are as ever. branch: only this
    embedding, without heads but those that route its parts. int8: faces [N, C, S, S] as the network sees them, pixel
    values 0…255, by which the convolutions become ones of 8-bit integers: about twice as quick where the processor has
    instructions for them (x86 with VNNI). A hundred faces like those to be embedded are enough. Only of an embedding,
    by default the one that `BundleEmbedder` takes. overwrite: replace a file that Polyface did not make.

    Raises:
        PolyfaceError: onnx, onnxscript or onnxruntime is missing; the network cannot be exported, or has no such
            branch; onnxruntime's answers differ from PyTorch's by more than 1e-4 (float16: 0.02), or with `int8` the
            cosine of both embeddings of a face is below 0.99 (no file is left then); a file is there that is not
            Polyface's.
    """
    check_output(path, overwrite)
    _require_extras()
    if input not in ("float32", "uint8"):
        raise PolyfaceError(f"export: input is '{input}', expected float32 or uint8")
    if opset not in OPSETS:
        raise PolyfaceError(f"export: opset is {opset}, expected {OPSETS[0]} to {OPSETS[-1]}")
    if precision not in TOLERANCES:
        raise PolyfaceError(f"export: precision is '{precision}', expected float32 or float16")
    if int8 is not None and precision != "float32":
        raise PolyfaceError(f"export: int8 and precision {precision} exclude each other: take one of them")
    path = Path(path)
    network = copy.deepcopy(bundle.network).cpu().float().eval()
    if branch is not None or int8 is not None:
        network = embedding_only(network, chosen_embedding(network, branch, str(bundle.about.get("name") or "model")))
    faces = None if int8 is None else _calibration(network, int8, input)
    with atomic_path(path) as aside:
        _write(network, aside, input, opset)
        if precision == "float16":
            _halve(aside)
        worst = parity(network, aside)
        if not worst <= TOLERANCES[precision]:
            raise PolyfaceError(
                f"{path}: not written: onnxruntime's answers differ from PyTorch's by {worst:.2g}, more than "
                f"{TOLERANCES[precision]:g}; try another opset or precision, or another version of onnxruntime"
            )
        if faces is not None:
            quantise(aside, aside, faces, INPUT)
            worst, cosine = _agreement(network, aside, faces)
            if not cosine >= LEAST_COSINE:
                raise PolyfaceError(
                    f"{path}: not written: with 8-bit integers the embedding of a face is at a cosine of {cosine:.3f} "
                    f"from PyTorch's, below {LEAST_COSINE:g}; give more faces to calibrate, or export without int8"
                )
        _describe(aside, bundle, network, input)
    return worst


def _describe(path: Path, bundle: Bundle, network: FaceNetwork, input: str) -> None:
    """Put into an ONNX file's metadata what it is."""
    import onnx

    metadata = {
        "tasks": {name: task.config() for name, task in bundle.tasks.items() if name in network.heads},
        "embeddings": {name: asdict(embedding) for name, embedding in network.embeddings.items()},
        "crop": bundle.crop.model_dump(),
        "about": bundle.about,
        "input": input,
    }
    model = onnx.load(path)
    model.producer_name = "polyface"
    onnx.helper.set_model_props(model, {"polyface": json.dumps(metadata, ensure_ascii=False)})
    onnx.save(model, path)


def _calibration(network: FaceNetwork, faces: NDArray[Any], input: str) -> NDArray[Any]:
    """The faces, checked, in the input's type."""
    wanted = (network.channels, network.size, network.size)
    if faces.ndim != 4 or faces.shape[1:] != wanted or not len(faces):
        raise PolyfaceError(f"export: int8 is {list(faces.shape)}; expected faces [N, {', '.join(map(str, wanted))}]")
    return (np.rint(faces).clip(0, 255) if input == "uint8" else faces).astype(input)


def _outputs(network: FaceNetwork) -> list[str]:
    """The names of all outputs, in their order."""
    return [*network.heads, *(f"embedding/{name}" for name in network.embeddings)]


def _answers(network: FaceNetwork, images: Tensor) -> tuple[Tensor, ...]:
    found = network(images)
    return (*found.outputs.values(), *found.embeddings.values())


def _session(path: Path | str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def _agreement(network: FaceNetwork, path: Path | str, faces: NDArray[Any]) -> tuple[float, float]:
    """The largest difference, and the smallest cosine, of the embedding that an ONNX file and the network give."""
    session, worst, least = _session(path), 0.0, 1.0
    for start in range(0, len(faces), 32):
        some = faces[start : start + 32]
        expected = _answers(network.eval(), torch.from_numpy(some))[-1]  # after the heads that route its parts
        found = torch.from_numpy(session.run(None, {INPUT: some})[-1])
        worst = max(worst, float((found - expected).abs().max()))
        least = min(least, float(nn.functional.cosine_similarity(found, expected).min()))
    return worst, least


def parity(network: FaceNetwork, path: Path | str) -> float:
    """The largest absolute difference between an ONNX file's outputs and the network's, over random, black and white
    images in batches of 1 and 3; infinite where names, shapes or finiteness differ."""
    session = _session(path)
    if [output.name for output in session.get_outputs()] != _outputs(network):
        return float("inf")
    whole = "uint8" in session.get_inputs()[0].type
    generator, worst = np.random.default_rng(0), 0.0
    for batch in (1, 3):
        images = generator.integers(0, 256, (batch, network.channels, network.size, network.size), dtype=np.uint8)
        black, white = np.zeros_like(images), np.full_like(images, 255)
        for given in (images, black, white):
            fed = given if whole else given.astype(np.float32)
            with torch.inference_mode():
                expected = _answers(network.eval(), torch.from_numpy(fed))
            for wanted, found in zip(expected, session.run(None, {INPUT: fed}), strict=True):
                if found.shape != tuple(wanted.shape) or not np.isfinite(found).all():
                    return float("inf")
                worst = max(worst, float(np.abs(found - wanted.numpy()).max()))
    return worst


def _require_extras() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise PolyfaceError(f"exporting needs {error.name}: run `pip install 'polyface[export]'`") from error


def _halve(path: Path) -> None:
    """Make what an ONNX file computes float16; its inputs and outputs stay as they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)


def _write(network: FaceNetwork, path: Path, input: str, opset: int) -> None:
    """Write a network as ONNX, in exactly this operator set."""
    images = torch.zeros(2, network.channels, network.size, network.size)  # 2: a batch of 1 would be taken as fixed
    images = images.to(getattr(torch, input))
    with quiet(), torch.inference_mode():
        try:
            torch.onnx.export(
                _Answers(network).eval(),
                (images,),
                str(path),
                input_names=[INPUT],
                output_names=_outputs(network),
                opset_version=opset,
                external_data=False,
                verbose=False,
                **_exporter(opset, [INPUT, *_outputs(network)]),
            )
        except Exception as error:  # the exporter wraps whatever a network's code raises in classes of its own
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise PolyfaceError(f"the network cannot be exported to ONNX ({reason})") from error


def _exporter(opset: int, names: Sequence[str]) -> dict[str, Any]:
    """What tells torch how to export: its exporter of today writes no set below 18, where the one before it is used."""
    if opset >= 18:
        return {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    return {"dynamo": False, "dynamic_axes": {name: {0: "batch"} for name in names}}


# ------------------------------------------------------------------------------ the same numbers, in fewer operations


class _Answers(nn.Module):
    """A network whose outputs are a tuple, in the order of `_outputs`, its layers as ONNX runtimes like them."""

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        network = copy.deepcopy(network)
        if isinstance(trunk := network.trunk, TCDCN):
            network.trunk = _Unshared(trunk) if trunk.unshared else _Shared(trunk)
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, ResidualBlock) and child.down:
                    setattr(module, name, _Halved(child))
                elif isinstance(child, SpatialPoints):
                    setattr(module, name, _Positions(child))
                elif isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                    setattr(module, name, _Average())
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return _answers(self.network, images)


class _Average(nn.Module):
    """The average over a map, [B, C, H, W] → [B, C, 1, 1]; PyTorch's own layer leaves ten operations on shapes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class _Positions(nn.Module):
    """Expected positions as products with matrices [places, 1]; OpenCV reads none with a vector."""

    def __init__(self, points: SpatialPoints) -> None:
        super().__init__()
        self.points = points

    def forward(self, last: Tensor, finer: Tensor) -> Tensor:
        height, width = finer.shape[2:]
        x = torch.linspace(-1, 1, width).repeat(height)[:, None]
        y = torch.linspace(-1, 1, height).repeat_interleave(width)[:, None]
        weights = self.points.weights(last, finer)
        return torch.cat([weights @ x, weights @ y], dim=1).flatten(1)


class _Halved(nn.Module):
    """A residual block that halves its map, with zeros that come from convolutions.

    onnxruntime takes maps out of its blocked layout to fill them up, and then adds there, as do all blocks after it. A
    1×1 convolution gives the channels that the averaged map lacks, and the sum is part of it; another, of each channel
    by itself, has the missing row and column as its padding.
    """

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.first, self.second = block.first, block.second
        channels, width = block.first.conv.in_channels, block.first.conv.out_channels
        self.widen = nn.Conv2d(channels, width, 1, bias=False)
        self.widen.weight.data = torch.eye(width, channels)[:, :, None, None]
        self.fill = nn.Conv2d(width, width, 1, groups=width, bias=False)
        self.fill.weight.data = torch.ones(width, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        change, x = self.second(self.first(x).relu()), nn.functional.avg_pool2d(x, 2)
        rows, columns = x.shape[2] - change.shape[2], x.shape[3] - change.shape[3]
        if rows or columns:
            change = self.fill(nn.functional.pad(change, (0, columns, 0, rows)))
        return torch.relu(self.widen(x) + change)


class _Shared(nn.Module):
    """TCDCN with convolutions.

    onnxruntime keeps convolutions, pooling, products and tanh in its blocked layout, but not |x|, which costs two
    copies of the largest maps. So |x| is x + 2·relu(−x) where a second convolution is cheap (one grey channel), and the
    root of the pooled squares elsewhere: a fifth to a third less time at batch 256.
    """

    def __init__(self, trunk: TCDCN) -> None:
        super().__init__()
        self.trunk = trunk
        self.absolute = isinstance(trunk.activation, AbsTanh)
        first = trunk.convolutions[0]
        self.negative = copy.deepcopy(first)
        for own, given in zip(self.negative.parameters(), first.parameters(), strict=True):
            own.data = -2 * given.data
        self.twice = self.absolute and trunk.in_channels == 1

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, maps = images, []
        *pooled, last = self.trunk.convolutions
        for index, layer in enumerate(pooled):
            if not self.absolute:
                x = self.trunk.pool(layer(x))
            elif index == 0 and self.twice:
                x = nn.functional.max_pool2d(layer(x) + self.negative(x).relu(), 2).tanh()
            else:
                x = layer(x)
                x = nn.functional.max_pool2d(x * x, 2).sqrt().tanh()
            maps.append(x)
        return _tcdcn_maps(self.trunk, [*maps, self.trunk.activation(last(x))])


class _Unshared(nn.Module):
    """TCDCN with locally connected filters, its patches taken by slices instead of writes into an empty map."""

    def __init__(self, trunk: TCDCN) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, maps = to_locations(images), []
        *pooled, last = self.trunk.convolutions
        absolute = isinstance(self.trunk.activation, AbsTanh)
        for layer in pooled:
            x = _connected(layer, x)
            x = _pooled(x.abs()).tanh() if absolute else _pooled(x).relu()
            maps.append(from_locations(x))
        return _tcdcn_maps(self.trunk, [*maps, from_locations(self.trunk.activation(_connected(last, x)))])


def _tcdcn_maps(trunk: TCDCN, maps: Sequence[Tensor]) -> dict[str, Tensor]:
    """What TCDCN gives, from its maps; those that nothing reads are not in the file."""
    shared = trunk.activation(trunk.fc(maps[-1].flatten(1)))
    return {f"conv{number}": values for number, values in enumerate(maps, 1)} | {"shared": shared}


def _connected(layer: nn.Module, maps: Tensor) -> Tensor:
    """`LocallyConnected2d.forward` [H, W, C, B] → [H', W', out, B]: columns of a patch first, then its rows."""
    assert isinstance(layer, LocallyConnected2d)
    kernel, side = layer.kernel, layer.out_size
    rows = torch.cat([maps[:, j : j + side] for j in range(kernel)], dim=2)
    patches = torch.cat([rows[i : i + side] for i in range(kernel)], dim=2)
    flat = patches.reshape(side * side, kernel * kernel * layer.in_channels, -1)
    return (layer.weight @ flat + layer.bias).reshape(side, side, layer.out_channels, -1)


def _pooled(maps: Tensor) -> Tensor:
    """`pool_locations`."""
    height, width = maps.shape[0] // 2 * 2, maps.shape[1] // 2 * 2
    rows = torch.maximum(maps[:height:2], maps[1:height:2])
    return torch.maximum(rows[:, :width:2], rows[:, 1:width:2])
