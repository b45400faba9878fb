"""Whether a training has collapsed: it learns no more, or makes the same picture of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyface.training.adversarial.specs import CollapseSpec


def collapsed(history: Sequence[Mapping[str, Any]], spec: CollapseSpec) -> str | None:
    """What is wrong with a run after its last epoch, in a few words; None: nothing.

    history: of each epoch "spread", how much reconstructed and generated pictures differ from each other, in shares of
    how much faces do; and the mean M of "equilibrium".
    """
    for name, share in history[-1]["spread"].items():
        if len(history) > 1 and max(row["spread"].get(name, 1.0) for row in history[-2:]) < spec.spread:
            return f"{name} pictures are nearly the same: they differ {share:.1%} as much as faces do"
    measures = [row["equilibrium"]["M"] for row in history]
    before, lately = measures[: -spec.stalled], measures[-spec.stalled :]
    if before and min(lately) >= min(before):
        return f"M has not fallen for {spec.stalled} epochs: {min(before):.4g} before, {min(lately):.4g} since"
    return None
