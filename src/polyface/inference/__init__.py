"""Trained models at work: bundles in, typed answers and pictures out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyface.inference.analyzer import Analyzer as Analyzer
    from polyface.inference.analyzer import analyze as analyze
    from polyface.inference.drawing import Drawings as Drawings
    from polyface.inference.drawing import draw as draw
    from polyface.inference.drawing import draw_all as draw_all
    from polyface.inference.embedder import BundleEmbedder as BundleEmbedder
    from polyface.inference.explainer import Explainer as Explainer
    from polyface.inference.journal import analyze_into as analyze_into
    from polyface.inference.results import FaceResult as FaceResult
    from polyface.inference.results import ImageResult as ImageResult
    from polyface.inference.results import to_json_lines as to_json_lines
    from polyface.inference.results import to_parquet as to_parquet

# Where each name lives. Loaded when asked for: listing models must not wait for the network engine.
_HOMES = {
    "Analyzer": "analyzer:Analyzer",
    "analyze": "analyzer:analyze",
    "analyze_into": "journal:analyze_into",
    "BundleEmbedder": "embedder:BundleEmbedder",
    "Explainer": "explainer:Explainer",
    "Drawings": "drawing:Drawings",
    "draw": "drawing:draw",
    "draw_all": "drawing:draw_all",
    "FaceResult": "results:FaceResult",
    "ImageResult": "results:ImageResult",
    "to_json_lines": "results:to_json_lines",
    "to_parquet": "results:to_parquet",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
