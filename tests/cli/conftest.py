"""The command as a user types it, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from polyface.cli import main

from ..toys import five, make, saved, sixty_eight, told
from ..training.conftest import toy

__all__ = ["five", "make", "polyface", "saved", "sixty_eight", "told", "toy"]


class Answer(NamedTuple):
    """What a command printed, and its exit status."""

    out: str
    err: str
    status: int

    @property
    def mistake(self) -> str:
        """The one line that tells a user what was wrong."""
        assert self.status == 1, self
        assert "Traceback" not in self.err
        last = self.err.strip().splitlines()[-1]
        assert last.startswith("polyface: "), self.err
        return last


@pytest.fixture
def polyface(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """``polyface("data", "list")``: what the command prints."""

    def run(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["polyface", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main()
        told = capsys.readouterr()
        return Answer(told.out, told.err, int(leaving.value.code or 0))

    return run
