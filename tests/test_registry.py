"""Parts by name: where they come from, what is refused, and that nothing is imported before it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from polyface.errors import PolyfaceError
from polyface.registry import Registry, check_options, lacks

SOURCE = Path(__file__).parents[1] / "src" / "polyface"


class Good:
    """A good part.

    With more to say.
    """

    def __init__(self, given: int, size: int = 3) -> None:
        if size < 0:
            raise ValueError(f"size is {size}")
        self.given, self.size = given, size

    def run(self) -> None: ...


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Two files, a listed part, and what `points` says."""
    folder = tmp_path / "some_parts"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "base.py").write_text("raise SystemError('not a part')")
    (folder / "_private.py").write_text("raise SystemError('not a part')")
    (folder / "face_net.py").write_text("class Other: ...\nclass FaceNet:\n    def run(self): ...\n")
    (folder / "points.py").write_text("class PointsThing:\n    def run(self): ...\nclass Points2: ...\n")
    (folder / "nothing.py").write_text("class Something: ...\n")
    (folder / "several.py").write_text("class A:\n    def run(self): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = [
        EntryPoint("mine", "absent_package:Mine", "some.parts"),
        EntryPoint("bad", "json:loads", "some.parts"),
        EntryPoint("points", "json:loads", "some.parts"),
    ]
    monkeypatch.setattr("polyface.registry.entry_points", lambda group: found if group == "some.parts" else [])
    return Registry(
        "thing",
        group="some.parts",
        folder="some_parts",
        without=("base",),
        built_in={"listed": "some_parts.several:A"},
        check=lambda part: lacks(part, "run"),
    )


def test_names_import_nothing(parts: Registry) -> None:
    assert parts.names() == ["listed", "face-net", "nothing", "points", "mine", "bad"]
    assert not [name for name in sys.modules if name.startswith("some_parts.")]
    assert "face-net" in parts
    assert "mine" in parts
    assert "other" not in parts


def test_a_file_is_the_part_of_its_name(parts: Registry) -> None:
    assert parts.get("face-net").__name__ == "FaceNet"
    assert parts.get("points").__name__ == "PointsThing"  # Polyface's own go before an entry point of the same name
    assert parts.get("listed").__name__ == "A"
    with pytest.raises(PolyfaceError, match=r"nothing\.py: expected a class or function called nothing or nothing"):
        parts.get("nothing")


def test_a_part_of_its_own_needs_no_look_at_installed_packages(
    parts: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(group: str) -> list[EntryPoint]:
        raise SystemError("a search through all packages, for each part of a recipe")

    monkeypatch.setattr("polyface.registry.entry_points", search)
    assert parts.get("face-net").__name__ == "FaceNet"
    assert parts.get("listed").__name__ == "A"


def test_what_is_not_there_and_what_is_broken_is_one_line(parts: Registry) -> None:
    for name, words in {
        "face-nut": "unknown thing 'face-nut': did you mean 'face-net'?",
        "mine": "thing 'mine' (entry point absent_package:Mine) cannot be loaded: ModuleNotFoundError: ",
        "bad": "thing 'bad' (entry point json:loads) is no thing: it has no run",
    }.items():
        with pytest.raises(PolyfaceError) as caught:
            parts.get(name)
        assert str(caught.value).startswith(words)
        assert "\n" not in str(caught.value)
        assert parts.about(name) == f"({caught.value})"
    with pytest.raises(PolyfaceError, match="network.thing is 'pints'; did you mean 'points'"):
        parts.get("pints", "network.thing")


def test_registered_parts(parts: Registry) -> None:
    parts.add("mine", Good)
    assert parts.get("mine") is Good
    assert (parts.about("mine"), parts.origin("mine")) == ("A good part.", "registered here")
    with pytest.raises(PolyfaceError, match="thing 'worse' is no thing: it has no run"):
        parts.add("worse", 3)
    parts.remove("mine")
    with pytest.raises(PolyfaceError, match="cannot be loaded"):
        parts.get("mine")
    assert parts.origin("points") == "polyface"


def test_options_are_checked_in_one_place(parts: Registry) -> None:
    parts.add("good", Good)
    made = parts.make("good", {"size": 5}, 1, where="network.thing")
    assert (made.given, made.size) == (1, 5)
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "unknown": ({"sise": 5}, r"network.thing \(good\): unknown option 'sise'; did you mean 'size'?"),
        "given": ({"given": 5}, r"unknown option 'given'"),
        "value": ({"size": -1}, r"network.thing \(good\): size is -1"),
    }
    for options, words in wrong.values():
        with pytest.raises(PolyfaceError, match=words):
            parts.make("good", options, 1, where="network.thing")
    check_options(lambda **anything: None, {"whatever": 1}, "here")


def test_a_worker_says_that_it_does_not_know_what_a_notebook_registered(
    parts: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    with pytest.raises(PolyfaceError, match="registered in a notebook is not known to worker processes"):
        parts.get("theirs")


def test_built_in_names_stay_in_their_room() -> None:
    """Import contracts cannot see a part that is named by a string."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Registry":
                room = ".".join(["polyface", *path.relative_to(SOURCE).parent.parts])
                for text in (
                    n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                ):
                    if text.startswith("polyface.") and not text.startswith("polyface.weightings"):
                        folder = text.partition(":")[0]
                        assert folder.startswith(room) or folder.count(".") == 1, f"{path}: {text}"


def test_listing_parts_loads_no_engine() -> None:
    code = (
        "import sys; from polyface.data.readers import READERS; READERS.names(); "
        "print({'torch', 'timm', 'lightning'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
