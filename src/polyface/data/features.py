"""What a frozen trunk makes of faces: computed once, kept in memory-mapped files, read in place of pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyface.data.arrays import new_array, rows_of
from polyface.data.augment import AugmentSpec, mirrored
from polyface.data.crops import CropSpec, around_centre, compose, sample
from polyface.data.loader import FacePool
from polyface.data.table import Progress
from polyface.files import PATIENCE, atomic_path, cache_folder, lock
from polyface.networks import FaceNetwork
from polyface.networks.layers import fingerprint

_BATCH = 64
_log = logging.getLogger(__name__)


class Features:
    """The maps of a network's frozen trunk of all faces of a pool, as they are and, where `augment` mirrors, mirrored.

    Always in float32 and of the crop as it is: another variation than `mirror` would show other pictures.
    """

    def __init__(
        self, network: FaceNetwork, pool: FacePool, augment: AugmentSpec, progress: Progress | None = None
    ) -> None:
        views = (False, True) if augment.mirror else (False,)
        found = [cached_maps(network, cuts, pool.crop, flip, progress) for flip in views for cuts in pool.cuts]
        self._maps = {name: [maps[name] for maps in found] for name in network.trunk_maps}
        self._faces, self._augment = len(pool), augment

    def of(self, rows: np.ndarray, flip: np.ndarray | bool = False) -> dict[str, Tensor]:
        """Maps by name, [B, …], of faces of the pool; flip: which of them [B] are mirrored, or whether all are."""
        places = rows + self._faces * np.asarray(flip)
        maps = {name: rows_of(parts, places) for name, parts in self._maps.items()}
        return {  # laid out as convolutions leave them (see `networks.build`)
            name: values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values
            for name, values in maps.items()
        }

    def drawn(self, rows: np.ndarray, draws: np.ndarray) -> dict[str, Tensor]:
        """The same in training, by the faces' random numbers of the epoch [B, DRAWS]."""
        return self.of(rows, mirrored(self._augment, torch.from_numpy(draws)).numpy())


def cached_maps(
    network: FaceNetwork, cuts: np.ndarray, crop: CropSpec, flip: bool, progress: Progress | None = None
) -> Mapping[str, np.ndarray]:
    """The maps that a network reads of its trunk, float32 [N, …], memory-mapped, of the faces in a file of cuts, or of
    their mirror images.

    Computed once, on the device where the network is; later runs open the same files, as do other networks with the
    same trunk. These are known by the faces and crop of the cuts (the file's name) and the trunk's options and weights.
    """
    assert isinstance(cuts, np.memmap)
    told = {name: network.config.get(name) for name in ("trunk", "normalise")}
    told |= {"cuts": Path(str(cuts.filename)).stem, "mirrored": flip}
    key = fingerprint(network.trunk, told)[:24]
    folder = cache_folder("features")
    files = {name: folder / f"{key}-{name}.npy" for name in network.trunk_maps}
    maps = {name: _whole(file, len(cuts)) for name, file in files.items()}
    if any(values is None for values in maps.values()):
        with lock(folder / key, wait=PATIENCE):
            lacking = {name: file for name, file in files.items() if _whole(file, len(cuts)) is None}
            for file in (file for file in lacking.values() if file.exists()):
                _log.warning("%s: is not whole; what it held is computed anew", file)
            if lacking:
                _write(lacking, network, cuts, crop, flip, progress)
    return {
        name: np.load(file, mmap_mode="r") if (held := maps[name]) is None else held for name, file in files.items()
    }


def _whole(file: Path, faces: int) -> np.ndarray | None:
    """What a file of maps holds, memory-mapped; None where there is none, or it was cut short or is another thing."""
    with suppress(OSError, ValueError):
        maps: np.ndarray = np.load(file, mmap_mode="r")
        if maps.dtype == np.float32 and len(maps) == faces:
            return maps
    return None


@torch.inference_mode()
def _write(
    files: Mapping[str, Path],
    network: FaceNetwork,
    cuts: np.ndarray,
    crop: CropSpec,
    flip: bool,
    progress: Progress | None,
) -> None:
    still = torch.zeros(1)
    view = around_centre(crop.size, still, still + 1, still.expand(1, 2), torch.tensor([flip]))
    matrices = compose(view, torch.from_numpy(crop.cut_to_input())).to(device := network.mean.device)
    arrays: dict[str, np.memmap] = {}
    with ExitStack() as written:
        for start in range(0, len(cuts), _BATCH):
            some = rows_of([cuts], np.arange(start, min(start + _BATCH, len(cuts)))).to(device)
            images = sample(some, matrices.expand(len(some), 2, 3), crop.size)
            maps = network.features(images.to(memory_format=torch.channels_last))
            for name, file in files.items():
                if name not in arrays:
                    aside = written.enter_context(atomic_path(file))
                    arrays[name] = new_array(aside, np.float32, (len(cuts), *maps[name].shape[1:]))
                arrays[name][start : start + len(some)] = maps[name].cpu().numpy()
            if progress:
                progress(start + len(some), len(cuts), "faces seen by the trunk")
        for array in arrays.values():
            array.flush()
