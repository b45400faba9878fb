"""How fast a model embeds faces, each way beside its own network in eager PyTorch, and what verification makes of it.

    python benchmarks/embedding.py --model BUNDLE --data DIR [--branch NAME] [--threads N …] [--out FILE] [--quick]

DIR holds cavi/. The peer is the bundle's network as it was saved, with all its branches and heads, in float32. Beside
it: the same under bfloat16; what `BundleEmbedder` runs, in both; and what `polyface export` writes, whole, with
--branch, and with --int8 (calibrated on 200 faces of CaVI's validation part), under onnxruntime. All take turns in one
process, so that what else the machine does hits all alike, and a ratio is the median over the rounds. Verification is
of CaVI's test pairs, by ten folds of pairs. --quick tries every part and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from polyface import protocols
from polyface.data.boxes import boxes_of
from polyface.data.crops import sample
from polyface.data.loader import FaceLoader, FacePool
from polyface.data.store import open_source
from polyface.export import export_onnx
from polyface.metrics.result import Row
from polyface.models import find
from polyface.models.bundle import Bundle, load_bundle
from polyface.networks.folding import chosen_embedding, embedding_only, folded, in_bfloat16
from polyface.networks.network import FaceNetwork
from polyface.protocols.base import EvaluationSet
from polyface.report.results import write_results
from speed import turns

Floats = NDArray[np.float32]
Engine = Callable[[Floats], Floats]
"""Images [B, C, S, S] → embeddings [B, E]."""

PEER = "eager float32"
CALIBRATION = 200
ROUNDS = {1: (60, 10), 32: (20, 1)}
"""By batch: rounds, and calls of each way a round."""


def eager(network: FaceNetwork, branch: str, half: bool) -> Engine:
    def run(images: Floats) -> Floats:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return network(torch.from_numpy(images)).embeddings[branch].float().numpy()  # type: ignore[no-any-return]

    return run


def exported(path: Path, branch: str, threads: int) -> Engine:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # its threads would wait on the others' time
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    place = names.index(f"embedding/{branch}")
    return lambda images: session.run(None, {"images": images})[place]  # type: ignore[no-any-return]


def files(bundle: Bundle, branch: str, faces: Floats, folder: Path) -> dict[str, Path]:
    """What `polyface export` writes, by how it is called here."""
    found = {name: folder / f"{place}.onnx" for place, name in enumerate(("whole", "--branch", "--int8"))}
    export_onnx(bundle, found["whole"])
    export_onnx(bundle, found["--branch"], branch=branch)
    export_onnx(bundle, found["--int8"], branch=branch, int8=faces)
    return {f"onnxruntime, {name}": path for name, path in found.items()}


def engines(bundle: Bundle, branch: str, paths: dict[str, Path], threads: int) -> dict[str, Engine]:
    whole, lean = bundle.network.eval(), folded(embedding_only(bundle.network, branch))
    found = {
        PEER: eager(whole, branch, False),
        "eager bfloat16": eager(whole, branch, True),
        "embedder float32": eager(lean, branch, False),
        "embedder bfloat16": eager(in_bfloat16(lean), branch, True),
    }
    return found | {name: exported(path, branch, threads) for name, path in paths.items()}


def inputs(pool: FacePool, batch: int = 32) -> Iterator[Floats]:
    to_input = torch.from_numpy(pool.crop.cut_to_input())
    for raw in FaceLoader(pool, batch, shuffle=False):
        yield sample(raw.cuts, to_input.repeat(len(raw.cuts), 1, 1), pool.crop.size).numpy()


def part(bundle: Bundle, data: Path, name: str, most: int | None = None) -> FacePool:
    """Faces of a part of CaVI as the bundle crops them; with `most`, so many of them."""
    table = open_source("cavi", data).where(split=name)
    if most is not None:
        table = table.take(np.linspace(0, len(table) - 1, min(most, len(table))).astype(int))
    return FacePool.unlabelled(table, boxes_of(table, bundle.boxes), bundle.crop)


def speed(ways: dict[str, Engine], batch: int, threads: int, faces: Floats, quick: bool) -> list[Row]:
    rounds, repeat = (2, 1) if quick else ROUNDS[batch]
    images = np.resize(faces, (batch, *faces.shape[1:]))
    times = turns(rounds, *(partial(way, images) for way in ways.values()), repeat=repeat)
    rows = []
    for name, own in zip(ways, times, strict=True):
        row = f"{name}, batch {batch}, {threads} thread{'s' * (threads > 1)}"
        rows.append(Row(row, "measured", 1e3 / batch * float(np.median(own)), unit="ms a face"))
        if name != PEER:
            low, middle, high = np.quantile(times[0] / own, [0.25, 0.5, 0.75])
            note = f"than {PEER}; the middle half of the rounds {low:.2f} to {high:.2f}"
            rows.append(Row(row, "faster", float(middle), unit="×", n=rounds, note=note))
            print(f"{row:50} {middle:6.2f} ×  ({low:.2f} to {high:.2f})  {1e3 / batch * np.median(own):.3g} ms")
    return rows


def verification(ways: dict[str, Engine], pool: FacePool, data: Path) -> list[Row]:
    protocol = protocols.build({"name": "listed-pairs", "reader": "cavi"})
    cases = protocol.cases(EvaluationSet(pool.table, "test", data))
    found: dict[str, list[Floats]] = {name: [] for name in ways}
    for images in inputs(pool):
        for name, way in ways.items():
            found[name].append(way(images))
    rows: list[Row] = []
    for name, parts in found.items():
        answers = {"verification": {"embedding": np.concatenate(parts)}}
        (result,) = protocol.evaluate(answers, cases).values()
        for one in (one for one in result.metrics if one.name in ("verification", "AUC")):
            metric, value = one.name, result.figure(one)
            note = "" if name == PEER else f"{value - rows[metric == 'AUC'].mean:+.3f} from {PEER}"
            rows.append(Row(name, metric, value, n=result.units, note=note))
            print(f"{name:50} {metric:12} {value:7.3f} %  {note}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a bundle, or a shipped model's name")
    parser.add_argument("--data", type=Path, required=True, help="folder with cavi/")
    parser.add_argument("--branch", help="whose embedding (default: as BundleEmbedder)")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--out", type=Path, default=Path("docs/results/embedding.json"))
    parser.add_argument("--name", help="of the model in the rows, where the file is to hold several")
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is written")
    given = parser.parse_args()
    bundle = load_bundle(find(given.model))
    branch = chosen_embedding(bundle.network, given.branch, given.model)
    calibration = np.concatenate([*inputs(part(bundle, given.data, "val", CALIBRATION))])
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = files(bundle, branch, calibration, Path(folder))
        for threads in given.threads:
            torch.set_num_threads(threads)
            ways = engines(bundle, branch, paths, threads)
            for batch in ROUNDS:
                rows += speed(ways, batch, threads, calibration, given.quick)
        if not given.quick:
            rows += verification(ways, part(bundle, given.data, "test"), given.data)
    if not given.quick:
        size = f"{bundle.network.config['trunk'].get('name')} {bundle.network.size} px"
        prefix = f"{given.name}: " if given.name else ""
        rows = [replace(row, row=prefix + row.row) for row in rows]
        command = "python benchmarks/embedding.py --model BUNDLE --data DIR"
        if given.name:
            command += f" --name {given.name!r}"
        write_results(given.out, rows, command=command, data=f"CaVI; {size}, embedding of '{branch}'")
        print(f"written: {given.out}")


if __name__ == "__main__":
    main()
