"""The settings of a stage: data, network, tasks, how it is trained and what it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError
from torch import nn

from polyface import protocols
from polyface.data.augment import AugmentSpec
from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec
from polyface.errors import PolyfaceError, nearest, short
from polyface.files import check_name
from polyface.training.extras import EXTRAS
from polyface.training.learners import LEARNERS
from polyface.training.precision import AUTO, check_precision


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def told(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A check as pydantic takes one: what its `PolyfaceError` says is what is said of the key."""

    def checked(given: Any) -> Any:
        try:
            return check(given)
        except PolyfaceError as error:
            raise PydanticCustomError("refused", "{why}", {"why": str(error)}) from error

    return checked


FolderName = Annotated[str, AfterValidator(told(lambda name: check_name(name, "it")))]
"""A name after which a folder is called."""


class SourceSpec(Strict):
    """One face table of a stage. name: a reader's name, a table file, or "synthetic"; options: the reader's (or n,
    size, seed of the synthetic faces; the value `seed` stands for the run's seed); where: words its columns must hold;
    without: words that they must not; splits: those whose faces are trained on (a stage that learns without labels may
    name all); faces: how many it holds if it is whole; fewer are not trained on (null: however many are); faces_each:
    only faces of people of whom the part (train, val or test) has at least so many; labels: models (bundles, shipped
    names or earlier stages) whose answers stand in for labels that it lacks, as `polyface data label` writes them;
    pose: whether yaw, pitch, roll and pose are measured by their 68 points where it has none."""

    name: str
    ratio: float = Field(1.0, gt=0)
    where: dict[str, str | list[str]] = {}
    without: dict[str, str | list[str]] = {}
    splits: list[Literal["train", "val", "test"]] = Field(["train"], min_length=1)
    options: dict[str, Any] = {}
    faces: Annotated[int, BeforeValidator(lambda given: 0 if given is None else given)] = Field(0, ge=0)
    faces_each: int = Field(0, ge=0)
    labels: list[str] = []
    pose: bool = False

    @model_validator(mode="after")
    def _points(self) -> SourceSpec:
        if self.pose and not self.labels:
            raise ValueError(f"pose of {self.name} needs labels: a model that gives 68 points, such as [face68]")
        return self


class DataSpec(Strict):
    """Faces of a stage: training rows have split "train", validation rows "val", test rows "test".

    balance: columns whose words are drawn equally often in training, the first before the next: [modality, identity]
    fills a batch with as many photos as caricatures, and each half with as many faces of one person as of another; or a
    task, such as one of which few faces have a label, whose faces with and without one are. limit: at most so many
    training faces of a table (the first by a fixed order), for trials. people: training faces of at most so many people
    of a table, by a fixed order, to see what few identities do. labelled: task → at most so many training faces keep
    their label for it, by the same order as `limit`'s; the others are seen without. validate_on: "train" lets the
    training faces stand in for validation faces that a set lacks, as Mao et al. 2020 do on LFWA; "test" lets the test
    faces, to repeat what some published code does: its figures say how well one can choose on them. sizes: sides in
    pixels that training gives the crop in turn, step by step; everything else takes crop.size.
    """

    tables: list[SourceSpec]
    boxes: BoxSpec = BoxSpec()
    crop: CropSpec = CropSpec()
    augment: AugmentSpec = AugmentSpec()
    batch: int = Field(64, ge=1)
    balance: list[str] = []
    limit: int | None = Field(None, ge=1)
    people: int | None = Field(None, ge=2)
    labelled: dict[str, Annotated[int, Field(ge=1)]] = {}
    validate_on: Literal["val", "train", "test"] = "val"
    sizes: list[Annotated[int, Field(ge=8, le=1024)]] = []

    @property
    def varied(self) -> list[str]:
        """The keys that give a face other pictures every epoch, its mirror image aside."""
        return [f"augment.{name}" for name in self.augment.varied if name != "mirror"] + ["sizes"] * bool(self.sizes)


def with_defaults(parts: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Parts of a network by name, each with the options of its kind (`network.defaults`) that it does not give."""
    return {name: {**defaults.get(part.get("kind", "pool"), {}), **part} for name, part in parts.items()}


class NetworkSpec(Strict):
    """trunk: its name and options; frozen: true keeps it as it starts. A stage that extends a model has that one's.
    cached: compute once what a frozen trunk makes of each face, and keep it (in the cache folder, in float32), so that
    parts and heads alone take time.

    parts: name → {kind, its options, and: reads: what it reads, of trunk, trunk.<map>, <part>, <part>.<map> (by default
    [trunk]); frozen: true; rows: {task, classes}, the faces that it learns from and answers for; similarity: cosine,
    euclidean or inner, where its output is an embedding}. branches: the same, as older recipes call it. defaults: kind
    → options of all parts of that kind, where they say nothing else.
    heads: task → the part it reads, {part: terms of the task, or how many, drawn by the seed}, {reads: several parts,
    joined}, or {merge: rows, of: parts that are routed}; with layer: none what is read is the task's output; tasks not
    named read the trunk.
    embeddings: name, that of a task or another, by which a protocol finds it → {reads, merge: concat, rows, hard,
    stochastic or expected, similarity}. normalise: mean and std of pixel values 0..255, one number or one a channel; or
    {per: image}, each picture's own mean and deviation over all its values, the latter at least 1/√(their number).
    biases: where those of new heads start: "prior", at the answer that is best for a face of which nothing is known,
    such as the log of every class's share of the training labels (Lin et al. 2017); or "random". Heads that `init`
    gives go on as they are; so do those of labels that `data.balance` shows equally often, and those without a layer,
    whose parts may be compared as embeddings."""

    trunk: dict[str, Any] = {}
    branches: dict[str, dict[str, Any]] = {}
    parts: dict[str, dict[str, Any]] = {}
    defaults: dict[str, dict[str, Any]] = {}
    heads: dict[str, str | dict[str, Any]] = {}
    embeddings: dict[str, dict[str, Any]] = {}
    normalise: dict[str, float | list[float] | Literal["image"]] = {"mean": 127.5, "std": 128.0}
    biases: Literal["prior", "random"] = "prior"
    cached: bool = False


class WeightingSpec(Strict):
    """name of a weighting and its options. terms: tasks whose loss terms each have a weight of their own
    (`attributes/Bald`)."""

    name: str = "fixed"
    options: dict[str, Any] = {}
    terms: list[str] = []


class OptimisationSpec(Strict):
    """optimiser sgd, adamw or rmsprop. body_lr: the learning rate of trunk and branches over that of the heads.
    schedule constant, cosine (to 0), steps of ×`factor` at `milestones` (fractions of the run), or plateau:
    ×`factor` when the main task's validation loss has not fallen for `patience` validations. warmup: fraction of the
    run. ema: decay of a running mean of the weights, which is then what is evaluated and saved. precision: "auto",
    bf16-mixed where the device has units for bfloat16, else 32-true, or one of Lightning's; history and bundle say
    which it was. epsilon: of rmsprop, added to the root (TensorFlow's is inside it).

    validate_every: epochs between validations, which weights and thresholds follow too. validate_steps: let these
    follow a validation every so many steps instead (the P of Mao et al. 2020), or validate_times: so many an epoch.
    Whatever the period, they follow one before the first step. follow: what they, and stopping, look at: the network
    itself, or its running mean ("mean") where there is one."""

    optimiser: Literal["sgd", "adamw", "rmsprop"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    body_lr: float = Field(1.0, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    epochs: int = Field(30, ge=1)
    schedule: Literal["constant", "cosine", "steps", "plateau"] = "cosine"
    milestones: list[float] = [0.5, 0.75]
    factor: float = Field(0.1, gt=0, lt=1)
    patience: int = Field(2, ge=1)
    warmup: float = Field(0.0, ge=0, lt=1)
    ema: float | None = Field(None, gt=0, lt=1)
    clip: float | None = Field(None, gt=0)
    accumulate: int = Field(1, ge=1)
    precision: Annotated[str, AfterValidator(told(check_precision))] = AUTO
    validate_every: int = Field(1, ge=1)
    validate_steps: int | None = Field(None, ge=1)
    validate_times: int | None = Field(None, ge=1)
    follow: Literal["network", "mean"] = "network"

    @model_validator(mode="after")
    def _one_period(self) -> OptimisationSpec:
        if self.validate_steps and self.validate_times:
            raise PydanticCustomError("period", "validate_steps and validate_times: give one of them")
        return self


class InitSpec(Strict):
    """One thing that a network starts from. source: an earlier stage, a model bundle's folder or shipped name, a kind
    of published weights (`polyface parts weights`), or a .safetensors, .pth or .pt file with the names of timm or, for
    trunk inception-resnet, of facenet-pytorch. parts: which parts are taken over. branches: the branch that all start
    from, or {own: given}."""

    source: str
    parts: list[Literal["trunk", "branches", "heads"]] = ["trunk"]
    branches: str | dict[str, str] = {}


def _listed(given: Any) -> Any:
    """One start alone is a list of one."""
    if isinstance(given, Mapping | InitSpec):
        return [InitSpec.model_validate(given)]  # here, so that an error is placed at `init` itself
    return [] if given is None else given


class EvaluationSpec(Strict):
    """main: the task that selects and is reported first. select: keep the best epoch by its validation error, or the
    last. translations: predictions averaged over so many small shifts (TCDCN-Averaged; 1: plain) of ±`spread` sides;
    mirror: over the mirrored face as well. covered, pixels: the faces tested are degraded, by a grey square of so many
    crop sides that lies on each, or as if they had so many pixels a side (0: neither). protocol: what is compared with
    what: the name of a protocol and its options, a protocol's name alone, or that of a data set's reader that says how
    the set is evaluated."""

    protocol: Annotated[dict[str, Any], BeforeValidator(told(protocols.settings))] = {"name": protocols.DEFAULT}
    main: str = "landmarks"
    select: Literal["last", "best"] = "last"
    translations: int = Field(1, ge=1)
    spread: float = Field(0.03, ge=0)
    mirror: bool = False
    covered: float = Field(0, ge=0, le=1)
    pixels: int = Field(0, ge=0)


class BaseStage(Strict):
    """What every stage has, whatever trains it. learner: the part that does (`polyface parts learner`)."""

    name: FolderName
    learner: str = "multitask"
    data: DataSpec

    @property
    def main(self) -> str:
        """The task that selects and is reported first; "" where the stage trains no tasks."""
        return ""

    @property
    def has_tasks(self) -> bool:
        """Whether it trains tasks, on which its model can be measured."""
        return False

    @property
    def with_tasks(self) -> StageSpec:
        """The stage as one that trains tasks, for what asks tasks of it."""
        raise PolyfaceError(f"stage {self.name}: learner {self.learner} trains no tasks: nothing can be measured on it")

    def learnt(self) -> BaseStage:
        """The stage without what changes nothing that is learnt, such as how many faces its tables must have."""
        tables = [table.model_copy(update={"faces": 0}) for table in self.data.tables]
        return self.model_copy(update={"data": self.data.model_copy(update={"tables": tables})})

    def check(self) -> None:
        """Raise a `PolyfaceError` where keys do not fit together; called when the recipe is read."""


class StageSpec(BaseStage):
    """A stage that trains one network on tasks. Beside these keys it may have those of extras (`EXTRAS`).

    extends: an earlier stage, a bundle's folder or a shipped model. The network is that one's, frozen as it is, and
    goes on answering its tasks; the parts and heads that `network` names are added to it, and `tasks` to its tasks. It
    has no trunk and no normalisation of its own then, and crop and boxes must be that model's."""

    model_config = ConfigDict(extra="allow")
    extends: str = ""
    network: NetworkSpec = NetworkSpec()
    tasks: dict[str, dict[str, Any]]
    weighting: WeightingSpec = WeightingSpec()
    optimisation: OptimisationSpec = OptimisationSpec()
    init: Annotated[list[InitSpec], BeforeValidator(_listed)] = []
    evaluation: EvaluationSpec = EvaluationSpec()

    @model_validator(mode="before")
    @classmethod
    def _extras(cls, given: Any) -> Any:
        """Each key that is no field as the settings of its extra; null is as if it were not there."""
        if not isinstance(given, Mapping):
            return given
        own = {key: value for key, value in given.items() if key in cls.model_fields}
        others = {
            key: value for key, value in given.items() if key not in own and (value is not None or key not in EXTRAS)
        }
        specs = {key: spec for key in others if key in EXTRAS and (spec := EXTRAS.get(key).Spec)}
        fields: dict[str, Any] = {key: (spec, ...) for key, spec in specs.items()}
        checked = create_model("Extras", __base__=Strict, **fields).model_validate(others)
        return own | {key: getattr(checked, key) for key in specs}

    @property
    def extras(self) -> dict[str, Any]:
        """The settings of the extras that it asks for, by name, in the order in which they act."""
        asked = dict(self.__pydantic_extra__ or {})
        if self.optimisation.ema:
            asked["running-mean"] = self.optimisation.ema
        return dict(sorted(asked.items()))

    @property
    def moved(self) -> list[str]:
        """The tasks whose own settings, such as thresholds, training changes."""
        return [task for name, spec in self.extras.items() for task in EXTRAS.get(name).moves(spec)]

    @property
    def main(self) -> str:
        return self.evaluation.main

    @property
    def has_tasks(self) -> bool:
        return True

    @property
    def with_tasks(self) -> StageSpec:
        return self

    def learnt(self) -> BaseStage:
        uncached = self.network.model_copy(update={"cached": False})
        return super().learnt().model_copy(update={"network": uncached})

    def check(self) -> None:
        for name in self.tasks:
            if not name or "." in name or "/" in name or hasattr(nn.ModuleDict, name):
                raise PolyfaceError(
                    f"stages.{self.name}.tasks: no task can be called '{short(name)}'; take a word without . or /"
                )
        if self.main not in self.tasks:
            raise PolyfaceError(
                f"stages.{self.name}.evaluation.main is '{self.main}'; {nearest(self.main, self.tasks)}"
            )
        if bool(self.network.trunk) == bool(self.extends):
            hint = f"is that of {self.extends}: leave it out" if self.extends else "give its name and options"
            raise PolyfaceError(f"stages.{self.name}.network.trunk: {hint}")
        if self.network.cached:
            self._check_cached()
        for name, spec in self.extras.items():
            EXTRAS.get(name).check(spec, self)

    def _check_cached(self) -> None:
        """Refuse what would show the trunk other pictures than those of which it is known what it makes."""
        where = f"stages.{self.name}.network.cached"
        if not self.extends and self.network.trunk.get("frozen") is not True:
            raise PolyfaceError(f"{where}: the trunk learns; set network.trunk.frozen to true, or leave cached out")
        if varied := self.data.varied:
            raise PolyfaceError(
                f"{where}: data.{varied[0]} gives a face other pictures every epoch; leave one of them out"
            )


def stage_spec(given: Any) -> Any:
    """A stage's settings, of the class that its learner has for them."""
    if not isinstance(given, Mapping):
        return given
    learner = str(given.get("learner", "multitask"))
    spec: type[BaseStage] = LEARNERS.get(learner, f"stages.{given.get('name', '')}.learner").Spec
    return spec.model_validate(given)


Stage = Annotated[SerializeAsAny[BaseStage], BeforeValidator(stage_spec)]
"""A stage of any learner."""


def same_settings(stage: BaseStage, seed: int, kept: Mapping[str, Any]) -> bool:
    """Whether a finished run's settings are these. A key that was added since, and has its default, changes nothing;
    a precision that is left to the device may have been any."""
    settings = dict(kept)
    try:
        if settings.pop("seed", None) != seed:
            return False
        return _comparable(stage_spec(settings), stage).learnt() == stage.learnt()
    except (ValidationError, PolyfaceError):  # of an older or newer Polyface, or of a package that is gone
        return False


def _comparable(settings: BaseStage, asked: BaseStage) -> BaseStage:
    """Settings without the precision, where it is not `asked` for."""
    own, wanted = (getattr(stage, "optimisation", None) for stage in (settings, asked))
    if getattr(wanted, "precision", None) != AUTO or not isinstance(own, BaseModel):
        return settings
    return settings.model_copy(update={"optimisation": own.model_copy(update={"precision": AUTO})})
