"""Names that become folders: one plain component of a path each, and no two of them one folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyface.errors import PolyfaceError
from polyface.files import check_name
from polyface.reproduce import jobs
from polyface.training import recipe as recipes

LED_OUT = ["../x", "/x", "a/b", "a\\b", "..", ".", ".x", "", " x", "x ", "a\0b", "a\nb", "C:x", "x" * 201, "\udce9"]


@pytest.mark.parametrize("name", LED_OUT)
def test_a_name_is_one_component_of_a_path(name: str) -> None:
    with pytest.raises(PolyfaceError, match="names a folder") as caught:
        check_name(name, "it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["CON", "nul", "aux.txt", "Com1"])
def test_a_name_is_no_device_of_windows(name: str) -> None:
    with pytest.raises(PolyfaceError, match="Windows has a device of that name"):
        check_name(name, "it")


@pytest.mark.parametrize(
    "name", ["x", "console", "FLD+all", "a.b", "two words", "Größe", "顔", "x" * 200, "100 %", "e.g."]
)
def test_other_names_are_free(name: str, tmp_path: Path) -> None:
    (tmp_path / check_name(name, "it")).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("change", ["name=../x", "one.name=../x", "one.name=/tmp/x", "one.name=a/b", "one.name=''"])
def test_set_cannot_lead_out_either(toy, change: str) -> None:
    with pytest.raises(PolyfaceError, match="name: .*names a folder"):
        recipes.load(toy(), [change])


@pytest.fixture
def written(tmp_path: Path, toy) -> Callable[..., Path]:
    """``written(variants, stages)``: the small recipe with these variants, its stage under these names."""
    import json

    def write(variants: dict[str, Any], stages: tuple[str, ...] = ("one",), **more: Any) -> Path:
        tree = json.loads(toy().read_text())
        tree["stages"] = [tree["stages"][0] | {"name": name} for name in stages]
        given = {name: {"stages": [stages[0]]} | own for name, own in variants.items()}
        path = tmp_path / "written.yaml"
        path.write_text(json.dumps(tree | {"variants": given} | more))
        return path

    return write


@pytest.mark.parametrize(
    "names, expected",
    [
        (("a/b", "a-b"), "'a/b' and 'a-b' would share the folder a-b"),
        (("a  b", "a b"), "would share the folder a-b"),
        (("AW", "aw"), "'AW' and 'aw' would share a folder"),
        (("..",), r"folder of variant '\.\.'"),
        (("/",), "folder of variant '/'"),
        (("",), "folder of variant"),
    ],
)
def test_no_two_variants_share_a_folder(written, names: tuple[str, ...], expected: str) -> None:
    with pytest.raises(PolyfaceError, match=expected):
        recipes.load(written({name: {} for name in names}))


@pytest.mark.parametrize("names", [("one", "One"), ("one", "one")])
def test_no_two_stages_share_a_folder(written, names: tuple[str, ...]) -> None:
    with pytest.raises(PolyfaceError, match="would share a folder|two stages have the same name"):
        recipes.load(written({}, names))


@pytest.mark.parametrize(
    "needs, circle",
    [
        ({"a": {"model": "a"}}, "a → a"),
        ({"a": {"start": "b"}, "b": {"start": "a"}}, "a → b → a"),
        ({"a": {"average": ["b", "c"]}, "b": {}, "c": {"model": "d"}, "d": {"start": "a"}}, "a → c → d → a"),
    ],
)
def test_circles_are_told_when_the_recipe_is_read(written, needs: dict[str, Any], circle: str) -> None:
    with pytest.raises(PolyfaceError, match=f"needs itself by model, average or start: {circle}"):
        recipes.load(written(needs))


def test_what_many_need_is_no_circle(written) -> None:
    needs = {"a": {}, "b": {"model": "a"}, "c": {"average": ["a", "b"]}, "d": {"average": ["a", "b", "c"]}}
    recipe = recipes.load(written(needs))
    assert [job.variant for job in jobs(recipe, seeds=1)] == ["a", "b", "c", "d"]


def test_two_starts_of_a_variant_with_one_stage_are_told_when_the_recipe_is_read(written) -> None:
    with pytest.raises(PolyfaceError, match="variants.c.start: two of these variants have a stage 'one'"):
        recipes.load(written({"a": {}, "b": {}, "c": {"start": ["a", "b"]}}))


@pytest.mark.parametrize("task", ["a.b", "a/b", "", "keys"])
def test_tasks_have_plain_names_too(toy, task: str) -> None:
    tasks = {task: {"kind": "landmarks", "points": 5}}
    with pytest.raises(PolyfaceError, match="stages.one.tasks: no task can be called"):
        recipes.load(toy({"tasks": tasks, "evaluation": {"main": task}}))
