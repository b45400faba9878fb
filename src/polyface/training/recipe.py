"""Recipes: what to train, on what, how, and what to compare; YAML checked key by key."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from polyface.errors import PolyfaceError, check_names, nearest, short
from polyface.files import check_apart, check_name
from polyface.training.extras import EXTRAS
from polyface.training.learners import LEARNERS
from polyface.training.papers import PAPERS, RECIPE
from polyface.training.space import Space
from polyface.training.specs import BaseStage, FolderName, Stage, StageSpec, Strict, told, with_defaults
from polyface.training.texts import read_yaml, read_yaml_file

LARGEST_SEED = 2**32 - 1
MOST_SEEDS = 100  # of a variant


def _listed(given: Any) -> Any:
    """One name alone is a list of one."""
    return [given] if isinstance(given, str) else [] if given is None else given


class VariantSpec(Strict):
    """A row of the paper's table: the stages it runs and what it changes (`stage.key.key: value`). The last stage is
    measured; where that trains no tasks, the variant has no row, and others `start` from it. keep: the tasks that it
    keeps of its stages; the others go, with their heads and with what only these read. model: measure that variant's
    network instead of training. average: the mean of those variants' answers instead of a network. start: a variant, or
    several, whose stages `init` may name; they are trained first, and where one has fewer seeds these serve in turn.
    predictor "detector": the face detector's own points instead of a network's; "start": the network as `init` leaves
    it, untrained. row: the row it stands in and `prefix` what its figures begin with, where a row has several variants.
    splits: its seeds are splits of the people, each with test faces of its own. folds: its seeds are, so many in a row,
    the folds of one division of the people, each the test faces of a network that did not see it: one result over all
    of them."""

    stages: list[str] = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)
    keep: list[str] = Field(default_factory=list)
    seeds: int = Field(3, ge=1, le=MOST_SEEDS)
    model: str | None = None
    average: list[str] = Field(default_factory=list)
    start: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list)
    predictor: Literal["network", "detector", "start"] = "network"
    row: str = ""
    prefix: str = ""
    splits: bool = False
    folds: int = Field(1, ge=1)
    minutes: float = Field(0.0, ge=0)
    """Estimated minutes a seed on one core."""
    note: str = ""
    correlation: bool = False
    """Report the correlation of head weights between the main task and every other."""

    @property
    def needs(self) -> list[str]:
        """The variants that must be finished before this one."""
        return [name for name in (self.model, *self.start, *self.average) if name]


class ComparisonSpec(Strict):
    """Two variants whose paired difference is reported."""

    better: str
    than: str


def slug(name: str) -> str:
    """A variant's name as its folder's."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-")


def _variant_name(name: str) -> str:
    check_name(slug(name), f"the folder of variant {short(repr(name))}")
    return name


VariantName = Annotated[str, AfterValidator(told(_variant_name))]
"""A name of which enough is left in its folder's."""


class Recipe(Strict):
    """name, seed, ordered stages, and the variants that `polyface reproduce` runs.

    sizes: other sizes of the whole recipe by name, each a mapping of changes (`stage.key.key: value`) that are made
    before a variant's own; `load("name:size")` takes one, and `size` says which was taken. space: what `polyface tune`
    searches: dotted keys, and the values that each may have."""

    name: FolderName
    about: str = ""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    stages: list[Stage] = Field(min_length=1)
    sizes: dict[FolderName, dict[str, Any]] = Field(default_factory=dict)
    size: str = ""
    variants: dict[VariantName, VariantSpec] = Field(default_factory=dict)
    comparisons: list[ComparisonSpec] = Field(default_factory=list)
    space: Space = Field(default_factory=dict)

    @property
    def place(self) -> str:
        """The name of the folder that runs of this recipe, in this size, are kept in."""
        return f"{self.name}-{self.size}" if self.size else self.name

    def has_row(self, variant: str) -> bool:
        """Whether a variant is measured."""
        return self.stage(self.variants[variant].stages[-1]).has_tasks

    @property
    def measured(self) -> StageSpec:
        """The last stage, whose answers are measured; an error where it trains no tasks."""
        return self.stages[-1].with_tasks

    def stage(self, name: str) -> BaseStage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise PolyfaceError(f"recipe {self.name} has no stage '{name}'; {nearest(name, [s.name for s in self.stages])}")

    def at(self, seed: int) -> Recipe:
        """The recipe at a seed, which readers' options may be: `draw: seed`."""
        if not 0 <= seed <= LARGEST_SEED:
            raise PolyfaceError(f"seed is {seed}; expected 0 … {LARGEST_SEED}")
        made = self.model_copy(deep=True, update={"seed": seed})
        for table in (table for stage in made.stages for table in stage.data.tables):
            table.options = {key: seed if value == "seed" else value for key, value in table.options.items()}
        return made

    def searching(self, space: Any, where: str) -> Recipe:
        """The recipe with another `space`, as it was read from the file `where`."""
        return _checked(self.model_dump() | {"space": _mapping(space, where)}, where)

    def variant(self, name: str, seed: int | None = None, where: str = "") -> Recipe:
        """The recipe of one row at a seed (default: the recipe's): its stages only, with its changes. where: what
        errors call these."""
        if name not in self.variants:
            raise PolyfaceError(f"recipe {self.name} has no variant '{name}'; {nearest(name, self.variants)}")
        chosen = self.variants[name]
        tree = self.model_dump()
        tree["stages"] = [self.stage(stage).model_dump() for stage in chosen.stages]
        tree["variants"], tree["comparisons"], tree["sizes"] = {}, [], {}
        tree = _keep(_override(tree, chosen.set, where or f"variants.{name}.set"), chosen.keep, f"variants.{name}.keep")
        recipe = _checked(tree, f"{self.name}: {name}")
        return recipe.at(self.seed if seed is None else seed)


def load(source: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """A recipe by name (`tcdcn`) or from a YAML file, in one of its sizes (`dmm-cnn:small`), with `key.key=value`
    changes (a stage's name is a key)."""
    source, _, size = str(source).partition(":") if not Path(source).exists() else (str(source), "", "")
    own = source.endswith((".yaml", ".yml"))
    tree = read_yaml_file(Path(source) if own else PAPERS.get(source) / RECIPE)
    if not isinstance(tree, dict):
        raise PolyfaceError(f"{source}: a recipe is a mapping with name and stages")
    stages = tree.get("stages")
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise PolyfaceError(f"{source}: stages: expected a list of mappings, each with name, data, network and tasks")
    defaults = _mapping(tree.pop("defaults", None), f"{source}: defaults")
    tree["stages"] = [_merged(defaults, stage) for stage in stages]
    tree = _unshared(tree)
    if size:
        sizes = _mapping(tree.get("sizes"), f"{source}: sizes")
        if size not in sizes:
            raise PolyfaceError(f"recipe {source} has no size '{size}'; {nearest(size, sizes)}")
        where = f"{source}: sizes.{size}"
        tree = _override(tree, _mapping(sizes[size], where), where) | {"size": size}
    return of_tree(tree, source, changes)


def of_tree(tree: dict[str, Any], where: str, changes: Sequence[str] = ()) -> Recipe:
    """A recipe from its keys and values, with `key.key=value` changes. where: what errors call it."""
    return _checked(_override(tree, assignments(changes, "--set", "key.key=value"), "--set"), where)


def _mapping(given: Any, where: str) -> dict[str, Any]:
    if given is not None and not isinstance(given, dict):
        raise PolyfaceError(f"{where}: expected a mapping of keys and values")
    return given or {}


def assignments(texts: Sequence[str], option: str, form: str = "name=value") -> dict[str, Any]:
    """The name=value words of a command's option, the values read as YAML."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise PolyfaceError(f"{option} {text}: expected {form}")
        values[name] = read_yaml(value, f"{option} {short(text)}")
    return values


def _unshared(node: Any) -> Any:
    """A copy in which nothing is in two places, as defaults and YAML's anchors are: a change stays in its stage."""
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def _merged(defaults: Any, own: Any) -> Any:
    if isinstance(defaults, dict) and isinstance(own, dict):
        return {key: _merged(defaults.get(key), own[key]) if key in own else defaults[key] for key in defaults | own}
    return own


def _override(tree: dict[str, Any], edits: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Set dotted keys; the first word may be a stage's name, and `*` means every stage; a number stands for an entry of
    a list (`mtfl.data.tables.0.faces`). null removes a key. Names of
    variants may be patterns (`variants.LFWA *.minutes`)."""
    for dotted, value in edits.items():
        first, *rest = dotted.split(".")
        listed = tree.get("stages")
        known = [s for s in listed if isinstance(s, dict)] if isinstance(listed, list) else []
        stages = [s for s in known if first == "*" or s.get("name") == first]
        targets: list[tuple[Any, list[str]]] = [(s, rest) for s in stages] or [(tree, [first, *rest])]
        if first == "variants" and rest and "*" in rest[0]:
            rows = _mapping(tree.get(first), first)
            targets = [(rows[name], rest[1:]) for name in fnmatch.filter(rows, rest[0])] or targets
        for node, keys in targets:
            if not keys:
                raise PolyfaceError(f"{what}: '{dotted}' names a whole stage; name one of its keys")
            for key in keys[:-1]:
                if isinstance(node, list) and key.isascii() and key.isdigit() and int(key) < len(node):
                    node = node[int(key)]
                    continue
                if not isinstance(node, dict) or (key not in node and node is tree):
                    names = [str(s.get("name", "")) for s in known]
                    raise PolyfaceError(
                        f"{what}: no stage or key '{key}' in '{dotted}'; {nearest(key, [*names, *tree])}"
                    )
                if node.get(key) is None:
                    node[key] = {}
                node = node[key]
                if key == "init" and isinstance(node, list) and len(node) == 1:  # one start may be given alone
                    node = node[0]
            if not isinstance(node, dict):
                raise PolyfaceError(f"{what}: '{dotted}' goes through a value that holds no keys")
            if value is None:
                node.pop(keys[-1], None)
            else:
                node[keys[-1]] = _unshared(value)
    return tree


def _keep(tree: dict[str, Any], kept: Sequence[str], what: str) -> dict[str, Any]:
    """The stages without the tasks that are not kept, and without what only these read or what names them. A stage that
    has none of the kept ones stays as it is."""
    known = {task for stage in tree["stages"] for task in stage.get("tasks", {})}
    check_names(kept, known, what)
    for stage in tree["stages"] if kept else ():
        tasks = {name: task for name, task in stage.get("tasks", {}).items() if name in kept}
        if not tasks:
            continue
        dropped = stage["tasks"].keys() - tasks.keys()
        stage["tasks"] = tasks
        stage["network"] = _keep_parts(stage["network"], dropped)
        if stage["evaluation"]["main"] in dropped:
            stage["evaluation"]["main"] = next(iter(tasks))
        stage["weighting"] = _without(stage["weighting"], dropped)
        for key in stage.keys() & set(EXTRAS.names()):
            left = _without(stage[key], dropped)
            if len(left) == len(stage.pop(key)):  # else none is left of its tasks
                stage[key] = left
    return tree


def _keep_parts(network: dict[str, Any], dropped: Collection[str]) -> dict[str, Any]:
    """A network without the heads of the dropped tasks, without the embeddings of parts that only these read, and
    without the parts that nothing else reads."""
    given = {**network.get("branches", {}), **network.get("parts", {})}
    parts = with_defaults(given, network.get("defaults", {}))

    def read(ends: Mapping[str, Any]) -> set[str]:
        """The names of all that heads and embeddings read, be it through other parts."""
        names: set[str] = set()
        todo = _words([list((ends.get(key) or {}).values()) for key in ("heads", "embeddings")])
        while todo:
            name = todo.pop().partition(".")[0]
            if name not in names:
                names.add(name)
                todo += _words(parts.get(name, {}).get("reads", []))
        return names

    def without(key: str, gone: Collection[str]) -> dict[str, Any]:
        return {key: {name: one for name, one in network[key].items() if name not in gone}} if key in network else {}

    heads = without("heads", dropped)
    untaught = read({"heads": network.get("heads")}) - read(heads)
    of_these = {
        name for name, one in network.get("embeddings", {}).items() if read({"embeddings": {name: one}}) & untaught
    }
    ends = heads | without("embeddings", {*dropped, *of_these})
    unread = read(network) - read(ends)
    return network | ends | without("branches", unread) | without("parts", unread)


def _words(node: Any) -> list[str]:
    """All keys and values of a tree."""
    if isinstance(node, Mapping):
        node = [*node, *node.values()]
    return [word for value in node for word in _words(value)] if isinstance(node, list) else [str(node)]


def _without(node: Any, dropped: Collection[str]) -> Any:
    """A tree without what names dropped tasks or their loss terms (keys, and words in lists), and without what is empty
    then."""

    def names(word: Any) -> bool:
        return isinstance(word, str) and word.partition("/")[0] in dropped

    if isinstance(node, Mapping):
        each = {key: (value, _without(value, dropped)) for key, value in node.items() if not names(key)}
        return {key: left for key, (value, left) in each.items() if left or not value}
    return [_without(one, dropped) for one in node if not names(one)] if isinstance(node, list) else node


def _checked(tree: dict[str, Any], where: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise PolyfaceError(f"{where}: {_first_wrong(error, tree)}") from error
    for stage in recipe.stages:
        try:
            stage.check()
        except PolyfaceError as error:
            raise PolyfaceError(f"{where}: {error}") from error
    names = [stage.name for stage in recipe.stages]
    if len(set(names)) < len(names):
        raise PolyfaceError(f"{where}: two stages have the same name among {', '.join(names)}")
    check_apart(names, f"{where}: stages")
    _check_variants(recipe, where)
    return recipe


def _check_variants(recipe: Recipe, where: str) -> None:
    """Refuse names that no variant has, variants that share a folder, and one that needs itself, or through others."""
    compared = [name for pair in recipe.comparisons for name in (pair.better, pair.than)]
    needed = [name for variant in recipe.variants.values() for name in variant.needs]
    check_names([*compared, *needed], recipe.variants, f"{where}: comparisons, model, average or start")
    folders: dict[str, str] = {}
    for name in recipe.variants:
        if (other := folders.setdefault(slug(name), name)) != name:
            raise PolyfaceError(
                f"{where}: variants: '{other}' and '{name}' would share the folder {slug(name)}; rename one"
            )
    check_apart(folders, f"{where}: variants")
    for name, variant in recipe.variants.items():
        given = [stage for start in variant.start for stage in recipe.variants[start].stages]
        if twice := sorted({stage for stage in given if given.count(stage) > 1}):
            raise PolyfaceError(f"{where}: variants.{name}.start: two of these variants have a stage '{twice[0]}'")
    path: list[str] = []

    def visit(name: str) -> None:
        if name in path:
            circle = " → ".join([*path[path.index(name) :], name])
            raise PolyfaceError(f"{where}: variants.{name} needs itself by model, average or start: {circle}")
        path.append(name)
        for other in recipe.variants[name].needs:
            visit(other)
        path.pop()

    for name in recipe.variants:
        visit(name)


def _first_wrong(error: ValidationError, tree: Mapping[str, Any]) -> str:
    """The first key that is wrong, and why; of an unknown one what it may have meant."""
    first: Any = error.errors()[0]
    path, model, hint = list(first["loc"]), Recipe, ""
    if first["type"] == "extra_forbidden":
        if len(path) > 2 and path[0] == "stages":
            stage = tree["stages"][path[1]]
            model, path = LEARNERS.get(stage.get("learner", "multitask")).Spec, path[2:]
        for part in path[:-1]:
            model = _field_model(model, part)
        fields = list(getattr(model, "model_fields", {}))
        if fields and issubclass(model, StageSpec):
            fields += [name for name in EXTRAS.names() if name != path[-1]]
        hint = f"; {nearest(str(path[-1]), fields)}" if fields else ""
    message = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
    key = ".".join(map(str, first["loc"]))
    return f"{short(key)}: {message[:1].lower()}{message[1:]}{hint}"


def _field_model(model: Any, part: Any) -> Any:
    """The pydantic model found under a key, an index or a name; None where there is none."""
    import typing

    if isinstance(part, int) or model is None:
        return model
    if part in EXTRAS and part not in getattr(model, "model_fields", {}):
        return EXTRAS.get(part).Spec
    info = getattr(model, "model_fields", {}).get(part)
    annotation = info.annotation if info else None
    for candidate in [annotation, *typing.get_args(annotation)]:
        for inner in [candidate, *typing.get_args(candidate)]:
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                return inner
    return model if info is None else None
