"""How a stage is trained: a file each, named by the stage's key `learner`."""

from __future__ import annotations

from polyface.registry import Registry, lacks

LEARNERS = Registry(
    "learner",
    group="polyface.learners",
    folder="polyface.training.learners",
    check=lambda part: lacks(part, "Spec", "run"),
)
"""Learners by name: classes with `Spec`, the class of their stages' settings (a subclass of `specs.BaseStage`), and
`run(stage, context) -> StageResult`, a static method that trains a stage (see `polyface.training.stages`)."""
