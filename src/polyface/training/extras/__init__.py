"""What a stage may ask for beside plain training: a file each, a key of the stage each."""

from __future__ import annotations

from polyface.registry import Registry, lacks

EXTRAS = Registry(
    "extra",
    group="polyface.extras",
    folder="polyface.training.extras",
    without=("base",),
    check=lambda part: lacks(part, "Spec", "add_losses", "end_epoch"),
)
"""Extras by name: subclasses of `Extra` (`polyface.training.extras.base`), called with (settings, `Setup`). The name is
the key of the stage that asks for it and holds the settings, which are of the class `Spec`."""
