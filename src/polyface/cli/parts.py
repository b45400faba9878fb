"""`polyface parts`: what recipes can name."""

from __future__ import annotations

from typing import Annotated

import typer

from polyface.cli.common import say


def parts(
    kind: Annotated[str | None, typer.Argument(help="Only parts of this kind: reader, task, trunk, …")] = None,
) -> None:
    """The parts that recipes can name, each with a line on what it is; those of other packages say whose they are."""
    from polyface.parts import KINDS, registry

    for one in [kind] if kind else KINDS:
        chosen = registry(one)
        say(f"{one} (entry points: {chosen.group})")
        for name in sorted(chosen.names()):
            origin = chosen.origin(name)
            say(f"  {name:18} {chosen.about(name)}{'' if origin == 'polyface' else f' [{origin}]'}")
