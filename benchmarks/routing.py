"""What pose-directed branches and stochastic routing cost at test, beside the network and the comparison without them.

    python benchmarks/routing.py [--out FILE] [--quick]

Networks of Yin & Liu 2018 with random weights on one thread, in eager PyTorch and as `polyface export` writes them:
identity, pose, illumination and expression (m-CNN), and the same with a layer or block for each of three groups of
poses, their merged identity and a stochastic embedding (p-CNN). "shared_pool5": all layers read x; "split_pool4": side
tasks and groups have last blocks of their own. Both networks take turns in one process; a ratio is the median over the
rounds. Of a single small picture eager PyTorch takes about as long to call its operations as to compute them.

A list of 6,000 pairs, as LFW has, is compared by the stochastic embedding and by the cosine of the joint logits alone:
from the embeddings as a network gives them; and from logits and poses on, with the merge, which a network does once a
face. --quick tries every part and writes nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.nn import functional as F

from polyface import networks
from polyface.data.crops import CropSpec
from polyface.export import export_onnx
from polyface.metrics.recognition.pairs import pair_distances
from polyface.metrics.result import Row
from polyface.models.bundle import Bundle
from polyface.networks import FaceNetwork
from polyface.networks.routing import Join, Rows, Walk
from polyface.report.results import write_results
from polyface.tasks import build
from speed import turns

SIDES = {"pose": 13, "illumination": 19, "expression": 6}
GROUPS = {"right": tuple(range(4)), "frontal": tuple(range(4, 9)), "left": tuple(range(9, 13))}
SIZES = {"100 px": (100, 1.0, 200), "32 px, half width": (32, 0.5, 34)}
"""Side in pixels, width, people."""
ROUNDS = {1: 120, 32: 25}
"""By batch."""
PAIRS, FACES = 6_000, 7_701  # LFW's
Engine = Callable[[Tensor], Any]


def network(split: bool, groups: bool, size: int, width: float, people: int) -> FaceNetwork:
    """m-CNN, or with groups p-CNN, in either wiring."""
    block = {"kind": "casia", "width": width} if split else {"kind": "linear", "width": people}
    parts: dict[str, Any] = {"joint": block} | ({"sides": block} if split else {})
    layer = {} if split else {"layer": "none"}
    heads: dict[str, Any] = {"identity": {"reads": ["joint"], "outputs": people, **layer}}
    heads |= {name: {"reads": ["sides" if split else "trunk"], "outputs": count} for name, count in SIDES.items()}
    reads, merge = ["joint"], {}
    if groups:
        parts |= {name: block | {"rows": {"task": "pose", "classes": own}} for name, own in GROUPS.items()}
        heads["identity_by_pose"] = {"merge": "rows", "of": list(GROUPS), "outputs": people, **layer}
        reads, merge = ["joint", *GROUPS], {"merge": "stochastic", "similarity": "inner"}
    trunk = {"name": "casia-net", "size": size, "width": width, "end": "pool4" if split else "pool5"}
    config = {"trunk": trunk, "parts": parts, "heads": heads, "embeddings": {"identity": {"reads": reads, **merge}}}
    return networks.build(config).eval()


def inference(rounds: dict[int, int]) -> list[Row]:
    rows = []
    for wiring in ("shared_pool5", "split_pool4"):
        for label, (size, width, people) in SIZES.items():
            both = [network(wiring == "split_pool4", groups, size, width, people) for groups in (True, False)]
            with tempfile.TemporaryDirectory() as folder:
                exported = [Path(folder) / f"{place}.onnx" for place in (0, 1)]
                for one, path in zip(both, exported, strict=True):
                    export_onnx(bundle(one), path)
                ways = {"eager": [partial(eager, one) for one in both], "onnxruntime": [*map(session, exported)]}
            for (way, engines), (batch, count) in product(ways.items(), rounds.items()):
                pixels = torch.rand(batch, 1, size, size) * 255
                own, peer = turns(
                    count, *(partial(engine, pixels) for engine in engines), repeat=3 if batch == 1 else 1
                )
                name = f"p-CNN / m-CNN, {wiring}, {label}"
                rows.append(Row(name, f"{way}, batch {batch}", float(np.median(own / peer)), unit="×", n=count))
    return rows


def bundle(one: FaceNetwork) -> Bundle:
    """With tasks of as many classes as the heads have outputs."""
    tasks = {
        name: build(name, {"kind": "identity", "people": [f"{place}" for place in range(head.outputs)]})
        for name, head in one.graph.heads.items()
    }
    return Bundle(one, tasks, CropSpec(size=one.size, channels=1), about={"name": "random"})


@torch.inference_mode()
def eager(one: FaceNetwork, pixels: Tensor) -> None:
    one(pixels)


def session(path: Path) -> Engine:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 3
    made = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels: made.run(None, {"images": pixels.numpy()})


def comparison(rounds: int) -> list[Row]:
    """Stochastic routing of a list of pairs over the cosine of the joint logits."""
    rows = []
    for _, _, people in SIZES.values():
        generator = torch.Generator().manual_seed(0)
        maps = {name: torch.randn((FACES, people), generator=generator) for name in ("joint", *GROUPS)}
        walk = Walk(maps, {}, {"pose": 3 * torch.randn((FACES, SIDES["pose"]), generator=generator)})
        join = Join(("joint", *GROUPS), "stochastic", {name: Rows("pose", own) for name, own in GROUPS.items()})
        first, second = torch.randint(FACES, (2, PAIRS), generator=generator).numpy()

        def stochastic(vectors: Tensor, first: Any = first, second: Any = second) -> None:
            given = vectors.numpy()
            pair_distances(given[first], given[second], inner=True)

        def cosine(vectors: Tensor, first: Any = first, second: Any = second) -> None:
            given = vectors.numpy()
            pair_distances(given[first], given[second])

        routed, joint = join(walk), F.normalize(maps["joint"])
        ways = {
            "from embeddings": (partial(stochastic, routed), partial(cosine, joint)),
            "with the merge": (
                lambda join=join, walk=walk, run=stochastic: run(join(walk)),
                lambda maps=maps, run=cosine: run(F.normalize(maps["joint"])),
            ),
        }
        for way, both in ways.items():
            own, peer = turns(rounds, *both, warm=1)
            name = f"stochastic / cosine, 6,000 pairs, {people} people"
            rows.append(Row(name, way, float(np.median(own / peer)), unit="×", n=rounds))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/routing.json"))
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = inference(dict.fromkeys(ROUNDS, 2) if given.quick else ROUNDS) + comparison(2 if given.quick else 40)
    for row in rows:
        print(f"{row.row:48} {row.metric:22} {row.mean:6.3f} {row.unit}")
    if not given.quick:
        write_results(given.out, rows, command="python benchmarks/routing.py", data="random pixels; 1 thread")
        print(f"written: {given.out}")


if __name__ == "__main__":
    main()
