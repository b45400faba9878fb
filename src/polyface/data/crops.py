"""The one place for geometry: from an image to the network's input, and back.

A crop is a 2×3 similarity from image pixels to input pixels (pixel centres at integers in both). The same matrix moves
landmarks; its inverse brings predictions back. A face is cut out of its image once, antialiased, with some margin and
turned only if its box is (the *cut*, which is what the cache holds); augmentation then composes matrices and samples a
whole batch of cuts at once, on whatever device trains.

A box is x0, y0, x1, y1 in image pixels. One with a fifth number is turned by so many degrees about its centre,
clockwise as seen: its crop shows upright what leans that way in the image.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from polyface.data.boxes import check_boxes
from polyface.errors import PolyfaceError


class CropSpec(BaseModel):
    """How a face box becomes network input.

    size: side of the input in pixels. channels: 1 (grey) or 3 (RGB). scale: side of the crop over the longer side of
    the box. shift_y: how far the crop's centre lies below the box's (down the face, where the box is turned), in box
    sides. margin: how much wider than the crop the cut is, so that augmentation may move. oversample: pixels of the cut
    per input pixel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    size: int = Field(40, ge=8, le=1024)
    channels: Literal[1, 3] = 3
    scale: float = Field(1.3, gt=0, le=100)
    shift_y: float = Field(0.0, ge=-10, le=10)
    margin: float = Field(1.5, ge=1, le=10)
    oversample: float = Field(1.25, ge=0.1, le=10)

    @property
    def cut_size(self) -> int:
        """Side of the cut in pixels."""
        return round(self.size * self.margin * self.oversample)

    def squares(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes [N, 4] or [N, 5] → centres [N, 2], sides [N] (image pixels) and angles [N] (degrees) of their square
        crops."""
        boxes = np.asarray(boxes, dtype=np.float64)
        boxes = boxes.reshape(-1, 5 if boxes.shape[-1] == 5 else 4)
        angles = boxes[:, 4] if boxes.shape[1] == 5 else np.zeros(len(boxes))
        extent = boxes[:, 2:4] - boxes[:, :2]
        longer = extent.max(axis=1)
        check_boxes(boxes)
        turn = np.radians(angles)
        down = np.stack([-np.sin(turn), np.cos(turn)], axis=1)
        centres = (boxes[:, :2] + boxes[:, 2:4]) / 2 + (self.shift_y * longer)[:, None] * down
        return centres, longer * self.scale, angles

    def crops(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [N, 4] or [N, 5] → matrices [N, 2, 3] from image to input, float32."""
        centres, sides, angles = self.squares(boxes)
        zoom, turn = self.size / sides, np.radians(angles)
        cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
        matrices = np.zeros((len(sides), 2, 3))
        matrices[:, 0, 0] = matrices[:, 1, 1] = cos
        matrices[:, 0, 1], matrices[:, 1, 0] = sin, 0 - sin  # turned back
        matrices[:, :, 2] = (self.size - 1) / 2 - np.einsum("nij,nj->ni", matrices[:, :, :2], centres)
        return matrices.astype(np.float32)

    def cut_to_input(self) -> np.ndarray:
        """The matrix [2, 3] from cut to input; one for all faces."""
        zoom = self.size * self.margin / self.cut_size
        shift = (self.size - 1) / 2 - zoom * (self.cut_size - 1) / 2
        return np.array([[zoom, 0, shift], [0, zoom, shift]], dtype=np.float32)


_WIDEST = 12_000
"""The longest side, in pixels, of the square around a face that is held while the face is cut out."""


def cut(image: np.ndarray, box: np.ndarray, spec: CropSpec) -> np.ndarray:
    """Cut a face out of uint8 RGB [H, W, 3] by its box [4] or [5]: uint8 [channels, P, P], P = `spec.cut_size`; black
    outside the image."""
    (centre,), (side,), (angle,) = spec.squares(box)
    side, size, mode = side * spec.margin, spec.cut_size, "L" if spec.channels == 1 else "RGB"
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    reach = side * (abs(cos) + abs(sin))  # side of the level square that holds the turned one
    if reach > 8 * max(*image.shape[:2], 64):
        raise PolyfaceError(
            f"box {np.round(box, 1).tolist()} is far larger than its {image.shape[1]}×{image.shape[0]} image"
        )
    if reach > _WIDEST:  # a close-up of many megapixels is shrunk first: memory is bounded, and the cut is far smaller
        times = math.ceil(reach / _WIDEST)
        image = np.asarray(Image.fromarray(image).reduce(times))
        centre, side, reach = (centre + 0.5) / times - 0.5, side / times, reach / times
    if angle == 0:
        picture = _level(image, centre, side, size, mode)
    else:
        # Turned at twice the cut's resolution and halved: the three filters together are as wide as the level one.
        wide = math.ceil(2 * size * reach / side)
        picture = _level(image, centre, side * wide / (2 * size), wide, mode)
        turn = (cos, -sin, wide / 2 - size * (cos - sin), sin, cos, wide / 2 - size * (sin + cos))
        picture = picture.transform((2 * size,) * 2, Image.Transform.AFFINE, turn, Image.Resampling.BILINEAR).reduce(2)
    out = np.array(picture)
    return out[None] if spec.channels == 1 else np.ascontiguousarray(out.transpose(2, 0, 1))


def _level(image: np.ndarray, centre: np.ndarray, side: float, size: int, mode: str) -> Image.Image:
    """The square of this centre and side (image pixels), as a picture of `size` pixels; black outside the image."""
    half = side / 2
    edges = np.concatenate([centre - half, centre + half]) + 0.5  # Pillow counts from pixel edges
    left, top = math.floor(edges[0]), math.floor(edges[1])
    right, bottom = math.ceil(edges[2]), math.ceil(edges[3])
    # Only what the crop needs becomes a picture: an image of a crowd is not converted once a face.
    height, width = image.shape[:2]
    x0, y0, x1, y1 = min(max(left, 0), width), min(max(top, 0), height), min(right, width), min(bottom, height)
    region = Image.new(mode, (right - left, bottom - top))
    if x1 > x0 and y1 > y0:
        part = Image.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
        region.paste(part.convert(mode), (x0 - left, y0 - top))
    inner = (edges[0] - left, edges[1] - top, edges[2] - left, edges[3] - top)
    inner = tuple(np.clip(inner, 0, [region.width, region.height] * 2))
    return region.resize((size, size), Image.Resampling.BILINEAR, box=inner)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Matrices [..., 2, 3]: first `inner`, then `outer`."""
    linear = outer[..., :, :2]
    return torch.cat([linear @ inner[..., :, :2], linear @ inner[..., :, 2:] + outer[..., :, 2:]], dim=-1)


def invert(matrices: Tensor) -> Tensor:
    """The inverse maps of matrices [..., 2, 3]."""
    a, b, c, d = (matrices[..., i, j] for i in (0, 1) for j in (0, 1))
    linear = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2) / (a * d - b * c)[..., None, None]
    return torch.cat([linear, -linear @ matrices[..., :, 2:]], dim=-1)


def transform(matrices: Tensor, points: Tensor) -> Tensor:
    """Move points [..., P, 2] by matrices [..., 2, 3]."""
    return points @ matrices[..., :, :2].transpose(-1, -2) + matrices[..., None, :, 2]


def is_mirrored(matrices: Tensor) -> Tensor:
    """Bool [...]: whether a matrix [..., 2, 3] turns left into right."""
    return matrices[..., 0, 0] * matrices[..., 1, 1] < matrices[..., 0, 1] * matrices[..., 1, 0]


def around_centre(size: int, angle: Tensor, zoom: Tensor, shift: Tensor, mirror: Tensor) -> Tensor:
    """Similarities [B, 2, 3] of an input of side `size` about its centre.

    angle [B] in degrees (clockwise as seen), zoom [B], shift [B, 2] in input sides, mirror [B] bool (applied first).
    """
    cos, sin = zoom * torch.deg2rad(angle).cos(), zoom * torch.deg2rad(angle).sin()
    flip = torch.where(mirror, -1.0, 1.0)
    linear = torch.stack([torch.stack([cos * flip, -sin], -1), torch.stack([sin * flip, cos], -1)], -2)
    middle = torch.full((1, 2, 1), (size - 1) / 2, device=linear.device)
    return torch.cat([linear, middle - linear @ middle + shift[..., None] * size], dim=-1)


def scaled(matrices: Tensor, factor: float) -> Tensor:
    """Matrices [B, 2, 3] to an input that is `factor` times as wide: edges stay edges, at −½ and side − ½."""
    middle = torch.full((2, 1), (factor - 1) / 2, device=matrices.device)
    return torch.cat([matrices[:, :, :2] * factor, matrices[:, :, 2:] * factor + middle], dim=-1)


def sample(cuts: Tensor, matrices: Tensor, size: int) -> Tensor:
    """Sample cuts uint8 [B, C, P, P] through matrices [B, 2, 3] (cut → input): float [B, C, size, size] in 0..255.

    Bilinear; black outside the cut. One call for the whole batch, on the cuts' device.
    """
    source = cuts.shape[-1]
    if not len(cuts):  # a process of a distributed run may have no face in the last batch
        return torch.zeros(0, cuts.shape[1], size, size, device=cuts.device)
    inverse = invert(matrices)
    # From pixels to the −1 … 1 of grid_sample (edges at ±1): n = (2u + 1)/P − 1, and back on the output's side.
    linear = inverse[:, :, :2] * (size / source)
    middle = torch.full((2, 1), (size - 1) / 2, device=cuts.device)
    shift = (2 * (inverse[:, :, :2] @ middle + inverse[:, :, 2:]) + 1) / source - 1
    grid = torch.nn.functional.affine_grid(
        torch.cat([linear, shift], dim=-1), [cuts.shape[0], cuts.shape[1], size, size], align_corners=False
    )
    return torch.nn.functional.grid_sample(
        cuts.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
