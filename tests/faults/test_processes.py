"""Works of several processes: where one is killed or asked to stop, all end within a minute, with one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .tiny import TINY

NIGHTLY = pytest.mark.nightly
GONE = "another of the 2 processes that train has ended"
KILLED = "was killed, or took more memory than there is"
ASKED = "interrupted; the same command goes on"
DDP = "train recipe.yaml --out runs --device cpu --devices 2 --strategy ddp"
WORKERS = "reproduce recipe.yaml --out runs --device cpu --workers 2 --yes"


def children(process: int) -> list[int]:
    """The processes that a process started, but for those that only look after others."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(one) for one in found if b"resource_tracker" not in Path(f"/proc/{one}/cmdline").read_bytes()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def trains(process: int, folder: Path, count: int) -> bool:
    """Whether so many children are past their start: connected to each other, or their faces cut."""
    if count == 1:
        names = [path.read_text() for each in children(process) for path in Path(f"/proc/{each}/task").glob("*/comm")]
        return any("gloo" in name for name in names)
    return len(list(folder.glob("runs/tiny/one/seed*/tiny"))) == count


def wait(seconds: float, done: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str, int], tuple[subprocess.Popen[bytes], list[int]]]]:
    """``start(command, n)``: the command's process, and its n children, when they train."""
    (tmp_path / "recipe.yaml").write_text(TINY.format(epochs=100_000, seeds=2))
    begun: list[subprocess.Popen[bytes]] = []

    def run(command: str, count: int) -> tuple[subprocess.Popen[bytes], list[int]]:
        words = [sys.executable, "-m", "polyface", *command.split()]
        with open(tmp_path / "log.txt", "wb") as log:
            environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
            process = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log, env=environment)
        begun.append(process)
        wait(120, lambda: process.poll() is not None or trains(process.pid, tmp_path, count))
        time.sleep(3.0)  # a step takes some 50 ms
        assert process.poll() is None, (tmp_path / "log.txt").read_text()
        return process, children(process.pid)

    yield run
    for process in begun:
        for each in (*children(process.pid), process.pid) if process.poll() is None else ():
            os.kill(each, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "who", "number", "line"),
    [
        (DDP, "child", signal.SIGKILL, GONE),
        pytest.param(DDP, "first", signal.SIGKILL, GONE, marks=pytest.mark.nightly),
        pytest.param(DDP, "first", signal.SIGTERM, ASKED, marks=NIGHTLY),
        (WORKERS, "child", signal.SIGKILL, KILLED),
        pytest.param(WORKERS, "child", signal.SIGTERM, KILLED, marks=pytest.mark.nightly),
        pytest.param(WORKERS, "first", signal.SIGTERM, ASKED, marks=pytest.mark.nightly),
        pytest.param(
            WORKERS, "first", signal.SIGKILL, "the process that started this one has ended", marks=pytest.mark.nightly
        ),
    ],
)
def test_all_end_with_one_line(start, tmp_path: Path, command: str, who: str, number: int, line: str) -> None:
    process, others = start(command, 1 if command == DDP else 2)
    assert len(others) == (1 if command == DDP else 2)
    os.kill(process.pid if who == "first" else others[0], number)
    wait(60, lambda: process.poll() is not None and not any(map(alive, others)))
    printed = (tmp_path / "log.txt").read_text()
    assert line in printed
    assert "Traceback" not in printed
    if number == signal.SIGTERM:
        assert list(tmp_path.rglob("last.ckpt"))  # what was asked to stop was saved
