"""How fast Polyface is, each figure beside a peer or a limit measured in the same run, turn by turn.

Run: python benchmarks/speed.py [--data DIR] [--threads 2] [--out FILE] [--only WORD] [--quick]

With --data the faces are MTFL's (DIR/mtfl or DIR/mtfl.parquet), else rendered ones. Weights are random: speed does not
depend on them. --quick tries every part in a few seconds and writes nothing.
"""

from __future__ import annotations

import argparse
import io
import itertools
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import onnxruntime
import torch
from PIL import Image
from torchvision.transforms import v2

from counting import multiply_adds
from polyface import tasks as task_kinds
from polyface.data.augment import AugmentSpec
from polyface.data.boxes import boxes_of
from polyface.data.crops import CropSpec
from polyface.data.detector import RetinaFace
from polyface.data.images import decode
from polyface.data.loader import FaceLoader, FacePool, assemble
from polyface.data.store import open_source
from polyface.data.table import FaceTable
from polyface.export import export_onnx
from polyface.inference import Analyzer
from polyface.metrics.result import Row
from polyface.models.bundle import Bundle
from polyface.networks import build
from polyface.report.results import write_results
from polyface.training.learner import Learner
from polyface.training.precision import precision
from polyface.training.progress import learning_rate
from polyface.training.recipe import load
from polyface.training.specs import StageSpec
from polyface.training.stages import build_weighting, stage_pool, stage_tasks
from polyface.training.start import build_network

TASKS: dict[str, dict[str, Any]] = {
    "landmarks": {"kind": "landmarks", "points": 5},
    **{name: {"kind": "classification", "column": name} for name in ("gender", "smile", "glasses", "pose")},
}
Work = Callable[[], Any]


@dataclass
class Bench:
    """Collects rows; `rounds` scales with --quick."""

    data: Path | None
    threads: int
    quick: bool
    rows: list[Row] = field(default_factory=list)

    def rounds(self, full: int) -> int:
        return max(2, full // 20) if self.quick else full

    def add(self, row: str, metric: str, value: float, unit: str, note: str = "", n: int | None = None) -> None:
        self.rows.append(Row(row, metric, float(value), unit=unit, note=note, n=n))
        print(f"{row:44} {metric:9} {value:12,.4g} {unit:14} {note}", flush=True)

    def compare(self, row: str, own: np.ndarray, peer: np.ndarray, unit: str, scale: float, note: str) -> float:
        """Rows for paired times [rounds] of ours and a peer's; returns peer over own, the median of the pairs."""
        self.add(row, "measured", scale * np.median(own), unit)
        self.add(row, "peer", scale * np.median(peer), unit)
        faster = float(np.median(peer / own))
        self.add(row, "faster", faster, "×", note)
        return faster


def turns(rounds: int, *works: Work, repeat: int = 1, warm: int = 2) -> np.ndarray:
    """Seconds a call, [works, rounds]: the works take turns, so that what else the machine does hits all alike."""
    for work in works:
        for _ in range(warm):
            work()
    times = np.empty((len(works), rounds))
    for i in range(rounds):
        for k, work in enumerate(works):
            start = time.perf_counter()
            for _ in range(repeat):
                work()
            times[k, i] = (time.perf_counter() - start) / repeat
    return times


def model(filters: str = "shared", plan: str = "tcdcn") -> Bundle:
    config = TASKS if plan == "tcdcn" else {"landmarks": {"kind": "landmarks", "points": 68}}
    tasks = {name: task_kinds.build(name, spec) for name, spec in config.items()}
    torch.manual_seed(0)
    network = build({
        "trunk": {"name": "tcdcn", "plan": plan, "filters": filters},
        "heads": {name: task.output_dim for name, task in tasks.items()},
    })  # fmt: skip
    return Bundle(network.eval(), tasks, CropSpec(size=network.size, channels=1), about={"name": f"{plan} {filters}"})


# ------------------------------------------------------------------------------------------------------- inference


def exported(bench: Bench) -> None:
    """The exported 40×40 network under onnxruntime, against PyTorch as it is written (eager, inference mode)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = bench.threads, 1
    for filters in ("shared", "unshared"):
        bundle = model(filters)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(bundle, path)
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for batch, rounds, repeat in ((1, 100, 50), (256, 60 if filters == "shared" else 20, 1)):
            images = torch.rand(batch, 1, 40, 40) * 255
            fed = {"images": images.numpy()}

            def eager(network: Any = bundle.network, images: torch.Tensor = images) -> None:
                with torch.inference_mode():
                    network(images)

            def runtime(session: Any = session, fed: Any = fed) -> None:
                session.run(None, fed)

            own, peer = turns(bench.rounds(rounds), runtime, eager, repeat=1 if bench.quick else repeat, warm=5)
            row = f"exported TCDCN ({filters}), batch {batch}"
            bench.compare(row, own, peer, "ms a face", 1e3 / batch, "onnxruntime; peer: eager PyTorch")
            if batch == 256:
                bench.add(row, "faces a second", batch / np.median(own), "faces/s")


def averaged(bench: Bench) -> None:
    """TCDCN-Averaged (20 translations) against plain, as the analyzer runs both on given boxes; the limit is 12×."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    plain, many = Analyzer(model()), Analyzer(model(), average=20)
    for faces, rounds in ((1, 100), (64, 20)):
        corners = np.random.default_rng(1).uniform(0, 400, (faces, 2))
        boxes = np.concatenate([corners, corners + 80], axis=1)
        twenty, one = turns(bench.rounds(rounds), partial(many, image, boxes), partial(plain, image, boxes))
        row = f"averaged over 20 translations, {faces} face{'s' * (faces > 1)} at once"
        bench.add(row, "measured", 1e3 / faces * np.median(twenty), "ms a face")
        bench.add(row, "peer", 1e3 / faces * np.median(one), "ms a face")
        bench.add(row, "cost", float(np.median(twenty / one)), "×", "peer: plain; limit: 12×")


def end_to_end(bench: Bench) -> None:
    """A JPEG photo of 640×480 with one face → file, decoding, detection, 5 points with four labels, 68 points."""
    from polyface.data.synthetic import render

    face = Image.fromarray(render(1, 200, seed=3).images[0])
    photo = Image.new("RGB", (640, 480), (120, 130, 110))
    photo.paste(face, (220, 130))
    detector = RetinaFace(threads=bench.threads)
    analyzer = Analyzer(model(), model(plan="tcdcn68"), detector=detector)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        photo.save(path, quality=92)
        pixels = decode(path)
        box = np.array([220, 130, 420, 330])
        own, alone, given = turns(
            bench.rounds(60), lambda: analyzer(path), lambda: detector(pixels), lambda: analyzer(path, box)
        )
    row = "analyze a 640×480 photo, one face, two models"
    bench.add(row, "measured", 1e3 * np.median(own), "ms an image")
    bench.add(row, "peer", 1e3 * np.median(alone), "ms an image")
    bench.add(row, "cost", float(np.median(own / alone)), "×", "peer: the face detector alone, on decoded pixels")
    bench.add("the same with a given box", "measured", 1e3 * np.median(given), "ms an image")


def command_line(bench: Bench) -> None:
    """`polyface --help` in a fresh process, against a process that only imports torch."""

    def process(code: str, *arguments: str) -> Work:
        return lambda: subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)

    own, peer = turns(
        bench.rounds(20), process("from polyface.cli import main; main()", "--help"), process("import torch"), warm=1
    )
    bench.compare("polyface --help", own, peer, "s", 1.0, "peer: a process that imports torch alone")


# -------------------------------------------------------------------------------------------------------- training


def training_stage(bench: Bench) -> StageSpec:
    drawn = ["mtfl.data.tables=[{name: synthetic, options: {n: 6000, size: 64}}]", "mtfl.data.boxes.source=table"]
    return load("tcdcn", [] if bench.data else drawn).variant("FLD+all (shared)").measured


class _Clock(L.Callback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())


def learner_fit(stage: StageSpec, pool: FacePool, steps: int, threads: int) -> tuple[list[float], torch.nn.Module]:
    """`steps` steps as `polyface train` takes them: when each ended, and the trained network."""
    tasks, clock = stage_tasks(stage), _Clock()
    loader = FaceLoader(pool, stage.data.batch, seed=0, stage=stage.name, shuffle=True)
    network = build_network(stage, tasks, 0, {})
    learner = Learner(stage, 0, network, tasks, build_weighting(stage), loader, None)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        precision=precision(stage.optimisation.precision, "cpu"),  # type: ignore[arg-type]
        max_epochs=1,
        limit_train_batches=steps,
        callbacks=[clock],
        logger=False,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=50,
    )
    torch.set_num_threads(threads)
    trainer.fit(learner)
    return clock.ends, learner.network


def bare_fit(stage: StageSpec, pool: FacePool, steps: int, threads: int) -> tuple[list[float], torch.nn.Module]:
    """The same steps in a loop as one writes it by hand."""
    tasks, ends = stage_tasks(stage), []
    weights = stage.weighting.options["weights"]
    network = build_network(stage, tasks, 0, {}).train()
    loader = FaceLoader(pool, stage.data.batch, seed=0, stage=stage.name, shuffle=True)
    settings = stage.optimisation
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings.lr,
        fused=True,
    )
    total = settings.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(stage, step / total))
    torch.set_num_threads(threads)
    for raw in itertools.islice(loader, steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision(settings.precision, "cpu") == "bf16-mixed"):
            batch = assemble(raw, stage.data.crop, tasks, stage.data.augment)
            outputs = network(batch.images.contiguous(memory_format=torch.channels_last)).outputs
            loss = torch.zeros(())
            for name, task in tasks.items():
                mask = batch.labelled[name]
                each = torch.where(mask, task.loss(outputs[name], batch.targets[name]), 0.0)
                loss = loss + weights.get(name, 1.0) * (each.sum(0) / mask.sum(0).clamp(min=1)).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        ends.append(time.perf_counter())
    return ends, network


def training_step(bench: Bench) -> None:
    """A step of the learner against the same step by hand; the limit is 1.10×. Both must train the same network."""
    stage = training_stage(bench)
    pool = stage_pool(stage, "train", bench.data, stage_tasks(stage))
    assert pool is not None
    warm, steps = (3, 13) if bench.quick else (10, 160)
    own: list[float] = []
    peer: list[float] = []
    for _ in range(bench.rounds(20)):
        for fit, times in ((learner_fit, own), (bare_fit, peer)):
            ends, network = fit(stage, pool, steps, bench.threads)
            times.append((ends[-1] - ends[warm - 1]) / (steps - warm))
            if fit is learner_fit:
                trained = network
    apart = max(
        float((a - b).detach().abs().max()) for a, b in zip(trained.parameters(), network.parameters(), strict=True)
    )
    if apart > 1e-3:
        raise SystemExit(f"the two loops do not train the same network: weights differ by {apart:.2g}")
    row = f"a training step, batch {stage.data.batch}, five tasks"
    bench.add(row, "measured", 1e3 * float(np.median(own)), "ms")
    bench.add(row, "peer", 1e3 * float(np.median(peer)), "ms")
    ratio = float(np.median(np.array(own) / np.array(peer)))
    bench.add(row, "cost", ratio, "×", "peer: the same step by hand in PyTorch; limit: 1.10×")


# ---------------------------------------------------------------------------------------------------------- input


class _PerSample(torch.utils.data.Dataset[torch.Tensor]):
    """What a face project usually does: decode, crop with margin, augment, shrink, one sample at a time."""

    def __init__(self, encoded: list[bytes], boxes: np.ndarray, crop: CropSpec) -> None:
        self.encoded, self.size = encoded, crop.size
        centres, sides, _ = crop.squares(boxes)
        half = sides[:, None] * crop.margin / 2
        self.regions = np.round(np.concatenate([centres - half, centres + half], axis=1)).astype(int)
        middle = round(crop.size * crop.margin * crop.oversample)
        self.transform = v2.Compose([
            v2.Resize((middle, middle)),
            v2.RandomAffine(10, (0.02, 0.02), (0.82, 1.22), interpolation=v2.InterpolationMode.BILINEAR),
            v2.CenterCrop(round(crop.size * crop.oversample)),
            v2.Resize((crop.size, crop.size)),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.1, contrast=0.3),
            v2.PILToTensor(),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: int) -> torch.Tensor:
        image = Image.open(io.BytesIO(self.encoded[row])).convert("L").crop(tuple(self.regions[row].tolist()))
        transformed: torch.Tensor = self.transform(image)
        return transformed.float()


def input_pipeline(bench: Bench) -> None:
    """Batches of 64 augmented 40×40 grey crops: from the cache of cuts against decoding every sample; limit 10×."""
    faces = 256 if bench.quick else 2000
    if bench.data:
        table = open_source("mtfl", bench.data)
        table = table.take(np.random.default_rng(0).permutation(len(table))[:faces])
    else:
        table = open_source("synthetic", None, {"n": faces, "size": 200})
    points = next(column for column in table.columns if column.startswith("landmarks_"))
    boxes = boxes_of(table, load("tcdcn").stages[0].data.boxes.model_copy(update={"source": "landmarks"}))
    crop = CropSpec(size=40, channels=1, scale=1.8)
    augment = AugmentSpec(rotate=10, zoom=0.2, shift=0.02, mirror=0.5, contrast=0.3, brightness=0.1)
    tasks = {"landmarks": task_kinds.build("landmarks", {"kind": "landmarks", "points": int(points.split("_")[1])})}
    pool = FacePool([(table, boxes, 1.0)], crop, tasks)
    ours = FaceLoader(pool, 64, shuffle=True)
    peers = torch.utils.data.DataLoader(
        _PerSample(list(_jpegs(table)), boxes.xyxy, crop), batch_size=64, shuffle=True, drop_last=True, num_workers=0
    )

    def own() -> None:
        for raw in ours:
            assert assemble(raw, crop, tasks, augment).images.shape == (64, 1, 40, 40)

    def peer() -> None:
        for images in peers:
            assert images.shape == (64, 1, 40, 40)

    one, other = turns(bench.rounds(20) // 2 + 1, own, peer, warm=1)
    seen = 64 * len(ours)
    row = "input: augmented 40×40 crops, no workers"
    note = "peer: PIL and torchvision transforms a sample, JPEG decoded each time; limit: 10×"
    bench.compare(row, one / seen, other / seen, "ms a face", 1e3, note)
    bench.add(row, "faces a second", seen / float(np.median(one)), "faces/s")


def _jpegs(table: FaceTable) -> Iterator[bytes]:
    for row in range(len(table)):
        data, _ = table.image_struct(row)
        if data is None or data[:2] != b"\xff\xd8":
            buffer = io.BytesIO()
            Image.fromarray(table.image(row)).save(buffer, "JPEG", quality=92)
            data = buffer.getvalue()
        yield data


def rendering(bench: Bench) -> None:
    """Synthetic faces of 64×64, drawn by one thread; the floor is 2,000 a second."""
    from polyface.data.synthetic import render

    seeds = iter(range(10_000))
    (own,) = turns(bench.rounds(8), lambda: render(1024, 64, next(seeds)), warm=1)
    bench.add("synthetic faces at 64 px", "measured", 1024 / np.median(own), "faces/s", "one thread; floor: 2,000")


def sizes(bench: Bench) -> None:
    """Parameters and multiply-adds a face, beside those of the cascade that the paper is compared with."""
    networks = {
        "TCDCN (shared)": (model().network, (1, 40, 40)),
        "TCDCN (unshared)": (model("unshared").network, (1, 40, 40)),
        "TCDCN of 68 points": (model(plan="tcdcn68").network, (1, 60, 60)),
    }
    for row, (network, shape) in networks.items():
        bench.add(row, "multiply-adds", multiply_adds(network, *shape) / 1e6, "million")
        bench.add(row, "parameters", sum(p.numel() for p in network.parameters()) / 1e6, "million")
    whole = sum(count * multiply_adds(_cascaded(*plan), 1, *shape) for count, shape, *plan in CASCADE)
    note = "23 networks, counted by the plans that Sun et al. print; crops not counted"
    bench.add("cascade of Sun et al. 2013", "multiply-adds", whole / 1e6, "million", note)


CASCADE = [
    (1, (39, 39), [(4, 20), (3, 40), (3, 60), (2, 80)], 120, 10),
    (1, (31, 39), [(4, 20), (3, 40), (3, 60), (2, 80)], 100, 6),
    (1, (31, 39), [(4, 20), (3, 40), (3, 60), (2, 80)], 100, 6),
    (20, (15, 15), [(4, 20), (3, 40)], 60, 2),
]
"""How many networks, their input, (kernel, channels) of each convolution, units of the last two layers. A 2×2 pooling
follows every convolution but a fourth."""


def _cascaded(plan: list[tuple[int, int]], units: int, out: int) -> torch.nn.Module:
    layers: list[torch.nn.Module] = []
    for index, (kernel, channels) in enumerate(plan):
        pool = [torch.nn.MaxPool2d(2)] if index < 3 else []
        layers += [torch.nn.LazyConv2d(channels, kernel), *pool]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.LazyLinear(units), torch.nn.LazyLinear(out))


PARTS = {
    part.__name__: part
    for part in (sizes, exported, averaged, end_to_end, command_line, training_step, input_pipeline, rendering)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with mtfl/ or mtfl.parquet (default: rendered faces)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/results/tcdcn-speed.json"))
    parser.add_argument("--only", choices=PARTS, help="one part; the file's other rows are kept")
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is written")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(options.threads)
    bench = Bench(options.data, options.threads, options.quick)
    for name, part in PARTS.items():
        if options.only in (None, name):
            part(bench)
            torch.set_num_threads(options.threads)
    if not options.quick:
        command = "python benchmarks/speed.py" + (" --data DIR" if options.data else "")
        data = "MTFL" if options.data else "synthetic faces"
        write_results(options.out, bench.rows, command=command, data=f"{data}, {options.threads} threads")
        print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
