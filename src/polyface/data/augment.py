"""Random variation of a batch, as a pure function of each face's own random numbers."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from polyface.data.crops import around_centre, compose

DRAWS = 11
"""Uniform numbers in [0, 1) that one face uses in one epoch."""


class AugmentSpec(BaseModel):
    """How far a training crop may stray. All amounts are the ends of uniform ranges; 0 switches one off.

    rotate: ± degrees. zoom: ± of the logarithm of scale (0.1: 0.905 … 1.105). shift: ± sides of the crop.
    mirror: probability. contrast, brightness: ± relative to 1, ± of 255. erase: probability that a square of up to
    `erase_size` sides turns into flat grey.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    rotate: float = Field(0.0, ge=0, le=180)
    zoom: float = Field(0.0, ge=0, le=1)
    shift: float = Field(0.0, ge=0, le=1)
    mirror: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    brightness: float = Field(0.0, ge=0, le=1)
    erase: float = Field(0.0, ge=0, le=1)
    erase_size: float = Field(0.4, gt=0, le=1)

    @property
    def varied(self) -> list[str]:
        """What is not switched off."""
        return [name for name, amount in self if amount and name != "erase_size"]


def draws(seed: int, stage: str, epoch: int, rows: int) -> np.ndarray:
    """Every face's random numbers for an epoch, float32 [rows, DRAWS]: the same for the same seed, stage and epoch."""
    return random_of(seed, stage, epoch).random((rows, DRAWS), dtype=np.float32)


def random_of(seed: int, stage: str, *place: int) -> np.random.Generator:
    """The random numbers that belong to a place of a stage's training, such as an epoch: the same at every call."""
    name = int.from_bytes(stage.encode()[:8].ljust(8, b"\0"), "little")
    return np.random.default_rng([seed, name, *place])


def mirrored(spec: AugmentSpec, u: Tensor) -> Tensor:
    """Bool [B]: which faces are mirrored."""
    return u[:, 4] < spec.mirror


def geometry(spec: AugmentSpec, u: Tensor, cut_to_input: Tensor, size: int) -> Tensor:
    """Matrices [B, 2, 3] from cut to the varied input, from uniform numbers u [B, DRAWS]."""
    v = 2 * u - 1
    varied = around_centre(
        size, spec.rotate * v[:, 0], torch.exp(spec.zoom * v[:, 1]), spec.shift * v[:, 2:4], mirrored(spec, u)
    )
    return compose(varied, cut_to_input)


def photometry(spec: AugmentSpec, u: Tensor, images: Tensor) -> Tensor:
    """Contrast, brightness and erasing of images [B, C, S, S] in 0..255."""
    if spec.contrast or spec.brightness:
        v = (2 * u - 1)[:, :, None, None]
        images = (images - 127.5) * (1 + spec.contrast * v[:, 5:6]) + 127.5 + 255 * spec.brightness * v[:, 6:7]
        images = images.clamp(0, 255)
    if spec.erase:
        size = images.shape[-1]
        half = u[:, 8, None] * spec.erase_size * size / 2
        along = torch.arange(size, device=images.device)
        inside = [(along - u[:, i, None] * (size - 1)).abs() <= half for i in (9, 10)]
        hidden = inside[0][:, :, None] & inside[1][:, None, :] & (u[:, 7] < spec.erase)[:, None, None]
        images = images.masked_fill(hidden[:, None], 127.5)
    return images
