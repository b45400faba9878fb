"""Arrays in memory-mapped files, row by row those of several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor


def new_array(path: Path, dtype: DTypeLike, shape: Sequence[int]) -> np.memmap:
    """A new .npy file, to be filled in place."""
    array: np.memmap = np.lib.format.open_memmap(path, "w+", dtype, tuple(shape))
    if hasattr(os, "posix_fallocate"):  # so that a full disk is an error here and not a bus error further on
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def rows_of(parts: Sequence[np.ndarray], rows: np.ndarray) -> Tensor:
    """Rows [B, …] of arrays [N, …] as if they lay in one, each after the one before it."""
    if len(parts) == 1:
        return torch.from_numpy(parts[0][rows])
    starts = np.cumsum([0, *map(len, parts)])
    part = np.searchsorted(starts, rows, side="right") - 1
    out = np.empty((len(rows), *parts[0].shape[1:]), dtype=parts[0].dtype)
    for index, array in enumerate(parts):
        here = part == index
        out[here] = array[rows[here] - starts[index]]
    return torch.from_numpy(out)
