"""All kinds of parts, and where each kind's registry is: for `polyface parts` and `polyface.register`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from polyface.errors import PolyfaceError, nearest
from polyface.registry import Registry

KINDS: dict[str, str] = {
    "reader": "polyface.data.readers:READERS",
    "task": "polyface.tasks:TASKS",
    "trunk": "polyface.networks.trunks:TRUNKS",
    "part": "polyface.networks.parts:PARTS",
    "weights": "polyface.networks.pretrained:PRETRAINED",
    "weighting": "polyface.weighting:WEIGHTINGS",
    "learner": "polyface.training.learners:LEARNERS",
    "extra": "polyface.training.extras:EXTRAS",
    "protocol": "polyface.protocols:PROTOCOLS",
    "paper": "polyface.papers:PAPERS",
}


def registry(kind: str) -> Registry:
    """The registry of a kind of parts ("task")."""
    if kind not in KINDS:
        raise PolyfaceError(f"no kind of parts is called '{kind}'; {nearest(kind, KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    found: Registry = getattr(import_module(module), name)
    return found


def register(kind: str, name: str, part: Any) -> None:
    """Let `name` mean `part` in this process: `polyface.register("task", "mine", MyTask)` in a notebook or script.

    A part that other processes need, or that others install, is named by an entry point of a package instead
    (docs/extending.md).

    Raises:
        PolyfaceError: an unknown kind, or something that is no part of this kind.
    """
    registry(kind).add(name, part)
