"""Sheets of pictures that show what an encoder, a decoder and a generator have learnt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from polyface.files import atomic_path
from polyface.networks import FaceNetwork
from polyface.training.adversarial.objectives import AutoEncoder, picture

_COLUMNS, _BETWEEN, _WALKS = 8, 8, 6
_CELL, _GAP = 96, 2  # pixels: a small picture is enlarged by a whole number to about a cell

CAPTIONS = {
    "samples": "Generated faces.",
    "reconstructions": "Faces, and below each what encoder and decoder make of it.",
    "interpolations": "From the face on the left to that on the right, in equal steps between their latent vectors.",
}
"""What each sheet shows, by its name."""


@dataclass(frozen=True)
class Looked:
    """The normalised faces [N, C, S, S] that are looked at after every epoch, and z [N, latent] of samples."""

    faces: Tensor
    z: Tensor

    def to(self, device: torch.device) -> Looked:
        return Looked(self.faces.to(device), self.z.to(device))


@torch.no_grad()
def pictures(network: FaceNetwork, looked: Looked) -> dict[str, Tensor]:
    """{"reconstructed" and, where there is a generator, "generated": normalised pictures [N, C, S, S]}."""
    looked = looked.to(network.mean.device)
    found = {"reconstructed": AutoEncoder(network)(looked.faces)}
    if "generator" in network.branches:
        found["generated"] = picture(network.branches["generator"], looked.z)
    return found


def spread(pictures: Tensor) -> float:
    """How much pictures [N, C, S, S] differ from each other: the deviation of a pixel, mean over all pixels."""
    return float(pictures.double().std(0, correction=0).mean())


@torch.no_grad()
def sheets(network: FaceNetwork, looked: Looked) -> dict[str, Tensor]:
    """The sheets by name, as normalised pictures [rows, columns, C, S, S]."""
    model, looked, made = AutoEncoder(network), looked.to(network.mean.device), pictures(network, looked)
    found = {"samples": _in_rows(made["generated"])} if "generated" in made else {}
    pairs = torch.stack([_in_rows(looked.faces), _in_rows(made["reconstructed"])], 1)
    found["reconstructions"] = pairs.flatten(0, 1)
    walks = min(_WALKS, len(looked.faces) // 2)
    faces = looked.faces[: 2 * walks]
    ends, latent = (each.reshape(walks, 2, *each.shape[1:]) for each in (faces, model.encode(faces)))
    along = torch.linspace(0, 1, _BETWEEN, device=latent.device)[:, None]
    between = latent[:, :1] * (1 - along) + latent[:, 1:] * along
    decoded = model.decode(between.flatten(0, 1)).reshape(walks, _BETWEEN, *faces.shape[1:])
    found["interpolations"] = torch.cat([ends[:, :1], decoded, ends[:, 1:]], 1)
    return found


def write_sheets(folder: Path, network: FaceNetwork, looked: Looked) -> dict[str, str]:
    """Write all sheets as PNG files, each whole or not at all: {file's name: what it shows}."""
    found = sheets(network, looked)
    for name, rows in found.items():
        write_sheet(folder / f"{name}.png", network, rows)
    return {f"{name}.png": CAPTIONS[name] for name in found}


def write_sheet(path: Path, network: FaceNetwork, rows: Tensor) -> None:
    """Write normalised pictures [rows, columns, C, S, S] as one picture. network: whose normalisation they have."""
    pixels = (rows * network.std + network.mean).round().clamp(0, 255).byte().cpu().numpy()
    pixels = pixels.repeat(enlarged := max(1, _CELL // pixels.shape[-1]), 3).repeat(enlarged, 4)
    framed = np.pad(pixels, [(0, 0), (0, 0), (0, 0), (_GAP, 0), (_GAP, 0)], constant_values=255)
    height, width = framed.shape[0] * framed.shape[3], framed.shape[1] * framed.shape[4]
    sheet = framed.transpose(0, 3, 1, 4, 2).reshape(height, width, -1)
    drawn_by = PngInfo()
    drawn_by.add_text("Software", "polyface")  # see `files.made_here`
    with atomic_path(path) as aside:
        Image.fromarray(sheet.squeeze(2) if sheet.shape[2] == 1 else sheet).save(aside, "PNG", pnginfo=drawn_by)


def _in_rows(given: Tensor) -> Tensor:
    """[N, …] → [rows, columns, …], without what does not fill a row."""
    columns = min(_COLUMNS, len(given))
    return given[: len(given) // columns * columns].reshape(-1, columns, *given.shape[1:])
