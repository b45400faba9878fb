"""Recipes: what to train, on what, how, and what to compare; YAML checked key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from polyface import protocols
from polyface.data.augment import AugmentSpec
from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec
from polyface.errors import PolyfaceError, nearest
from polyface.training.papers import PAPERS, RECIPE


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SourceSpec(_Strict):
    """One face table of a stage. name: a reader's name, a table file, or "synthetic"; options: the reader's (or n,
    size, seed of the synthetic faces; the value `seed` stands for the run's seed); where: words its columns must hold;
    without: words that they must not; faces: how many it holds if it is whole;
    labels: models (bundles, shipped names or earlier stages) whose answers stand in for labels that it lacks, as
    `polyface data label` writes them."""

    name: str
    ratio: float = Field(1.0, gt=0)
    where: dict[str, str | list[str]] = {}
    without: dict[str, str | list[str]] = {}
    options: dict[str, Any] = {}
    faces: int = Field(0, ge=0)
    labels: list[str] = []


class DataSpec(_Strict):
    """Faces of a stage: training rows have split "train", validation rows "val", test rows "test".

    balance: columns whose words are drawn equally often in training, the first before the next: [modality, identity]
    fills a batch with as many photos as caricatures, and each half with as many faces of one person as of another.
    limit: at most so many training faces (the first by a fixed order), for trials. validate_on: "train" lets the
    training faces stand in for validation faces that a set lacks, as Mao et al. 2020 do on LFWA.
    """

    tables: list[SourceSpec]
    boxes: BoxSpec = BoxSpec()
    crop: CropSpec = CropSpec()
    augment: AugmentSpec = AugmentSpec()
    batch: int = Field(64, ge=1)
    balance: list[str] = []
    limit: int | None = Field(None, ge=1)
    validate_on: Literal["val", "train"] = "val"


class NetworkSpec(_Strict):
    """trunk: its name and options; frozen: true keeps it as it starts.

    parts: name → {kind, its options, and: reads: what it reads, of trunk, trunk.<map>, <part>, <part>.<map> (by default
    [trunk]); frozen: true; rows: {task, classes}, the faces that it learns from and answers for; similarity: cosine,
    euclidean or inner, where its output is an embedding}. branches: the same, as older recipes call it.
    heads: task → the part it reads, {part: terms of the task}, {reads: several parts, joined}, or {merge: rows, of:
    parts that are routed}; tasks not named read the trunk. embeddings: task → {reads, merge: concat, rows or
    stochastic, similarity}. normalise: mean and std of pixel values 0..255, one number or one a channel."""

    trunk: dict[str, Any]
    branches: dict[str, dict[str, Any]] = {}
    parts: dict[str, dict[str, Any]] = {}
    heads: dict[str, str | dict[str, Any]] = {}
    embeddings: dict[str, dict[str, Any]] = {}
    normalise: dict[str, float | list[float]] = {"mean": 127.5, "std": 128.0}


class WeightingSpec(_Strict):
    """name of a weighting and its options. terms: tasks whose terms are weighed one by one (`attributes/Bald`)."""

    name: str = "fixed"
    options: dict[str, Any] = {}
    terms: list[str] = []


class ThresholdSpec(_Strict):
    """Thresholds of attributes that follow the validation faces (Mao et al. 2020, Eq. 6). rate: γ."""

    tasks: list[str] = ["attributes"]
    rate: float = Field(0.01, ge=0)


class CentresSpec(_Strict):
    """A centre loss (Wen et al. 2016; Ming et al. 2021, Eq. 5): ½‖e − c_y‖² of a face's embedding e and the centre of
    its person, `weight` of it added to the loss of each of `tasks`, which share one table of centres. rate: how far a
    step moves a centre towards the mean of its person's faces in the batch."""

    tasks: list[str]
    weight: float = Field(0.1, ge=0)
    rate: float = Field(0.5, gt=0, le=1)


class DistilSpec(_Strict):
    """Let the embeddings of `tasks` stay near those that a teacher (an earlier stage's or another bundle) has of the
    training faces: `weight` · (1 − cosine) is added to their losses. people: of caricatures, near the mean of the
    teacher's embeddings of their person's photos."""

    teacher: str
    tasks: list[str]
    weight: float = Field(10.0, ge=0)
    people: bool = False


class StoppingSpec(_Strict):
    """Task-wise early stopping (Eq. 5). main: tasks that never stop; window: k; threshold: ε."""

    main: list[str]
    window: int = Field(10, ge=1)
    threshold: float = 1.0


class OptimisationSpec(_Strict):
    """optimiser sgd, adamw or rmsprop. body_lr: the learning rate of trunk and branches over that of the heads.
    schedule constant, cosine (to 0), steps of ×0.1 at `milestones` (fractions of the run), or plateau: ×0.1 when the
    main task's validation loss has not fallen for `patience` validations. warmup: fraction of the run. ema: decay of a
    running mean of the weights, which is then what is evaluated and saved. precision: Lightning's ("32-true",
    "bf16-mixed", …), or "auto": bf16-mixed where the device has units for bfloat16, else 32-true; history and bundle
    say which it was. epsilon: of rmsprop, added to the root (TensorFlow's is inside it). validate_every: epochs
    between validations; validate_steps: let weights and thresholds follow a validation every so many steps instead of
    those (the paper's P)."""

    optimiser: Literal["sgd", "adamw", "rmsprop"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    body_lr: float = Field(1.0, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    epochs: int = Field(30, ge=1)
    schedule: Literal["constant", "cosine", "steps", "plateau"] = "cosine"
    milestones: list[float] = [0.5, 0.75]
    patience: int = Field(2, ge=1)
    warmup: float = Field(0.0, ge=0, lt=1)
    ema: float | None = Field(None, gt=0, lt=1)
    clip: float | None = Field(None, gt=0)
    accumulate: int = Field(1, ge=1)
    precision: str = "32-true"
    validate_every: int = Field(1, ge=1)
    validate_steps: int | None = Field(None, ge=1)


class InitSpec(_Strict):
    """Start from an earlier stage, a model bundle's folder, "imagenet" (a timm trunk's weights from a package that
    ships them), "dlib" (those of trunk face-resnet and its branches, likewise) or a .safetensors file with timm's
    names. parts: the trunk, or branches and heads too. branches: the branch that all start from, or {own: given}."""

    source: str
    parts: list[Literal["trunk", "branches", "heads"]] = ["trunk"]
    branches: str | dict[str, str] = {}


def _protocol(given: Any) -> dict[str, Any]:
    try:
        return protocols.settings(given)
    except PolyfaceError as error:
        raise ValueError(str(error)) from error


class EvaluationSpec(_Strict):
    """main: the task that selects and is reported first. select: keep the best epoch by its validation error, or the
    last. translations: predictions averaged over so many small shifts (TCDCN-Averaged; 1: plain) of ±`spread` sides;
    mirror: over the mirrored face as well. protocol: what is compared with what: the name of a protocol and its
    options, a protocol's name alone, or that of a data set's reader that says how the set is evaluated."""

    protocol: Annotated[dict[str, Any], BeforeValidator(_protocol)] = {"name": "per-task"}
    main: str = "landmarks"
    select: Literal["last", "best"] = "last"
    translations: int = Field(1, ge=1)
    spread: float = Field(0.03, ge=0)
    mirror: bool = False


class StageSpec(_Strict):
    """One training run of one network."""

    name: str
    learner: Literal["multitask"] = "multitask"
    data: DataSpec
    network: NetworkSpec
    tasks: dict[str, dict[str, Any]]
    weighting: WeightingSpec = WeightingSpec()
    stopping: StoppingSpec | None = None
    thresholds: ThresholdSpec | None = None
    centres: CentresSpec | None = None
    distil: DistilSpec | None = None
    optimisation: OptimisationSpec = OptimisationSpec()
    init: InitSpec | None = None
    evaluation: EvaluationSpec = EvaluationSpec()


def same_settings(stage: StageSpec, seed: int, kept: Mapping[str, Any]) -> bool:
    """Whether a finished run's settings are these. A key that was added since, and has its default, changes nothing."""
    settings = dict(kept)
    try:
        return bool(settings.pop("seed", None) == seed) and StageSpec.model_validate(settings) == stage
    except ValidationError:
        return False


class VariantSpec(_Strict):
    """A row of the paper's table: the stages it runs (the last one is measured) and what it changes
    (`stage.key.key: value`). model: measure that variant's network instead of training. average: the mean of those
    variants' answers instead of a network. start: `init` may name a stage of that variant, which is trained first.
    predictor "detector": the face detector's own points instead of a network's; "start": the network as `init` leaves
    it, untrained. row: the row it stands in and `prefix` what its figures begin with, where a row has several variants.
    splits: its seeds are splits of the people, each with test faces of its own."""

    stages: list[str]
    set: dict[str, Any] = {}
    seeds: int = Field(3, ge=1)
    model: str | None = None
    average: list[str] = []
    start: str | None = None
    predictor: Literal["network", "detector", "start"] = "network"
    row: str = ""
    prefix: str = ""
    splits: bool = False
    minutes: float = Field(0.0, ge=0)
    """Estimated minutes a seed on one core."""
    note: str = ""
    correlation: bool = False
    """Report the correlation of head weights between the main task and every other."""

    @property
    def needs(self) -> list[str]:
        """The variants that must be finished before this one."""
        return [name for name in (self.model, self.start, *self.average) if name]


class ComparisonSpec(_Strict):
    """Two variants whose paired difference is reported."""

    better: str
    than: str


class Recipe(_Strict):
    """name, seed, ordered stages, and the variants that `polyface reproduce` runs.

    sizes: other sizes of the whole recipe by name, each a mapping of changes (`stage.key.key: value`) that are made
    before a variant's own; `load("name:size")` takes one, and `size` says which was taken."""

    name: str
    about: str = ""
    seed: int = Field(0, ge=0)
    stages: list[StageSpec]
    sizes: dict[str, dict[str, Any]] = {}
    size: str = ""
    variants: dict[str, VariantSpec] = {}
    comparisons: list[ComparisonSpec] = []

    @property
    def place(self) -> str:
        """The name of the folder that runs of this recipe, in this size, are kept in."""
        return f"{self.name}-{self.size}" if self.size else self.name

    def stage(self, name: str) -> StageSpec:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise PolyfaceError(f"recipe {self.name} has no stage '{name}'; {nearest(name, [s.name for s in self.stages])}")

    def at(self, seed: int) -> Recipe:
        """The recipe at a seed, which readers' options may be: `draw: seed`."""
        made = self.model_copy(deep=True, update={"seed": seed})
        for table in (table for stage in made.stages for table in stage.data.tables):
            table.options = {key: seed if value == "seed" else value for key, value in table.options.items()}
        return made

    def variant(self, name: str, seed: int | None = None) -> Recipe:
        """The recipe of one row at a seed (default: the recipe's): its stages only, with its changes."""
        if name not in self.variants:
            raise PolyfaceError(f"recipe {self.name} has no variant '{name}'; {nearest(name, self.variants)}")
        chosen = self.variants[name]
        tree = self.model_dump()
        tree["stages"] = [self.stage(stage).model_dump() for stage in chosen.stages]
        tree["variants"], tree["comparisons"], tree["sizes"] = {}, [], {}
        found = _checked(_override(tree, chosen.set, f"variants.{name}.set"), f"{self.name}: {name}")
        return found.at(self.seed if seed is None else seed)


def load(source: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """A recipe by name (`tcdcn`) or from a YAML file, in one of its sizes (`dmm-cnn:small`), with `key.key=value`
    changes (a stage's name is a key)."""
    source, _, size = str(source).partition(":") if not Path(source).exists() else (str(source), "", "")
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        if not path.exists():
            raise PolyfaceError(f"{path}: no such recipe file")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PolyfaceError(f"{path}: not a readable text file ({error})") from error
    else:
        text = (PAPERS.get(source) / RECIPE).read_text(encoding="utf-8")
    tree = _yaml(text, source)
    if not isinstance(tree, dict):
        raise PolyfaceError(f"{source}: a recipe is a mapping with name and stages")
    stages = tree.get("stages")
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise PolyfaceError(f"{source}: stages: expected a list of mappings, each with name, data, network and tasks")
    defaults = tree.pop("defaults", {})
    tree["stages"] = [_merged(defaults, stage) for stage in stages]
    tree = _unshared(tree)
    if size:
        sizes = tree.get("sizes") or {}
        if size not in sizes:
            raise PolyfaceError(f"recipe {source} has no size '{size}'; {nearest(size, sizes)}")
        tree = _override(tree, sizes[size], f"{source}: sizes.{size}") | {"size": size}
    return _checked(_override(tree, assignments(changes, "--set", "key.key=value"), "--set"), source)


def assignments(texts: Sequence[str], option: str, form: str = "name=value") -> dict[str, Any]:
    """The name=value words of a command's option, the values read as YAML."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise PolyfaceError(f"{option} {text}: expected {form}")
        found[name] = _yaml(value, f"{option} {text}")
    return found


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PolyfaceError(f"{where}: not YAML ({str(error).splitlines()[0]})") from error


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
    """Set dotted keys; the first word may be a stage's name, and `*` means every stage. null removes a key."""
    for dotted, value in edits.items():
        first, *rest = dotted.split(".")
        stages = [s for s in tree.get("stages", []) if first == "*" or s.get("name") == first]
        targets: list[tuple[Any, list[str]]] = [(s, rest) for s in stages] or [(tree, [first, *rest])]
        for node, keys in targets:
            if not keys:
                raise PolyfaceError(f"{what}: '{dotted}' names a whole stage; name one of its keys")
            for key in keys[:-1]:
                if not isinstance(node, dict) or (key not in node and node is tree):
                    names = [s.get("name", "") for s in tree.get("stages", [])]
                    raise PolyfaceError(
                        f"{what}: no stage or key '{key}' in '{dotted}'; {nearest(key, [*names, *tree])}"
                    )
                if node.get(key) is None:
                    node[key] = {}
                node = node[key]
            if not isinstance(node, dict):
                raise PolyfaceError(f"{what}: '{dotted}' goes through a value that holds no keys")
            if value is None:
                node.pop(keys[-1], None)
            else:
                node[keys[-1]] = _unshared(value)
    return tree


def _checked(tree: dict[str, Any], where: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = [p for p in first["loc"]]
        model: Any = Recipe
        hint = ""
        if first["type"] == "extra_forbidden":
            for part in path[:-1]:
                model = _field_model(model, part)
            fields = getattr(model, "model_fields", {})
            hint = f"; {nearest(str(path[-1]), fields)}" if fields else ""
        key = ".".join(map(str, path))
        raise PolyfaceError(f"{where}: {key}: {_plain(first['msg'])}{hint}") from error
    names = [stage.name for stage in recipe.stages]
    for stage in recipe.stages:
        if stage.evaluation.main not in stage.tasks:
            raise PolyfaceError(
                f"{where}: stages.{stage.name}.evaluation.main is '{stage.evaluation.main}'; "
                f"{nearest(stage.evaluation.main, stage.tasks)}"
            )
        unknown = [t for t in (stage.stopping.main if stage.stopping else []) if t not in stage.tasks]
        if unknown:
            raise PolyfaceError(f"{where}: stopping.main names '{unknown[0]}'; {nearest(unknown[0], stage.tasks)}")
    compared = [name for pair in recipe.comparisons for name in (pair.better, pair.than)]
    needed = [name for variant in recipe.variants.values() for name in variant.needs]
    for named in [*compared, *needed]:
        if named not in recipe.variants:
            raise PolyfaceError(
                f"{where}: comparisons, model, average or start names '{named}'; {nearest(named, recipe.variants)}"
            )
    if len(set(names)) < len(names):
        raise PolyfaceError(f"{where}: two stages have the same name among {', '.join(names)}")
    return recipe


def _plain(message: str) -> str:
    return "unknown key" if "Extra inputs" in message else message.lower()


def _field_model(model: Any, part: Any) -> Any:
    """The pydantic model found under a key, an index or a name; None where there is none."""
    import typing

    if isinstance(part, int) or model is None:
        return model
    info = getattr(model, "model_fields", {}).get(part)
    annotation = info.annotation if info else None
    for candidate in [annotation, *typing.get_args(annotation)]:
        for inner in [candidate, *typing.get_args(candidate)]:
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                return inner
    return model if info is None else None
