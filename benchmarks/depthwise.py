"""A training step of EfficientNet-Lite0 on a CPU with PyTorch's depthwise convolutions and with ours.

Steps of both alternate, so that a busy machine slows both; the figure is the ratio of the medians.

    python benchmarks/depthwise.py [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch

from polyface.metrics.result import Row
from polyface.networks.depthwise import DepthwiseConv2d
from polyface.report.results import write_results

BATCH, STEPS = 32, 5


def stepper(size: int, half: bool, ours: bool) -> Callable[[], float]:
    network = timm.create_model("tf_efficientnet_lite0", num_classes=40).to(memory_format=torch.channels_last)
    if ours:
        DepthwiseConv2d.replace(network)
    images = torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)

    def step() -> float:
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = network(images).float().square().mean()
        loss.backward()
        return time.perf_counter() - begin

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for size in (96, 112):
        for half in (True, False):
            theirs, ours = (stepper(size, half, own) for own in (False, True))
            theirs(), ours()
            pairs = [(theirs(), ours()) for _ in range(STEPS)]
            ratio = statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
            spread = statistics.stdev(a / b for a, b in pairs)
            name = f"step {size} px, {'bfloat16' if half else 'float32'}"
            rows.append(Row(name, "PyTorch / ours", ratio, spread, STEPS, (0,), note=f"{given.threads} thread"))
            print(name, round(ratio, 2), "±", round(spread, 2), flush=True)
    write_results(
        Path("docs/results/depthwise.json"), rows, command="python benchmarks/depthwise.py",
        data=f"random images, {BATCH} a batch", merge=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
