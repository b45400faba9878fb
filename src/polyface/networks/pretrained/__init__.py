"""Published weights from packages that ship them, or from files: nothing is downloaded at run time."""

from __future__ import annotations

from pathlib import Path

from polyface.networks.pretrained.base import SUFFIXES, PublishedWeights
from polyface.registry import Registry, lacks

__all__ = ["PRETRAINED", "PublishedWeights", "published"]

PRETRAINED = Registry(
    "weights",
    group="polyface.weights",
    folder="polyface.networks.pretrained",
    without=("base", "facenet", "files"),
    check=lambda part: lacks(part, "start", "adapt"),
)
"""Kinds of published weights by name: subclasses of `PublishedWeights`."""


def published(source: str) -> PublishedWeights | None:
    """The weights of a kind's name, or of a .safetensors, .pth or .pt file; None of anything else, such as a bundle."""
    if source in PRETRAINED:
        made: PublishedWeights = PRETRAINED.get(source)(source)
        return made
    if Path(source).suffix in SUFFIXES:
        from polyface.networks.pretrained.files import FileWeights

        return FileWeights(source)
    return None
