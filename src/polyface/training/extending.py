"""A trained model, and what it shall answer too, as a recipe of one stage: what `polyface extend` trains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyface.errors import PolyfaceError, check_names, short
from polyface.models import find, model_info
from polyface.models.bundle import Bundle, load_bundle
from polyface.tasks import TASKS
from polyface.training.recipe import Recipe, assignments, load, of_tree, slug
from polyface.training.specs import DataSpec

LIGHT: dict[str, Any] = {"kind": "column", "blocks": 1, "widths": [64, 128], "convs_per_group": 1}
"""The column of a task for which no other is asked: one block of two convolutions, as in Fig. 1 of Barros et al."""
DEFAULTS: dict[str, Any] = {
    "data": {"augment": {"mirror": 0.5}, "batch": 32},
    "optimisation": {"lr": 0.001, "epochs": 40, "weight_decay": 0.01},
}


def extension(
    model: str,
    added: Sequence[str],
    tables: Sequence[str] = (),
    reads: Sequence[str] = (),
    changes: Sequence[str] = (),
) -> Recipe:
    """The recipe that adds to a model what is asked for, each task with a column of its own.

    model: a bundle's folder or a shipped model's name. added: one recipe (a name or a YAML file), of whose last stage
    faces, tasks, parts, weighting and optimisation are taken; or tasks as `name=kind` or `name={kind: …, …}`, whose
    column of labels is called as the task where nothing else is said, and `tables` with their faces. reads: columns of
    the model that the new ones read too, and are like. changes: `key.key=value`, of the recipe that is made.

    Raises:
        PolyfaceError: no such model, recipe or column; tasks without a table; a trunk without a map.
    """
    old = load_bundle(find(model), quiet=True)
    if len(added) == 1 and "=" not in added[0]:
        if tables:
            raise PolyfaceError(f"--table is for tasks such as emotion=classification; {added[0]} names its own tables")
        name, stage = _of_recipe(added[0])
    else:
        name, stage = _of_tasks(added, tables)
    stage["extends"] = model
    stage["data"] |= {"crop": old.crop.model_dump(), "boxes": old.boxes.model_dump()}
    network = stage["network"]
    if not network.get("parts") and not network.get("branches"):
        column = _column(old, model, reads)
        network["parts"] = {task: column for task in stage["tasks"]}
        network["heads"] = {task: task for task in stage["tasks"]}
    elif reads:
        raise PolyfaceError(f"--reads: {name} has parts of its own; let `reads` of these name {', '.join(reads)}")
    network["cached"] = not DataSpec.model_validate(stage["data"]).varied
    base = model_info(model).name.partition("/")[0]
    recipe = of_tree({"name": slug(f"{base}+{name}"), "stages": [stage]}, f"extending {model}", changes)
    return recipe.at(recipe.seed)


def _of_recipe(source: str) -> tuple[str, dict[str, Any]]:
    """A recipe's name, and its last stage as one that may extend a model."""
    try:
        recipe = load(source)
    except PolyfaceError as error:
        if Path(source).suffix in (".yaml", ".yml"):
            raise
        what = f"'{short(source)}' is no task, such as emotion=classification, and no recipe"
        raise PolyfaceError(f"{what} ({error})") from error
    stage = json.loads(recipe.measured.model_dump_json())
    network = {key: stage["network"][key] for key in ("branches", "parts", "heads", "embeddings", "biases")}
    return recipe.place, stage | {"network": network, "init": []}


def _of_tasks(added: Sequence[str], tables: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The name and the stage of tasks that are told in short."""
    if not tables:
        raise PolyfaceError(f"{' '.join(added)}: from which faces? name a table or data set with --table")
    tasks = {}
    for name, told in assignments(added, "task", "name=kind, such as emotion=classification").items():
        settings = {"kind": told} if isinstance(told, str) else told
        if not isinstance(settings, dict) or "kind" not in settings:
            raise PolyfaceError(f"task {name}={short(told)}: expected name=kind, or name={{kind: …, its settings}}")
        column = TASKS.get(str(settings["kind"]), f"tasks.{name}.kind").Spec.model_fields.get("column")
        tasks[name] = ({"column": name} if column and column.is_required() else {}) | settings
    name = "+".join(tasks)
    data = {**DEFAULTS["data"], "tables": [{"name": table} for table in tables]}
    stage = {"name": name, "data": data, "network": {}, "tasks": tasks, "evaluation": {"main": next(iter(tasks))}}
    return name, stage | {"optimisation": DEFAULTS["optimisation"]}


def _column(old: Bundle, model: str, reads: Sequence[str]) -> dict[str, Any]:
    """The settings of a new column: a light one on the trunk's last map, or one like the first that it reads."""
    network = old.network
    columns = [name for name, part in network.branches.items() if "block1" in part.maps]  # type: ignore[operator]
    if reads and not columns:
        raise PolyfaceError(f"--reads: {model} has no column that a new one could read; leave --reads out")
    check_names(reads, columns, f"--reads: {model}")
    if reads:
        like = {**network.config.get("branches", {}), **network.config.get("parts", {})}[reads[0]]
        first, *_ = like.get("reads", ["trunk"])
        return {**like, "reads": [first, *reads], "frozen": False}
    maps: dict[str, Any] = network.trunk.maps  # type: ignore[assignment]
    if maps["shared"].stride:
        return {**LIGHT, "reads": ["trunk"]}
    if not (inner := {name: shape for name, shape in maps.items() if shape.stride}):
        raise PolyfaceError(f"{model}: its trunk gives no map that a column could read")
    return {**LIGHT, "reads": [f"trunk.{max(inner, key=lambda name: inner[name].stride)}"]}
