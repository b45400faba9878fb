"""The small models, detector and pictures of `tests/toys.py`, and ONNX files that several tests look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyface.export.onnx import export_onnx
from polyface.models.bundle import Bundle

from ..toys import five, make, picture, saved, sixty_eight, told


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``exported(bundle, **options)``: its ONNX file, which must be left as it is. Networks of one config are exported
    once, so their weights must be the same."""
    folder = tmp_path_factory.mktemp("exported")
    found: dict[str, Path] = {}

    def file(bundle: Bundle, **options: Any) -> Path:
        key = json.dumps([bundle.network.config, options], sort_keys=True)
        if key not in found:
            path = folder / str(len(found)) / "model.onnx"
            path.parent.mkdir()
            assert export_onnx(bundle, path, **options) <= 1e-4
            assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]  # one file, weights inside
            found[key] = path
        return found[key]

    return file


__all__ = ["exported", "five", "make", "picture", "saved", "sixty_eight", "told"]
