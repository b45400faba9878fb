"""Fixtures and settings that every test shares."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports torch or numpy, and inherited by the processes that tests start. One thread: the tests run in
# two processes side by side, and figures that must repeat bit for bit need a fixed number of threads.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may need the network
os.environ["MPLBACKEND"] = "Agg"
os.environ["NO_COLOR"] = "1"
os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"  # the same help text under CI and in a terminal
os.environ.pop("FORCE_COLOR", None)

# No deadline: the first example of a property pays for imports. The function-scoped check is off because fixtures such
# as tmp_path are read-only to the properties that use them.
settings.register_profile(
    "default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

REAL_TESTS = Path(__file__).parent / "real"
NO_DATA = "POLYFACE_DATA is not set: it names the folder that holds the real data sets (mtfl/, 300w/, ...)"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=2, help="how often tests/faults kills each command")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in tests/real, and skip it where there are no real data sets."""
    for item in items:
        if item.path.is_relative_to(REAL_TESTS):
            item.add_marker(pytest.mark.real)
            if not os.environ.get("POLYFACE_DATA"):
                item.add_marker(pytest.mark.skip(reason=NO_DATA))


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """``real_data("mtfl")`` is the folder of that real data set; skips the test where it is absent.

    In continuous integration that has data sets at all, a missing one is a failure: it must not go unnoticed.
    """

    def folder(name: str) -> Path:
        root = os.environ.get("POLYFACE_DATA")
        if not root:
            pytest.skip(NO_DATA)
        path = Path(root) / name
        if not path.is_dir():
            reason = f"real data set {name!r} is not in POLYFACE_DATA ({root})"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Tests that draw with torch's own generator draw the same every time, whatever ran before them."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this test process alone (``POLYFACE_CACHE``), so that tests neither read nor fill the user's."""
    folder = tmp_path_factory.mktemp("polyface-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYFACE_CACHE", str(folder))
        yield folder


class Answer(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

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
    """``polyface("data", "list")``: what `polyface data list` prints, run in this process."""
    from polyface.cli import main

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["polyface", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main()
        told = capsys.readouterr()
        return Answer(int(leaving.value.code or 0), told.out, told.err)

    return run
