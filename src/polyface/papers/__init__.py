"""Papers: a folder each, with what it takes to reproduce one and to put what is measured beside what was printed.

`recipe.yaml` says what is trained and compared, `published.yaml` (see `polyface.report.published`) what the paper
prints, and `page.py` has, where a paper has pictures of its own, `sections(runs)`. The recipe alone is needed. The
folder's name, with - for _, is the paper's and its recipe's: `polyface reproduce dmm-cnn`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

from polyface.report.published import Published, Statement, read_published
from polyface.training.papers import PAPERS

if TYPE_CHECKING:
    from polyface.report.page import Section
    from polyface.reproduce import Runs

__all__ = ["PAPERS", "Paper", "paper"]


@dataclass(frozen=True)
class Paper:
    """What the folder of a paper holds beside its recipe; nothing for a recipe that is nobody's."""

    name: str
    figures: Sequence[Published] = field(default=(), repr=False)
    statements: Sequence[Statement] = field(default=(), repr=False)

    def sections(self, runs: Runs) -> Sequence[Section]:
        """What the paper's own page shows of its finished runs."""
        file = PAPERS.get(self.name) / "page.py" if self.name in PAPERS else None
        if file is None or not file.is_file():
            return []
        spec = spec_from_file_location(f"polyface.papers._page_of_{self.name}", file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[spec.name] = module = module_from_spec(spec)  # where dataclasses look for it
        spec.loader.exec_module(module)
        made: Sequence[Section] = module.sections(runs)
        return made


def paper(name: str) -> Paper:
    """The paper of a recipe's name, an empty one for a recipe of one's own."""
    published = PAPERS.get(name) / "published.yaml" if name in PAPERS else None
    return Paper(name, *read_published(published)) if published and published.is_file() else Paper(name)
