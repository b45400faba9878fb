"""A network over all faces of a pool, with test-time augmentation or without."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from polyface.data.augment import AugmentSpec
from polyface.data.crops import CropSpec, compose, sample
from polyface.data.features import Features
from polyface.data.loader import FacePool
from polyface.data.table import Progress
from polyface.errors import PolyfaceError
from polyface.networks.network import FaceNetwork
from polyface.tasks import Task


def translations(count: int, spread: float, size: int, device: torch.device | str = "cpu") -> Tensor:
    """`count` shifts of up to ±spread crop sides as matrices [count, 2, 3]; the first is none, the rest are a fixed
    low-discrepancy set (golden-angle spiral), so that results repeat. TCDCN-Averaged uses 20 (Zhang et al. 2014)."""
    index = torch.arange(count, dtype=torch.float32, device=device)
    radius = spread * size * (index / max(count - 1, 1)).sqrt()
    angle = index * math.pi * (3 - math.sqrt(5))
    matrices = torch.eye(2, 3, device=device).repeat(count, 1, 1)
    matrices[:, 0, 2], matrices[:, 1, 2] = radius * angle.cos(), radius * angle.sin()
    return matrices


@dataclass(frozen=True)
class TTA:
    """Test-time augmentation: the crops of a face whose answers are averaged, `average` translations of up to ±`spread`
    crop sides (1: the crop as it is; 20 is TCDCN-Averaged, Zhang et al. 2014), and with `mirror` each of them mirrored
    as well."""

    average: int = 1
    spread: float = 0.03
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.average < 1 or self.spread < 0:
            raise PolyfaceError(f"average is {self.average}, spread {self.spread}: give at least 1, and at least 0")

    def __len__(self) -> int:
        return self.average * (1 + self.mirror)

    def matrices(self, size: int, device: torch.device | str = "cpu") -> Tensor:
        """[crops, 2, 3] from the plain input of side `size` to each crop."""
        shifts = translations(self.average, self.spread, size, device)
        if not self.mirror:
            return shifts
        flip = torch.tensor([[-1.0, 0.0, size - 1.0], [0.0, 1.0, 0.0]], device=device)
        return torch.cat([shifts, compose(flip, shifts)])


NO_TTA = TTA()


@dataclass(frozen=True)
class Degradation:
    """What a face suffers before a network sees it, to measure how much the network minds.

    covered: a flat grey square of so many crop sides lies on the face, each face's at a place of its own that is the
    same at every call; all of it is within the crop. pixels: the crop is shrunk to so many pixels a side, and enlarged
    again. 0 is neither.
    """

    covered: float = 0.0
    pixels: int = 0

    def __call__(self, images: Tensor, faces: np.ndarray) -> Tensor:
        """Images [B, C, S, S] in 0 … 255 of the faces with these numbers [B], degraded."""
        size = images.shape[-1]
        if self.pixels:
            small = F.interpolate(images, self.pixels, mode="bilinear", antialias=True)
            images = F.interpolate(small, size, mode="bilinear")
        if self.covered:
            side = self.covered * size
            along = torch.arange(size, device=images.device) + 0.5
            places = torch.from_numpy((faces[:, None] * _PLASTIC % 1).astype(np.float32)).to(images.device)
            start = (size - side) * places[:, :, None]
            row, column = ((along >= start[:, i]) & (along < start[:, i] + side) for i in (0, 1))
            images = images.masked_fill((row[:, :, None] & column[:, None])[:, None], 127.5)
        return images


_PLASTIC = np.array([0.7548776662466927, 0.5698402909980532])
"""Multiples of these, less their whole parts, fill a square evenly (Roberts 2018, the R2 sequence)."""


@torch.inference_mode()
def answers(
    network: FaceNetwork,
    tasks: Mapping[str, Task],
    cuts: Tensor,
    crops: Tensor,
    spec: CropSpec,
    tta: TTA = NO_TTA,
    maps: Mapping[str, Tensor] | None = None,
    degrade: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, dict[str, Any]]:
    """Decoded answers of every task for cuts uint8 [B, C, P, P] with their image→input crops [B, 2, 3].

    All crops of all faces go through the network as one batch; points are moved back and averaged, class probabilities,
    scores of attributes and embeddings averaged. A task that has an embedding answers it too, as "embedding" [B, E], or
    as "inner" where it is compared by its product as it is (`Embedding.answer`). Embeddings that are no task's, and all
    of a network that is asked for no task, are answered under their own names, {name: {"embedding": [B, E]}}.

    maps: of all crops of the first face, of the second, …, where they are known; then cuts are not looked at.
    degrade: takes the crops [B · crops, C, S, S] in that order, and gives what the network sees of them.
    """
    faces, to_input = len(crops), torch.from_numpy(spec.cut_to_input()).to(cuts.device)
    each, count = tta.matrices(spec.size, cuts.device), len(tta)
    if maps is None:
        matrices = compose(each, to_input).repeat(faces, 1, 1)
        images = sample(cuts.repeat_interleave(count, dim=0), matrices, spec.size)
        output = network(degrade(images) if degrade else images)
    else:
        output = network(maps)
    moved = compose(each.repeat(faces, 1, 1), crops.repeat_interleave(count, dim=0))

    def averaged(numbers: Mapping[str, np.ndarray], name: str | None) -> dict[str, np.ndarray]:
        """Over the crops of each face; an embedding among them is the one of that name."""
        found = dict(numbers)
        if name:
            found[network.embeddings[name].answer] = output.embeddings[name].float().cpu().numpy()
        if count > 1:
            found = {k: v.reshape(faces, count, *v.shape[1:]).mean(axis=1) for k, v in found.items()}
            if name and network.embeddings[name].similarity == "cosine":
                found["embedding"] /= np.linalg.norm(found["embedding"], axis=1, keepdims=True)
        return found

    read = {name: task.read(output.outputs[name], moved, spec.size) for name, task in tasks.items()}
    of_tasks = {name: tasks[name].conclude(averaged(each, network.embedding_of(name))) for name, each in read.items()}
    others = network.own_embeddings if tasks else network.embeddings
    return of_tasks | {name: averaged({}, name) for name in others}


def predict(
    network: FaceNetwork,
    tasks: Mapping[str, Task],
    pool: FacePool,
    *,
    batch: int = 256,
    tta: TTA = NO_TTA,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    cached: bool = False,
    degradation: Degradation | None = None,
) -> dict[str, dict[str, Any]]:
    """Decoded answers for all faces of a pool, in its order: {task: {"points": [N, P, 2], …}}.

    cached: keep what the trunk makes of them, or read what was kept; but for translations and degraded faces, which are
    other pictures.
    """
    network = network.to(device).eval()
    cached &= tta.average == 1 and degradation is None
    known = Features(network, pool, AugmentSpec(mirror=tta.mirror), progress) if cached else None
    batches = np.split(np.arange(len(pool)), range(step := max(1, batch // len(tta)), len(pool), step))
    parts: list[dict[str, dict[str, Any]]] = []
    for done, rows in enumerate(batches, 1):
        cuts, maps = pool.cuts_of(rows[:0] if known else rows).to(device), None
        if known:
            views = known.of(rows.repeat(len(tta)), np.tile([False, True][: len(tta)], len(rows)))
            maps = {name: values.to(device) for name, values in views.items()}
        degrade = partial(degradation, faces=rows.repeat(len(tta))) if degradation else None
        parts.append(answers(network, tasks, cuts, pool.crops[rows].to(device), pool.crop, tta, maps, degrade))
        if progress:
            progress(done, len(batches), "batches predicted")
    return {name: {key: _join([p[name][key] for p in parts]) for key in parts[0][name]} for name in parts[0]}


def _join(values: list[Any]) -> Any:
    return np.concatenate(values) if isinstance(values[0], np.ndarray) else [item for part in values for item in part]
