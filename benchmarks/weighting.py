"""What a weighting costs: a training step with it over the same step in bare PyTorch with a plain sum.

Run: python benchmarks/weighting.py [--out docs/results/weighting-cost.json] [--only WORD] [--device cpu] [--quick]

Every method takes turns with the bare step, one step each, so that a machine's moods hit both; a ratio is the median
over these pairs. Five tasks (five landmarks, gender, smile, glasses, pose), batch 64, AdamW, float32, random faces and
weights: a step's cost does not depend on them. "tensor memory" is what lives at the peak of a step: parameters,
optimiser state, batch and everything that the step allocates, as PyTorch's profiler (on a CUDA device its allocator)
counts it. Peers: TorchJD's
`mtl_backward` with its default aggregator, and one backward a task through everything shared, written by hand.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from polyface.metrics.result import Row
from polyface.networks import build as build_network
from polyface.report.results import write_results
from polyface.weighting import WEIGHTINGS, Context, build
from polyface.weighting.gramian import GradientWeighting

DEVICE = torch.device("cpu")
HEADS = {"landmarks": 10, "gender": 2, "smile": 2, "glasses": 2, "pose": 5}
BATCH = 64
TRUNKS: dict[int, dict[str, Any]] = {
    40: {"name": "tcdcn", "plan": "tcdcn", "filters": "shared", "activation": "abs_tanh"},
    112: {
        "name": "timm",
        "model": "resnet10t",
        "size": 112,
        "pool": "points",
        "options": {"channels": [32, 64, 128, 256], "stem_width": 16},
    },
}
Step = Callable[[], None]


class Trainer:
    """A network with its optimiser and one batch, always the same."""

    def __init__(self, size: int, parameters: list[Tensor] | None = None) -> None:
        torch.manual_seed(0)
        self.network = build_network({"trunk": TRUNKS[size], "heads": HEADS}).to(DEVICE)
        self.own = parameters or []
        self.optimiser = torch.optim.AdamW([*self.network.parameters(), *self.own], lr=1e-4, fused=DEVICE.type == "cpu")
        images = torch.rand(BATCH, self.network.channels, size, size) * 255
        self.images = images.to(DEVICE).contiguous(memory_format=torch.channels_last)
        targets = {n: torch.randn(BATCH, d) if n == "landmarks" else torch.randint(d, (BATCH,))
                   for n, d in HEADS.items()}  # fmt: skip
        self.targets = {name: target.to(DEVICE) for name, target in targets.items()}

    def losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        output = self.network(self.images)
        losses = {n: F.l1_loss(o, self.targets[n]) if n == "landmarks" else F.cross_entropy(o, self.targets[n])
                  for n, o in output.outputs.items()}  # fmt: skip
        return output.shared, losses

    def resident(self) -> int:
        tensors = [*self.network.state_dict().values(), *self.own, self.images, *self.targets.values()]
        tensors += [x for state in self.optimiser.state.values() for x in state.values() if isinstance(x, Tensor)]
        return sum(x.numel() * x.element_size() for x in tensors)


def bare(size: int) -> tuple[Trainer, Step]:
    trainer = Trainer(size)

    def step() -> None:
        trainer.optimiser.zero_grad()
        _, losses = trainer.losses()
        torch.stack(list(losses.values())).sum().backward()
        trainer.optimiser.step()

    return trainer, step


def weighted(size: int, name: str, level: str | None) -> tuple[Trainer, Step]:
    width = Trainer(size).network.shared_dim
    weighting = build(name, list(HEADS), features=width, **({"level": level} if level else {})).to(DEVICE)
    trainer = Trainer(size, list(weighting.parameters()))
    shared_parameters = list(trainer.network.trunk.parameters())

    def step() -> None:
        if weighting.validation_faces:
            with torch.no_grad():
                trainer.network.eval()
                kept, trainer.images = trainer.images, trainer.images[: weighting.validation_faces]
                targets, trainer.targets = (
                    trainer.targets,
                    {n: t[: len(trainer.images)] for n, t in trainer.targets.items()},
                )
                weighting.on_validation_batch({n: float(x) for n, x in trainer.losses()[1].items()}, {})
                trainer.images, trainer.targets = kept, targets
                trainer.network.train()
        trainer.optimiser.zero_grad()
        shared, losses = trainer.losses()
        weighting.combine(losses, Context(shared, shared_parameters)).total.backward()
        trainer.optimiser.step()
        if weighting.second_forward:
            with torch.no_grad():
                weighting.after_step(trainer.losses()[1])

    return trainer, step


def torchjd(size: int) -> tuple[Trainer, Step]:
    """TorchJD's usual step: the Jacobian of the shared parameters, aggregated by UPGrad."""
    from torchjd.aggregation import UPGrad
    from torchjd.autojac import jac_to_grad, mtl_backward

    trainer, aggregator = Trainer(size), UPGrad()
    shared_parameters = list(trainer.network.trunk.parameters())

    def step() -> None:
        trainer.optimiser.zero_grad()
        shared, losses = trainer.losses()
        mtl_backward(list(losses.values()), features=shared)
        jac_to_grad(shared_parameters, aggregator)
        trainer.optimiser.step()

    return trainer, step


def by_hand(size: int) -> tuple[Trainer, Step]:
    """T backward passes through everything shared, then the sum of their gradients."""
    trainer = Trainer(size)
    parameters = list(trainer.network.parameters())

    def step() -> None:
        trainer.optimiser.zero_grad()
        _, losses = trainer.losses()
        found = [torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True) for x in losses.values()]
        for parameter, gradients in zip(parameters, zip(*found, strict=True), strict=True):
            parameter.grad = torch.stack([g for g in gradients if g is not None]).sum(0)
        trainer.optimiser.step()

    return trainer, step


def peak(trainer: Trainer, step: Step) -> int:
    """Bytes of tensors alive at the peak of a step."""
    step()
    trainer.optimiser.zero_grad()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return trainer.resident() + torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    alive = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return trainer.resident() + int(alive.max())


def times(own: Step, plain: Step, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    for _ in range(3):
        own(), plain()
    found = []
    for turn in range(rounds):
        pair = {}
        for step in (own, plain) if turn % 2 else (plain, own):
            start = time.perf_counter()
            step()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            pair[step is own] = time.perf_counter() - start
        found.append((pair[True], pair[False]))
    ours, theirs = np.array(found).T
    return ours, theirs


def measured(row: str, note: str, made: tuple[Trainer, Step], plain: tuple[Trainer, Step], rounds: int) -> list[Row]:
    ours, theirs = times(made[1], plain[1], rounds)
    ratios = ours / theirs
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    spread = 1.57 * (high - low) / np.sqrt(rounds)  # of a median (McGill et al. 1978), about 95 %
    memory = peak(*made) / peak(*plain)
    plain_ms = 1e3 * np.median(theirs)
    print(f"{row:30} {note:12} {middle:6.3f} ± {spread:.3f} of {plain_ms:.1f} ms, memory {memory:.3f}", flush=True)
    interval = (float(middle - spread), float(middle + spread))
    return [
        Row(row, "time ratio", float(middle), None, rounds, (), interval, unit="×", note=note),
        Row(row, "tensor memory ratio", float(memory), None, None, (), unit="×", note=note),
    ]


def kinds(word: str) -> list[tuple[str, str, Callable[[int], tuple[Trainer, Step]]]]:
    found: list[tuple[str, str, Callable[[int], tuple[Trainer, Step]]]] = []
    for name, method in ((name, WEIGHTINGS.get(name)) for name in WEIGHTINGS.names()):
        levels = (
            ["features", "shared"] if isinstance(method, type) and issubclass(method, GradientWeighting) else [None]
        )
        for level in levels:
            row = f"{name} (shared)" if level == "shared" else name
            found.append((row, level or "loss-only", lambda size, n=name, lv=level: weighted(size, n, lv)))  # type: ignore[misc]
    found.append(("T backwards by hand", "shared", by_hand))
    if importlib.util.find_spec("torchjd"):
        found.append(("TorchJD mtl_backward", "shared", torchjd))
    return [kind for kind in found if word in kind[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="methods whose name holds this word")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a few steps each, nothing written")
    arguments = parser.parse_args()
    global DEVICE
    DEVICE = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    rows = []
    for size in TRUNKS:
        plain = bare(size)
        rounds = 5 if arguments.quick else {40: 60, 112: 10}[size]
        for row, note, make in kinds(arguments.only):
            rows += measured(row if size == 40 else f"{row}, {size}×{size}", note, make(size), plain, rounds)
    if arguments.out and not arguments.quick:
        write_results(
            arguments.out,
            rows,
            command=shlex.join(["python", "benchmarks/weighting.py", *sys.argv[1:]]),
            data=f"random faces; 5 tasks, batch {BATCH}; rows without a size: 40×40 (TCDCN, shared filters); "
            "112×112: resnet10t of width 32–256",
        )


if __name__ == "__main__":
    main()
