"""From face tables to batches: decoded once into a memory-mapped cache of cuts, sampled anew every epoch.

Order and augmentation are a pure function of (seed, stage, epoch, row): no generator lives anywhere, so a stopped
epoch goes on exactly where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from polyface.data.arrays import new_array, rows_of
from polyface.data.augment import AugmentSpec, draws, geometry, photometry
from polyface.data.boxes import Boxes, key
from polyface.data.crops import CropSpec, compose, cut, invert, sample, scaled
from polyface.data.sampling import balanced
from polyface.data.table import FaceTable, Progress, each_row
from polyface.errors import PolyfaceError
from polyface.files import atomic_path, cache_folder


@dataclass(frozen=True)
class Targets:
    """What a table says for a task: values [N, …] in the table's own units, labelled bool [N, K] (K terms)."""

    values: Tensor
    labelled: Tensor


class Labeller(Protocol):
    """What a loader needs of a task: its labels, and how a crop changes them."""

    def targets(self, table: FaceTable) -> Targets: ...

    def prepare(self, values: Tensor, crops: Tensor, size: int) -> Tensor: ...

    def visible(self, labelled: Tensor, crops: Tensor) -> Tensor: ...


@dataclass
class FaceBatch:
    """images [B, C, S, S] float in 0..255; targets[task] prepared for the loss; labelled[task] bool [B, K];
    crops [B, 2, 3] from original image to input; rows [B] of the pool. maps: in place of images (then of no face),
    what a frozen trunk makes of them."""

    images: Tensor
    targets: dict[str, Tensor]
    labelled: dict[str, Tensor]
    crops: Tensor
    rows: Tensor
    maps: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class RawBatch:
    """What is moved to the device: cuts uint8 [B, C, P, P] or maps of a frozen trunk, values and masks per task,
    image→input crops, draws."""

    cuts: Tensor
    values: dict[str, Tensor]
    labelled: dict[str, Tensor]
    crops: Tensor
    rows: Tensor
    draws: Tensor
    maps: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> RawBatch:
        """The same batch on another device."""

        def move(held: Any) -> Any:
            if isinstance(held, dict):
                return {name: move(tensor) for name, tensor in held.items()}
            return held.to(device, non_blocking=True)

        return RawBatch(**{name: move(held) for name, held in vars(self).items()})


def cached_cuts(table: FaceTable, boxes: Boxes, spec: CropSpec, progress: Progress | None = None) -> np.ndarray:
    """Cuts of all rows, uint8 [N, C, P, P], memory-mapped. Decoded once; later runs open the same file."""
    digest = hashlib.sha1(boxes.xyxy.tobytes()).hexdigest()
    path = cache_folder("cuts") / f"{key(spec, table.fingerprint, digest)}.npy"
    if not path.exists():
        _write_cuts(path, table, boxes, spec, progress)
    cuts: np.ndarray = np.load(path, mmap_mode="r")
    return cuts


def _write_cuts(path: Path, table: FaceTable, boxes: Boxes, spec: CropSpec, progress: Progress | None) -> None:
    side = spec.cut_size
    with atomic_path(path) as aside:
        cuts = new_array(aside, np.uint8, (len(table), spec.channels, side, side))

        def write(row: int) -> None:
            cuts[row] = cut(table.image(row), boxes.xyxy[row], spec)

        for _ in each_row(write, len(table), progress, "faces cut out"):
            pass
        cuts.flush()


def drawn(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, or of whatever it is an array of, in a fixed order."""
    chosen: np.ndarray = np.random.default_rng(0).permutation(rows)[:most]
    return chosen


def _with_few(targets: Targets, most: int) -> Targets:
    """The targets, of which only so many faces keep their labels."""
    kept = torch.zeros(len(targets.labelled), dtype=torch.bool)
    kept[drawn(np.flatnonzero(targets.labelled.any(1)), most)] = True
    return replace(targets, labelled=targets.labelled & kept[:, None])


class FacePool:
    """All faces of one part of a stage: their cuts, their targets, and how often each is seen an epoch.

    ratio: per table, how many times an epoch shows each of its faces (1: once; 0.5: every other one, drawn anew).
    balance: columns whose words are shown equally often (`polyface.data.sampling`), or tasks, of which faces with and
    without a label are; an epoch has as many faces, and ratios are of no account. kept: of a task so many faces keep
    their labels, drawn in a fixed order. `undetected` [N]: faces that are cropped without a detected box.
    """

    def __init__(
        self,
        tables: Sequence[tuple[FaceTable, Boxes, float]],
        crop: CropSpec,
        tasks: Mapping[str, Labeller],
        progress: Progress | None = None,
        balance: Sequence[str] = (),
        kept: Mapping[str, int] | None = None,
    ) -> None:
        if not tables or not any(len(table) for table, _, _ in tables):
            raise PolyfaceError("no face is left to read: check the stage's data and its splits")
        self.crop = crop
        self.table = FaceTable.concat([table for table, _, _ in tables])
        self.boxes = np.concatenate([boxes.xyxy for _, boxes, _ in tables])
        self.undetected = np.concatenate([np.isin(np.arange(len(table)), boxes.missed) for table, boxes, _ in tables])
        points = [boxes.points for _, boxes, _ in tables if boxes.points is not None]
        self.detector_points = np.concatenate(points) if len(points) == len(tables) else None
        self.sizes = [len(table) for table, _, _ in tables]
        self.ratios = [ratio for _, _, ratio in tables]
        self.cuts = [cached_cuts(table, boxes, crop, progress) for table, boxes, _ in tables]
        self._starts = np.cumsum([0, *self.sizes])
        self.crops = torch.from_numpy(crop.crops(self.boxes))
        self.targets: dict[str, Targets] = {name: task.targets(self.table) for name, task in tasks.items()}
        for name, most in (kept or {}).items():
            self.targets[name] = _with_few(self.targets[name], most)
        self._groups = [self._group(name) for name in balance]

    def _group(self, name: str) -> np.ndarray:
        """A column's words, or of a task whether faces have a label for it: [N]."""
        if name in self.targets and name not in self.table.columns:
            return self.targets[name].labelled.any(1).numpy()
        return self.table.words(name)

    @property
    def missed(self) -> int:
        """How many are undetected."""
        return int(self.undetected.sum())

    @property
    def balanced(self) -> bool:
        """Whether training shows groups of faces in turn."""
        return bool(self._groups)

    @classmethod
    def unlabelled(cls, table: FaceTable, boxes: Boxes, crop: CropSpec) -> FacePool:
        """Faces to predict on, of which nothing need be known."""
        return cls([(table, boxes, 1.0)], crop, {})

    def __len__(self) -> int:
        return len(self.table)

    def order(self, seed: int, stage: str, epoch: int, shuffle: bool) -> np.ndarray:
        """Rows in the order of this epoch."""
        if not shuffle:
            return np.arange(len(self))
        name = int.from_bytes(stage.encode()[:8].ljust(8, b"\1"), "little")
        generator = np.random.default_rng([seed, name, epoch, 1])
        if self._groups:
            return balanced(self._groups, generator)
        chosen = []
        for start, size, ratio in zip(self._starts, self.sizes, self.ratios, strict=False):
            left = round(size * ratio)
            while left > 0:
                chosen.append(start + generator.permutation(size)[:left])
                left -= size
        return generator.permutation(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)

    def cuts_of(self, rows: np.ndarray) -> Tensor:
        """uint8 [B, C, P, P]."""
        return rows_of(self.cuts, rows)


class Seen(Protocol):
    """What a frozen trunk makes of the faces of a pool (`polyface.data.features`): its maps by name."""

    def of(self, rows: np.ndarray) -> dict[str, Tensor]: ...

    def drawn(self, rows: np.ndarray, draws: np.ndarray) -> dict[str, Tensor]: ...


class FaceLoader:
    """Batches of a pool, one epoch an iteration; every rank of a distributed run takes its own share.

    Training (shuffle) drops the last incomplete batch; evaluation drops nothing. `first` skips batches of the current
    epoch that a stopped run has already seen.
    """

    def __init__(
        self,
        pool: FacePool,
        batch: int,
        *,
        seed: int = 0,
        stage: str = "",
        shuffle: bool,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pool, self.batch, self.seed, self.stage, self.shuffle = pool, batch, seed, stage, shuffle
        self.rank, self.world, self.epoch, self.first = rank, world, 0, 0
        self._cycle: np.ndarray | None = None
        self.features: Seen | None = None
        """Given in place of cuts, where there are any."""
        size = len(pool.order(seed, stage, 0, shuffle))
        self._batches = size // (batch * world) if shuffle else -(-size // (batch * world))
        if shuffle and not self._batches:
            raise PolyfaceError(f"{size} training faces do not fill one batch of {batch} on {world} process(es)")

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[RawBatch]:
        rows = self.pool.order(self.seed, self.stage, self.epoch, self.shuffle)
        random = draws(self.seed, self.stage, self.epoch, len(self.pool)) if self.shuffle else None
        step, first, self.first = self.batch * self.world, self.first, 0
        for index in range(first, self._batches):
            batch = rows[index * step : (index + 1) * step]
            # balanced rows take turns: if processes did so too, one would have the photos and one the caricatures
            runs = self.shuffle and self.pool.balanced
            mine = np.array_split(batch, self.world)[self.rank] if runs else batch[self.rank :: self.world]
            yield self._raw(mine, random)

    def some(self, step: int, faces: int) -> RawBatch:
        """This rank's share of the step's `faces` next faces of one fixed, shuffled cycle through the pool."""
        cycle = self._shuffled()
        places = (step * faces + np.arange(faces)) % len(cycle)
        return self._raw(np.array_split(cycle[places], self.world)[self.rank], None)

    def fixed(self, faces: int) -> Iterator[RawBatch]:
        """This rank's share of that cycle's first `faces` faces (of all, if there are fewer), batch by batch, as they
        are: the same at every call."""
        rows, step = self._shuffled()[:faces], self.batch * self.world
        for start in range(0, len(rows), step):
            yield self._raw(np.array_split(rows[start : start + step], self.world)[self.rank], None)

    def _shuffled(self) -> np.ndarray:
        if self._cycle is None:
            self._cycle = np.random.default_rng([self.seed, 2]).permutation(len(self.pool))
        return self._cycle

    def _raw(self, rows: np.ndarray, random: np.ndarray | None) -> RawBatch:
        index = torch.from_numpy(rows)
        targets, maps = self.pool.targets, dict[str, Tensor]()
        if self.features:
            maps = self.features.of(rows) if random is None else self.features.drawn(rows, random[rows])
        return RawBatch(
            cuts=self.pool.cuts_of(rows[:0] if maps else rows),
            values={name: t.values[index] for name, t in targets.items()},
            labelled={name: t.labelled[index] for name, t in targets.items()},
            crops=self.pool.crops[index],
            rows=index,
            draws=torch.zeros(0) if random is None else torch.from_numpy(random[rows]),
            maps=maps,
        )


def assemble(
    raw: RawBatch,
    crop: CropSpec,
    tasks: Mapping[str, Labeller],
    augment: AugmentSpec | None,
    side: int | None = None,
) -> FaceBatch:
    """On the device: compose matrices, sample all cuts at once, move the targets along. No draws: no augmentation.

    side: of the images, in place of the crop's; crops and targets are as if they had the crop's. All is float32,
    whatever precision the network is run in.
    """
    with torch.autocast(raw.cuts.device.type, enabled=False):  # bfloat16 would move points by percents of the face
        return _assembled(raw, crop, tasks, augment, side or crop.size)


def _assembled(
    raw: RawBatch, crop: CropSpec, tasks: Mapping[str, Labeller], augment: AugmentSpec | None, side: int
) -> FaceBatch:
    to_input = torch.from_numpy(crop.cut_to_input()).to(raw.cuts.device)
    varied = augment is not None and len(raw.draws) > 0
    if varied and augment is not None:
        matrices = geometry(augment, raw.draws, to_input, crop.size)
    else:
        matrices = to_input.expand(len(raw.rows), 2, 3)
    through = matrices if side == crop.size else scaled(matrices, side / crop.size)
    images = sample(raw.cuts, through[: len(raw.cuts)], side)
    if varied and augment is not None and not raw.maps:
        images = photometry(augment, raw.draws, images)
    # raw.crops maps image → plain input; what augmentation adds comes after it
    extra = compose(matrices, invert(to_input).expand(len(raw.rows), 2, 3))
    crops = compose(extra, raw.crops)
    targets = {name: tasks[name].prepare(value, crops, crop.size) for name, value in raw.values.items()}
    labelled = {name: tasks[name].visible(mask, crops) for name, mask in raw.labelled.items()}
    return FaceBatch(images, targets, labelled, crops, raw.rows, raw.maps)
