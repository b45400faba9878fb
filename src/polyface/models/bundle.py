"""A model bundle: a folder with the weights and everything needed to use them, and nothing that executes.

`model.safetensors` and `polyface.json` (network, tasks, crop, boxes, terms, data, figures, SHA-256 of the weights).
Training writes it and can start from it; inference reads it without the recipe.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from safetensors.torch import save_file

from polyface import tasks as task_kinds
from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec
from polyface.errors import PolyfaceError, short
from polyface.files import atomic_folder, read_model, sha256
from polyface.networks import layers
from polyface.networks.network import FaceNetwork, build
from polyface.networks.pretrained.files import read_weights
from polyface.tasks import Task

WEIGHTS, MANIFEST = "model.safetensors", "polyface.json"
_told: set[str] = set()


class Manifest(BaseModel):
    """What `polyface.json` holds. tasks: by name. about: terms, data, figures, name. sha256: of the weights."""

    format: Literal[1]
    network: dict[str, Any]
    tasks: dict[str, Any]
    crop: CropSpec
    boxes: BoxSpec
    about: dict[str, Any]
    sha256: str


@dataclass
class Bundle:
    """A network with its tasks, the crop it expects, and what is known of it (`about`: terms, data, figures, name)."""

    network: FaceNetwork
    tasks: dict[str, Task]
    crop: CropSpec
    boxes: BoxSpec = field(default_factory=BoxSpec)
    about: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path | str, dtype: torch.dtype = torch.float32) -> Path:
        """Write the bundle as `folder`, whole or not at all; floating tensors are stored as `dtype`."""
        folder = Path(folder)
        if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise PolyfaceError(f"{folder}: is there, and is no model bundle; name another folder, or move it away")
        with atomic_folder(folder) as aside:
            state = {
                name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
                for name, tensor in self.network.state_dict().items()
            }
            save_file(state, aside / WEIGHTS)
            manifest = Manifest(
                format=1,
                network=self.network.config,
                tasks={name: task.config() for name, task in self.tasks.items()},
                crop=self.crop,
                boxes=self.boxes,
                about=self.about,
                sha256=sha256(aside / WEIGHTS),
            )
            told = json.dumps(manifest.model_dump(), indent=1, ensure_ascii=False)
            (aside / MANIFEST).write_text(told, encoding="utf-8")
            os.chmod(aside / WEIGHTS, 0o644)  # safetensors writes for the owner alone
        return folder


def load_bundle(folder: Path | str, quiet: bool = False) -> Bundle:
    """Read a bundle, checking the hash, names, shapes and dtypes of its weights; refuses it with one line otherwise.

    Prints the model's terms of use to stderr, once a process for each model, unless `quiet`.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise PolyfaceError(
            f"{folder}: not a model bundle ({MANIFEST} is missing); `polyface models` lists what is here"
        )
    manifest = read_model(Manifest, folder / MANIFEST, "get the bundle again, or the version that wrote it")
    weights = folder / WEIGHTS
    if not weights.exists():
        raise PolyfaceError(f"{folder}: {WEIGHTS} is missing; get the bundle again")
    if sha256(weights) != manifest.sha256:
        raise PolyfaceError(
            f"{weights}: its SHA-256 is not the one in {MANIFEST}: the weights were changed; get them again"
        )
    state = read_weights(weights)
    network, tasks = _built(folder / MANIFEST, manifest)
    expected = network.state_dict()
    for name in sorted({*expected, *state}):
        if name not in state or name not in expected:
            what = "missing" if name not in state else "unknown"
            raise PolyfaceError(f"{weights}: tensor '{name}' is {what}; the bundle is not whole, get it again")
        have, want = state[name], expected[name]
        if have.shape != want.shape or have.is_floating_point() != want.is_floating_point():
            raise PolyfaceError(
                f"{weights}: tensor '{name}' is {have.dtype} {list(have.shape)}, "
                f"expected {want.dtype} {list(want.shape)}"
            )
        if have.is_floating_point() and not have.isfinite().all():
            raise PolyfaceError(f"{weights}: tensor '{name}' holds a value that is not finite; get the bundle again")
    network.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in state.items()})
    network.eval()
    terms = manifest.about.get("terms")
    if terms and not quiet and manifest.sha256 not in _told:
        _told.add(manifest.sha256)
        print(f"{manifest.about.get('name', folder.name)}: {terms}", file=sys.stderr)
    return Bundle(network, tasks, manifest.crop, manifest.boxes, manifest.about)


def fingerprint(network: FaceNetwork, **settings: Any) -> str:
    """Twelve hex digits of a network, its weights, and whatever else its answers depend on."""
    return layers.fingerprint(network, {"network": network.config, **settings})[:12]


def _built(path: Path, manifest: Manifest) -> tuple[FaceNetwork, dict[str, Task]]:
    """Network and tasks as the manifest says, and that they and the crop fit each other."""
    try:
        network = build(manifest.network)
        tasks = {name: task_kinds.build(name, config) for name, config in manifest.tasks.items()}
    except PolyfaceError as error:
        raise PolyfaceError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {short(error)}"
        raise PolyfaceError(f"{path}: its network cannot be built ({reason}); get the bundle again") from error
    heads = {name: head.out_features for name, head in network.heads.items()}
    asked = {name: task.output_dim for name, task in tasks.items()}
    if heads != asked:
        raise PolyfaceError(f"{path}: its heads {heads} are not what its tasks need {asked}; get the bundle again")
    crop = manifest.crop
    if (network.size, network.channels) != (crop.size, crop.channels):
        raise PolyfaceError(
            f"{path}: its crop is {crop.channels}×{crop.size}², its network's input is not; get it again"
        )
    return network, tasks
