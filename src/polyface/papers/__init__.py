"""Papers: a folder each, with what it takes to reproduce one and to put what is measured beside what was printed.

`recipe.yaml` says what is trained and compared, `published.yaml` (see `polyface.report.published`) what the paper
prints, and `page.py` has, where a paper has rows or pictures of its own, `rows(runs)` or `sections(runs)`, and in
`VALIDATED` the variants whose answers on the validation faces these need. The recipe alone is needed. The folder's
name, with - for _, is the paper's and its recipe's: `polyface reproduce dmm-cnn`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import TYPE_CHECKING, Any

from polyface.report.published import Published, Statement, read_published
from polyface.training.papers import PAPERS

if TYPE_CHECKING:
    from polyface.metrics.result import Row
    from polyface.report.page import Section
    from polyface.reproduce import Runs

__all__ = ["PAPERS", "Paper", "paper"]


@dataclass(frozen=True)
class Paper:
    """What the folder of a paper holds beside its recipe; nothing for a recipe that is nobody's."""

    name: str
    figures: Sequence[Published] = field(default=(), repr=False)
    statements: Sequence[Statement] = field(default=(), repr=False)

    @property
    def validated(self) -> Sequence[str]:
        """The variants whose answers on the validation faces are kept too, for rows of the paper's own."""
        return tuple(getattr(self._page, "VALIDATED", ()))

    def rows(self, runs: Runs) -> Sequence[Row]:
        """The rows of the paper's own that its finished runs give, beside those of every recipe."""
        made: Sequence[Row] = self._given("rows", runs)
        return made

    def sections(self, runs: Runs) -> Sequence[Section]:
        """What the paper's own page shows of its finished runs."""
        made: Sequence[Section] = self._given("sections", runs)
        return made

    def _given(self, what: str, runs: Runs) -> Any:
        """What a function of the paper's page gives; nothing where there is none."""
        made = getattr(self._page, what, None)
        return made(runs) if made else []

    @cached_property
    def _page(self) -> ModuleType | None:
        """The paper's page; None where it has none."""
        file = PAPERS.get(self.name) / "page.py" if self.name in PAPERS else None
        if file is None or not file.is_file():
            return None
        spec = spec_from_file_location(f"polyface.papers._page_of_{self.name}", file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[spec.name] = module = module_from_spec(spec)  # where dataclasses look for it
        spec.loader.exec_module(module)
        return module


def paper(name: str) -> Paper:
    """The paper of a recipe's name, an empty one for a recipe of one's own."""
    published = PAPERS.get(name) / "published.yaml" if name in PAPERS else None
    return Paper(name, *read_published(published)) if published and published.is_file() else Paper(name)
