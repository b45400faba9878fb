"""Commands that are killed at random moments, or meet a full disk, and are then run again.

Afterwards the same command completes and gives what it gives undisturbed, nothing that it said was done is lost,
nothing half-written is taken for whole, and nothing is left aside. `pytest tests/faults --kills 10` strikes oftener.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from polyface.data.table import FaceTable
from polyface.gallery import Gallery
from polyface.models.bundle import load_bundle

from .tiny import TINY

DRIVER = Path(__file__).with_name("driver.py")
pytestmark = pytest.mark.slow

RECIPE = TINY.format(epochs=3, seeds=1) + "  two: {stages: [tiny], seeds: 1, set: {tiny.optimisation.lr: 0.002}}\n"


ADDED = """
name: added
stages:
  - name: added
    extends: face5
    data: {tables: [{name: synthetic, options: {n: 260, size: 40}}], batch: 16}
    tasks: {grin: {kind: classification, column: smile}}
    optimisation: {epochs: 3}
    evaluation: {main: grin}
"""

UNSHARE = ["unshare", "--mount", "--map-root-user"]


class Commands:
    """The driver, and what the file system looks like where it runs."""

    def __init__(self, folder: Path, own_disk: bool = False) -> None:
        self.log, self.disk = folder / "log.txt", folder / "disk"
        words = [sys.executable, str(DRIVER)]
        if own_disk:
            self.disk.mkdir()
            words = [*UNSHARE, *words, "--disk", str(self.disk)]
        environment = os.environ | {"POLYFACE_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
        )
        assert self.process.stdout is not None
        self.root = Path("/proc") / self.process.stdout.readline().strip() / "root"

    def ask(self, **asked: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answered: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answered

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def run(self, words: list[str], after: float | None = None) -> tuple[int, float, str]:
        """Exit status (−9: killed), seconds, and what was printed."""
        found = self.ask(words=words, after=after, log=str(self.log))
        return found["status"], found["seconds"], self.log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    running = Commands(tmp_path_factory.mktemp("commands"))
    yield running
    running.stop()


@dataclass(frozen=True)
class Case:
    """words: the command; in it OUT is where it writes, IN the photos, IN.yaml a recipe, IN-added.yaml one of a task
    that is added. sound: asserts that what is
    there is whole, however the command ended, and returns what must not become less. result: what a whole run gives."""

    words: str
    sound: Callable[[Path], int]
    result: Callable[[Path], Any]


def _bundle(out: Path) -> Any:
    (place,) = out.glob("runs/*/*/model")
    bundle = load_bundle(place, quiet=True)
    return {name: tensor.numpy().tobytes() for name, tensor in bundle.network.state_dict().items()}


def _bundles(out: Path) -> int:
    found = [load_bundle(path.parent, quiet=True) for path in out.rglob("polyface.json")]
    return len(found) + len([json.loads(path.read_text(encoding="utf-8")) for path in out.rglob("history.json")])


def _rows(out: Path) -> Any:
    rows = [row for path in sorted(out.rglob("*results*.json")) for row in json.loads(path.read_text())["rows"]]
    assert rows
    return rows


def _table(out: Path) -> int:
    path = out / "faces.parquet"
    return len(FaceTable.open(path)) if path.exists() else 0


def _images(out: Path) -> Any:
    return [row["image"]["bytes"] for row in pq.read_table(out / "faces.parquet").to_pylist()]


def _lines(out: Path) -> int:
    path = out / "answers.jsonl"
    text = path.read_bytes() if path.exists() else b""
    return len([json.loads(line) for line in text.split(b"\n")[:-1]])


def _answers(out: Path) -> Any:
    return [json.loads(line) for line in (out / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def _faces(out: Path) -> int:
    if not (out / "gallery/gallery.json").exists():
        return 0
    with Gallery.open(out / "gallery") as known:
        return len(known)


def _people(out: Path) -> Any:
    with Gallery.open(out / "gallery") as known:
        return len(known), sorted(known.people())


def _network(out: Path) -> int:
    import onnx

    path = out / "face5.onnx"
    if path.exists():
        onnx.checker.check_model(onnx.load(path), full_check=True)
    return int(path.exists())


CASES = {
    "train": Case("train IN.yaml --out OUT/runs --device cpu", _bundles, _bundle),
    "extend": Case("extend face5 IN-added.yaml --out OUT/runs --device cpu", _bundles, _bundle),
    "reproduce": Case("reproduce IN.yaml --out OUT/runs --device cpu --yes", _bundles, _rows),
    "data import": Case("data import folder IN OUT/faces.parquet", _table, _images),
    "analyze": Case("analyze IN --model face5 --out OUT/answers.jsonl", _lines, _answers),
    "gallery add": Case("gallery add OUT/gallery IN", _faces, _people),
    "export": Case("export face5 OUT/face5.onnx", _network, _network),
}


def words_of(case: Case, folder: Path, out: Path) -> list[str]:
    return [word.replace("OUT", str(out)).replace("IN", str(folder / "photos")) for word in case.words.split()]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder a person, of a face that the detector finds: one photo in several lights."""
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as file:
        face = np.asarray(Image.open(file).convert("RGB").resize((256, 300)))
    for number in range(8):
        folder = tmp_path / "photos" / f"person {number}"
        folder.mkdir(parents=True)
        Image.fromarray((face * (0.6 + 0.05 * number)).astype(np.uint8)).save(folder / "one.jpg")
    (tmp_path / "photos.yaml").write_text(RECIPE)
    (tmp_path / "photos-added.yaml").write_text(ADDED)
    return tmp_path


def left_aside(out: Path) -> list[Path]:
    return [path for path in out.rglob(".*") if not path.name.endswith(".lock")]


@pytest.mark.parametrize("name", CASES)
def test_a_killed_command_completes_when_it_is_run_again(
    photos: Path, commands: Commands, kills: int, name: str
) -> None:
    case = CASES[name]
    whole, struck = photos / "whole", photos / "struck"
    for out in (whole, struck):
        out.mkdir()
    commands.run(words_of(case, photos, whole))  # what is cached, such as synthetic faces, costs its time here
    shutil.rmtree(whole)
    whole.mkdir()
    status, seconds, printed = commands.run(words_of(case, photos, whole))
    assert status == 0, printed
    moments = random.Random(name)
    done = 0
    for _ in range(kills):
        commands.run(words_of(case, photos, struck), after=moments.uniform(0.0, seconds))
        kept = case.sound(struck)
        assert kept >= done
        done = kept
    status, _, printed = commands.run(words_of(case, photos, struck))
    assert status == 0, printed
    assert case.result(struck) == case.result(whole)
    assert not left_aside(struck)


def test_a_killed_removal_is_whole_or_was_not(photos: Path, commands: Commands, kills: int) -> None:
    out = photos / "out"
    out.mkdir()
    status, _, printed = commands.run(words_of(CASES["gallery add"], photos, out))
    assert status == 0, printed
    moments = random.Random("remove")
    for number in range(kills):
        words = ["gallery", "remove", str(out / "gallery"), f"person {number % 8}"]
        before = _faces(out)
        status, _, _ = commands.run(words, after=moments.uniform(0.0, 0.5))
        after = _faces(out)
        assert after in (before, before - 1)
        if status == 0:
            assert after == before - 1
        if number % 8 == 7:
            commands.run(words_of(CASES["gallery add"], photos, out))
    assert not left_aside(out)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    if not shutil.which("unshare") or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system (unshare --mount --map-root-user)")
    running = Commands(tmp_path_factory.mktemp("small"), own_disk=True)
    yield running
    running.stop()


MINUTES = {"export"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.nightly] if name in MINUTES else []) for name in CASES]
)
def test_a_full_disk_is_one_line_and_loses_nothing(photos: Path, small_disk: Commands, name: str) -> None:
    """The disk is first of one page, then holds half of what a whole run leaves, and then enough."""
    case, out = CASES[name], small_disk.disk
    seen = small_disk.root / out.relative_to("/")
    words = words_of(case, photos, out)
    small_disk.ask(new=2**26)
    status, _, printed = small_disk.run(words)
    assert status == 0, printed
    whole, expected = sum(path.stat().st_size for path in seen.rglob("*") if path.is_file()), case.result(seen)
    small_disk.ask(new=4096)
    for size in (whole // 2, 2**26):
        status, _, printed = small_disk.run(words)
        case.sound(seen)
        assert status == 1, printed
        assert "Traceback" not in printed
        last = printed.strip().splitlines()[-1]
        assert last.startswith(("polyface: ", "failed: ")), printed
        assert "disk is full" in last or "No space left" in last, printed
        small_disk.ask(grow=max(size, 8192))
        if whole < 2**16:
            small_disk.ask(grow=2**26)
            break
    status, _, printed = small_disk.run(words)
    assert status == 0, printed
    assert case.result(seen) == expected
    assert not left_aside(seen)
