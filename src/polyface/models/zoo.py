"""The models that come with Polyface: bundles in the package's `weights` folder, each with its card."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from polyface.errors import PolyfaceError, nearest

EMBEDDER = "identity"
"""The shipped model that a gallery embeds with when none is named."""

# As in `networks.bundle`, which is not imported here: listing models needs no network engine.
_MANIFEST, _CARD = "polyface.json", "README.md"


@dataclass(frozen=True)
class ModelInfo:
    """A model: its bundle's folder, task names, megabytes on disk, terms of use, and all its bundle says (`about`:
    data, figures, …)."""

    name: str
    path: Path
    tasks: tuple[str, ...]
    size_mb: float
    terms: str
    about: dict[str, Any] = field(repr=False)

    @property
    def card(self) -> str:
        """The model card, Markdown; empty where there is none."""
        path = self.path / _CARD
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @property
    def stands_in_for(self) -> str:
        """The larger shipped model whose questions it answers too, more quickly; empty where it is no stand-in."""
        return str(self.about.get("stands in for", ""))

    @property
    def added(self) -> list[str]:
        """What was added to it since it was trained first (`polyface extend`), a line each: tasks, data, date."""
        lines = []
        for one in self.about.get("added", ()):
            tables = ", ".join(f"{faces['table']} ({faces['faces']:,} faces)" for faces in one["data"])
            lines.append(f"{', '.join(one['tasks'])}: added on {one['date']} from {tables}")
        return lines


def shipped_folder() -> Path:
    """Where shipped models lie."""
    return Path(str(resources.files("polyface") / "weights"))


def models() -> list[ModelInfo]:
    """All shipped models, by name; an empty list where the installation holds none."""
    return [_info(manifest.parent) for manifest in sorted(shipped_folder().glob(f"*/{_MANIFEST}"))]


def default_models() -> list[Path]:
    """The bundles that answer when none is named: all shipped ones with a task, but those that stand in for another.
    Raises where there is none."""
    found = [model.path for model in models() if model.tasks and not model.stands_in_for]
    if not found:
        raise PolyfaceError(
            "this installation ships no model: train one (`polyface train RECIPE`) and give its bundle's folder"
        )
    return found


def find(model: str | Path) -> Path:
    """The bundle's folder of a shipped model's name, or of a folder that holds a bundle."""
    path = Path(model)
    names = {info.name: info.path for info in models()}
    if isinstance(model, str) and model in names:
        return names[model]
    if (path / _MANIFEST).is_file():
        return path
    if path.exists() or os.sep in str(model):
        reason = f"it holds no {_MANIFEST}" if path.is_dir() else "there is no such folder"
        raise PolyfaceError(f"{path}: not a model bundle ({reason}); give the folder that `polyface train` wrote")
    hint = nearest(str(model), names) if names else "this installation ships none; give a bundle's folder"
    raise PolyfaceError(f"no model '{model}': {hint}")


def model_info(model: str | Path) -> ModelInfo:
    """What is known of a shipped model's name, or of a folder that holds a bundle."""
    folder = find(model)
    info = _info(folder, "get the bundle again")
    return replace(info, name=str(info.about.get("name") or folder.name))


def _info(folder: Path, remedy: str = "install Polyface again") -> ModelInfo:
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        about, tasks = dict(manifest["about"]), tuple(manifest["tasks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PolyfaceError(f"{path}: not a readable model manifest ({error}); {remedy}") from error
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return ModelInfo(folder.name, folder, tasks, size / 1e6, str(about.get("terms", "")), about)
