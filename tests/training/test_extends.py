"""Trained models to which tasks are added: all that was there stays bit for bit, and what could not be is refused."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.models import find, model_info, models
from polyface.models.bundle import Bundle, load_bundle
from polyface.networks.parts.column import ColumnPart
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.extending import extension
from polyface.training.recipe import Recipe
from polyface.training.start import build_network

from .conftest import toy_tree
from .recognition import fit

TRUNK = {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "map"}
POOL = {"kind": "pool", "levels": 0, "hidden": [6], "norm": True, "dropout": 0.5}
COLUMN = {"kind": "column", "reads": ["trunk.stage2"], "blocks": 2, "widths": [3, 4], "convs_per_group": 1, "width": 6}
SMILE = {"kind": "classification", "column": "smile"}
POSE = {"kind": "classification", "column": "pose"}
GENDER = {"kind": "classification", "column": "gender"}


def tree(*more: dict[str, Any], **first: Any) -> dict[str, Any]:
    """A stage "one" that learns `smile` with all it has, and others with the same faces."""
    made = toy_tree({
        "data": {
            "tables": [{"name": "synthetic", "options": {"n": 60, "size": 48, "seed": 1}}],
            "augment": {"rotate": 0, "zoom": 0, "shift": 0},
        },
        "network": {"trunk": None, "parts": {"old": POOL}, "heads": {"smile": "old"}},
        "optimisation": {"optimiser": "adamw", "weight_decay": 0.1, "epochs": 1},
        "evaluation": {"main": "smile"},
    })  # fmt: skip
    one = made["stages"][0]
    one["network"]["trunk"] = TRUNK
    one["tasks"] = {"smile": SMILE}
    shared = {"data": one["data"], "optimisation": one["optimisation"] | {"ema": 0.9, "epochs": 2}}
    made["stages"] = [one | first, *(shared | stage for stage in more)]
    return made


def adding(name: str, extends: str, task: str, **network: Any) -> dict[str, Any]:
    """A stage that adds a task with a column of its name to another."""
    network = {"parts": {task: COLUMN}, "heads": {task: task}} | network
    tasks = {task: {"kind": "classification", "column": task}}
    return {"name": name, "extends": extends, "network": network, "tasks": tasks, "evaluation": {"main": task}}


def read(made: dict[str, Any]) -> Recipe:
    return recipes.of_tree(made, "test")


def state(bundle: Path) -> dict[str, Tensor]:
    return load_bundle(bundle, quiet=True).network.state_dict()


def pixels(count: int = 5) -> Tensor:
    return torch.rand(count, 1, 40, 40, generator=torch.Generator().manual_seed(0)) * 255


@torch.no_grad()
def answers(bundle: Path) -> dict[str, Tensor]:
    return load_bundle(bundle, quiet=True).network.eval()(pixels()).outputs


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> list[Path]:
    """The bundles of a chain: smile with a trunk of its own, then a column for pose, then one for gender that reads it;
    batch norm and dropout in the old parts, weight decay and a running mean of the weights over all."""
    last = {"parts": {"gender": COLUMN | {"reads": ["trunk.stage2", "pose"], "adapter": "nonlinear"}}, "cached": True}
    made = tree(adding("two", "one", "pose"), adding("three", "two", "gender", **last))
    return [result.bundle for result in fit(read(made), tmp_path_factory.mktemp("grown")).values()]


def test_what_was_there_is_bit_identical(grown: list[Path]) -> None:
    """Every parameter and every running mean of a batch norm; only what is new has learnt."""
    for number, new in ((1, "pose"), (2, "gender")):
        before, after = state(grown[number - 1]), state(grown[number])
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
        assert {name.split(".")[1] for name in after.keys() - before.keys()} == {new}
        start = build_network(*start_of(new, grown[number - 1]))
        assert {name for name, p in start.named_parameters() if p.requires_grad} == {
            name for name in after.keys() - before.keys()
        }
        moved = {name for name, tensor in start.state_dict().items() if not torch.equal(tensor, after[name])}
        assert moved == after.keys() - before.keys()


def start_of(task: str, old: Path) -> Any:
    """What `build_network` takes to build the stage of a task as it begins."""
    reads = ["trunk.stage2", "pose"] if task == "gender" else ["trunk.stage2"]
    part = COLUMN | {"reads": reads, "adapter": "nonlinear"}
    recipe = read(tree(adding("next", "old", task, parts={task: part})))
    stage = recipe.stages[1]
    return stage, stages.stage_tasks(stage, every=True), recipe.seed, {"old": old}


def test_earlier_answers_are_bit_identical_and_all_are_given(grown: list[Path]) -> None:
    one, two, three = map(answers, grown)
    assert (list(one), list(two), list(three)) == (["smile"], ["smile", "pose"], ["smile", "pose", "gender"])
    assert torch.equal(one["smile"], two["smile"])
    assert torch.equal(one["smile"], three["smile"])
    assert torch.equal(two["pose"], three["pose"])
    assert three["gender"].std(0).min() > 0


def test_the_bundle_says_what_was_added_when_and_from_which_faces(grown: list[Path]) -> None:
    first, last = load_bundle(grown[0]), load_bundle(grown[2])
    assert "added" not in first.about
    assert {**last.about, "name": ""} == {**first.about, "name": "", "added": last.about["added"]}
    pose, gender = last.about["added"]
    assert (pose["tasks"], gender["tasks"]) == (["pose"], ["gender"])
    (faces,) = pose["data"]
    assert (faces["table"], faces["faces"], len(faces["fingerprint"]) > 8) == ("synthetic", 60, True)
    assert {"date", "recipe", "seed", "precision"} <= pose.keys()
    assert (last.crop, last.boxes) == (first.crop, first.boxes)
    assert last.tasks["smile"].config() == first.tasks["smile"].config()
    info = model_info(grown[2])
    assert info.tasks == ("smile", "pose", "gender")
    assert [line.partition(" on ")[0] for line in info.added] == ["pose: added", "gender: added"]
    assert info.added[0].endswith("from synthetic (60 faces)")


def test_what_is_not_asked_for_rests_while_something_else_learns(grown: list[Path]) -> None:
    stage, tasks, seed, earlier = start_of("gender", grown[1])
    network = build_network(stage, tasks, seed, earlier).train()
    walked = [(node.kept_in, node.name) for node in network.nodes_for(tasks)]
    assert walked == [("branches", "pose"), ("branches", "gender"), ("heads", "gender")]
    found = network(pixels(), nodes=network.nodes_for(tasks)).outputs
    assert list(found) == ["gender"]
    torch.manual_seed(0)
    whole = network(pixels()).outputs["gender"]
    torch.manual_seed(0)
    assert torch.equal(network(pixels(), nodes=network.nodes_for(tasks)).outputs["gender"], whole)


# ------------------------------------------------------------------------------------------------ the command's recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle whose trunk ends in a vector, of a stage with two tasks."""
    stage = tree()["stages"][0]
    stage |= {"network": {"trunk": TRUNK | {"pool": "avg"}}, "tasks": {"smile": SMILE, "pose": POSE}}
    spec = recipes.of_tree({"name": "made", "stages": [stage]}, "test").stages[0]
    tasks = stages.named_tasks(spec)  # type: ignore[arg-type]
    network = build_network(spec, tasks, 0, {})  # type: ignore[arg-type]
    about = {"name": "first/one", "terms": ""}
    folder = tmp_path_factory.mktemp("model") / "bundle"
    return Bundle(network, tasks, spec.data.crop, spec.data.boxes, about).save(folder)


SHORT = ["*.data.tables.0.options={n: 60, size: 48, seed: 1}", "*.optimisation.epochs=1"]


def test_a_task_in_short_becomes_a_light_column_on_the_last_map(model: Path) -> None:
    found = extension(str(model), ["gender=classification", "years={kind: regression, column: age}"], ["synthetic"])
    (stage,) = found.stages
    bundle = load_bundle(model)
    assert (found.name, stage.name) == ("first+gender+years", "gender+years")
    assert stage.tasks == {"gender": GENDER, "years": {"kind": "regression", "column": "age"}}  # type: ignore[attr-defined]
    assert (stage.data.crop, stage.data.boxes) == (bundle.crop, bundle.boxes)
    network = stage.network  # type: ignore[attr-defined]
    assert network.cached
    assert network.heads == {"gender": "gender", "years": "years"}
    assert network.parts["gender"]["reads"] == ["trunk.stage5"]
    built = build_network(stage, stages.named_tasks(stage), 0, {str(model): model})  # type: ignore[arg-type]
    assert list(built.heads) == ["smile", "pose", "gender", "years"]


def test_a_recipe_gives_faces_tasks_parts_and_optimisation(model: Path, tmp_path: Path) -> None:
    made = tree(adding("last", "one", "gender"))
    made["stages"][1] |= {"weighting": {"name": "ming"}}
    made["stages"][1]["data"] = made["stages"][1]["data"] | {"augment": {"mirror": 0.5, "rotate": 5.0}}
    made["stages"][1]["data"]["crop"] = {"size": 96, "channels": 3}
    (tmp_path / "recipe.yaml").write_text(recipes.of_tree(made, "test").model_dump_json())
    found = extension(str(model), [str(tmp_path / "recipe.yaml")], changes=["last.optimisation.epochs=7"])
    (stage,) = found.stages
    spec: Any = stage
    assert (found.name, stage.name, spec.extends) == ("first+toy", "last", str(model))
    assert (stage.data.crop.size, spec.optimisation.epochs, spec.optimisation.ema) == (40, 7, 0.9)
    assert (spec.network.parts, spec.weighting.name) == ({"gender": COLUMN}, "ming")
    assert not spec.network.cached  # its faces are turned, other ones every epoch


def test_new_columns_are_like_those_that_they_read(grown: list[Path]) -> None:
    found: Any = extension(str(grown[2]), ["glasses=classification"], ["synthetic"], ["gender", "pose"])
    like = COLUMN | {"adapter": "nonlinear", "reads": ["trunk.stage2", "gender", "pose"], "frozen": False}
    assert found.stages[0].network.parts == {"glasses": like}


def test_it_is_trained_once_and_resumed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again where the model it began with is another one now."""
    recipe = extension(str(model), ["gender=classification"], ["synthetic"], changes=SHORT)
    options = stages.RunOptions(accelerator="cpu", logger="none")
    run: Callable[..., Any] = lambda where: stages.run(recipe, tmp_path, None, options, {str(model): where})  # noqa: E731
    first = run(model)["gender"]
    assert answers(first.bundle).keys() == {"smile", "pose", "gender"}
    assert torch.equal(answers(first.bundle)["pose"], answers(model)["pose"])
    stamp = (first.bundle / "model.safetensors").stat().st_mtime_ns
    assert run(model)["gender"].bundle == first.bundle
    assert (first.bundle / "model.safetensors").stat().st_mtime_ns == stamp
    other = load_bundle(model)
    with torch.no_grad():
        other.network.heads["pose"].bias += 1
    with pytest.raises(PolyfaceError, match="was finished, and the weights of .* changed since"):
        run(other.save(tmp_path / "other"))


@pytest.mark.parametrize(
    "added, more, message",
    [
        (["pose=classification"], {}, "network.heads.pose: it has a 'pose' already; take another name"),
        (["gender=classification"], {"tables": []}, "from which faces.*--table"),
        (["gender=clasification"], {}, "tasks.gender.kind is 'clasification'; did you mean 'classification'"),
        (["gender={column: gender}"], {}, "task gender=.*expected name=kind"),
        (["gender=3"], {}, "task gender=3: expected name=kind"),
        (["gender=classification", "wrinkles"], {}, "task wrinkles: expected name=kind"),
        (["wrinkles"], {"tables": []}, "'wrinkles' is no task, such as emotion=classification, and no recipe"),
        (["none.yaml"], {"tables": []}, "none.yaml: no such file"),
        (["synthetic"], {}, "--table is for tasks"),
        (["gender=classification"], {"reads": ["smile"]}, "--reads: .* has no column that a new one could read"),
        (["gender=classification"], {"changes": ["gender.extend=x"]}, "unknown key.*'extends'"),
        (["gender=classification"], {"changes": ["gender.network.trunk.name=tcdcn"]}, "network.trunk: is that of"),
        (["gender=classification"], {"changes": ["gender.data.crop.size=48"]}, "data.crop is not that of .* size: 40"),
    ],
)
def test_what_cannot_be_added_is_refused_in_one_line(
    model: Path, added: list[str], more: dict[str, Any], message: str
) -> None:
    def begin() -> None:
        (stage,) = extension(str(model), added, **{"tables": ["synthetic"]} | more).stages
        build_network(stage, stages.named_tasks(stage), 0, {})  # type: ignore[arg-type]

    with pytest.raises(PolyfaceError, match=message) as caught:
        begin()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [info.name for info in models()])
def test_every_shipped_model_can_be_extended(name: str) -> None:
    """Answers and embeddings are the same to the last bit as the stage begins, and only what is new can learn."""
    (stage,) = extension(name, ["mood={kind: classification, column: expression}"], ["synthetic"]).stages
    old = load_bundle(find(name), quiet=True).network.eval()
    network = build_network(stage, stages.named_tasks(stage), 0, {}).eval()  # type: ignore[arg-type]
    images = torch.rand(2, stage.data.crop.channels, old.size, old.size) * 255
    with torch.inference_mode():
        before, after = old(images), network(images)
    for kind in ("outputs", "embeddings"):
        assert all(torch.equal(value, getattr(after, kind)[at]) for at, value in getattr(before, kind).items())
    assert after.outputs.keys() - before.outputs.keys() == {"mood"}
    assert all(".mood." in at for at, p in network.named_parameters() if p.requires_grad)


def test_a_stage_has_a_trunk_or_extends_something(tmp_path: Path) -> None:
    made = tree()
    made["stages"][0]["network"].pop("trunk")
    with pytest.raises(PolyfaceError, match="stages.one.network.trunk: give its name"):
        read(made)
    with pytest.raises(PolyfaceError, match="stage two: extends: no model 'on': .*or name one of one"):
        fit(read(tree(adding("two", "on", "pose"))), tmp_path)


DOCUMENT = Path(__file__).parents[2] / "docs" / "columns.md"


def test_what_the_documentation_shows_can_be_read_and_built(tmp_path: Path) -> None:
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)]
    (whole,) = [block for block in blocks if "stages:" in block]
    (tmp_path / "recipe.yaml").write_text(whole)
    chain: Any = recipes.load(tmp_path / "recipe.yaml").stages
    assert [(stage.name, stage.extends) for stage in chain] == [("emotion", ""), ("gender", "emotion")]
    alone, laterals, _, together = (yaml.safe_load(block) for block in blocks)
    defaults = {name: value.default for name, value in inspect.signature(ColumnPart).parameters.items()}
    said = alone["network"]["parts"]["emotion"]
    assert {**defaults, **said, "pool": None, "widths": (128, 256)} == {
        **defaults,
        "kind": "column",
        "reads": ["trunk"],
    }
    assert said["pool"] == [3, 4]
    stage: Any = read(tree(init=together["init"], network=together["network"])).stages[0]
    assert [init.branches for init in stage.init] == [{"emotion": "emotion"}, {"age": "age"}]
    small = {"blocks": 1, "widths": [2]}
    for parts in (alone["network"]["parts"] | laterals, together["network"]["parts"]):
        parts = {name: part | small | {"pool": [1]} for name, part in parts.items()}
        built = networks.build({"trunk": TRUNK, "parts": parts, "heads": {"gender": {"gender": [0, 1]}}})
        assert len(built.graph.parts["gender"].reads) == 3


# ------------------------------------------------------------------------------------------------ earlier columns


def column_bundle(folder: Path, seed: int, trunk: Path | None = None, **parts: Any) -> Path:
    """An untrained bundle of columns over a trunk, its own or another bundle's."""
    init = [] if trunk is None else [{"source": str(trunk)}]
    network = {"trunk": TRUNK | {"frozen": True}, "parts": parts, "heads": {"smile": list(parts)[-1]}}
    stage: Any = read(tree(init=init, network=network)).stages[0]
    tasks = stages.named_tasks(stage)
    built = build_network(stage, tasks, seed, {})
    return Bundle(built, tasks, stage.data.crop, stage.data.boxes, {"name": "x"}).save(folder)


def reusing(*init: tuple[Path, dict[str, str]], **emotion: Any) -> dict[str, Any]:
    """A network whose frozen columns `age` and `emotion` come from elsewhere, and `smile` that reads both."""
    parts = {
        "age": COLUMN | {"frozen": True},
        "emotion": COLUMN | {"frozen": True} | emotion,
        "smile": COLUMN | {"reads": ["trunk.stage2", "age", "emotion"]},
    }
    network = {"trunk": TRUNK | {"frozen": True}, "parts": parts, "heads": {"smile": "smile"}, "cached": True}
    starts = [{"source": str(source), "parts": ["trunk", "branches"], "branches": own} for source, own in init]
    starts[1]["parts"] = ["branches"]
    return {"network": network, "init": starts}


def test_columns_trained_alone_are_reused_bit_for_bit(tmp_path: Path) -> None:
    """The scheme of Table V: parallel columns over one trunk, a new one that reads them, all but it frozen."""
    first = column_bundle(tmp_path / "first", 1, only=COLUMN)
    second = column_bundle(tmp_path / "second", 2, first, emotion=COLUMN)
    recipe = read(tree(**reusing((first, {"age": "only"}), (second, {"emotion": "emotion"}))))
    after = state(fit(recipe, tmp_path / "run")["one"].bundle)
    age, emotion = (first, "branches.age", "branches.only"), (second, "branches.emotion", "branches.emotion")
    for source, own, given in ((first, "trunk", "trunk"), age, emotion):
        kept = {name: tensor for name, tensor in state(source).items() if name.startswith(f"{given}.")}
        assert kept
        assert all(torch.equal(tensor, after[own + name.removeprefix(given)]) for name, tensor in kept.items())


def test_a_frozen_column_of_another_trunk_is_refused_by_both_hashes(tmp_path: Path) -> None:
    first = column_bundle(tmp_path / "first", 1, only=COLUMN)
    other = column_bundle(tmp_path / "other", 2, emotion=COLUMN)
    spec: Any = read(tree(**reusing((first, {"age": "only"}), (other, {})))).stages[0]
    there, here = (
        load_bundle(one).network.grounds(part)["trunk"][:12] for one, part in ((other, "emotion"), (first, "only"))
    )
    expected = rf"parts.emotion is frozen, and in .*other it was trained over another trunk \({there}\) than "
    expected += rf"the trunk here, that of .*first \({here}\)"
    with pytest.raises(PolyfaceError, match=expected) as caught:
        build_network(spec, stages.named_tasks(spec), 0, {})
    assert "\n" not in str(caught.value)
    spec.network.parts["emotion"] = COLUMN  # that learns may begin anywhere
    spec.network.parts["smile"] = COLUMN | {"reads": ["trunk.stage2", "age", "emotion"]}
    build_network(spec, stages.named_tasks(spec), 0, {})


def test_a_frozen_column_is_refused_where_it_would_read_another_column(tmp_path: Path) -> None:
    """The end of a chain alone means nothing over another beginning; with it, it does."""
    first = column_bundle(tmp_path / "first", 1, only=COLUMN)
    lateral = COLUMN | {"reads": ["trunk.stage2", "age"]}
    chain = column_bundle(tmp_path / "chain", 2, first, age=COLUMN, emotion=lateral)
    reads = {"reads": lateral["reads"]}
    spec: Any = read(tree(**reusing((first, {"age": "only"}), (chain, {}), **reads))).stages[0]
    assert build_network(spec, stages.named_tasks(spec), 0, {})  # the chain's own `age` came with it
    spec.network.parts["emotion"]["reads"] = ["trunk.stage2"]
    spec.init[1].branches = {"emotion": "emotion"}
    with pytest.raises(PolyfaceError, match="emotion is frozen, and in .*chain it has other layers"):
        build_network(spec, stages.named_tasks(spec), 0, {})
    spec.network.parts["emotion"]["reads"] = lateral["reads"]
    spec.init = [spec.init[1], spec.init[0]]
    spec.init[0].branches, spec.init[1].parts = {}, ["trunk", "branches"]
    with pytest.raises(PolyfaceError, match="in .*chain it was trained over another part .* than the 'age' here"):
        build_network(spec, stages.named_tasks(spec), 0, {})


def test_cached_columns_learn_what_they_learn_from_pictures(tmp_path: Path) -> None:
    first = column_bundle(tmp_path / "first", 1, only=COLUMN)
    second = column_bundle(tmp_path / "second", 2, first, emotion=COLUMN)
    found = []
    for cached in (True, False):
        changes = reusing((first, {"age": "only"}), (second, {}))
        changes["network"]["cached"] = cached
        found.append(state(fit(read(tree(**changes)), tmp_path / str(cached))["one"].bundle))
    for name, tensor in found[0].items():
        np.testing.assert_allclose(tensor, found[1][name], rtol=1e-5, atol=1e-5)
