"""Recipes: every mistake names its key and what it may have meant; changes, variants and defaults do what they say."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from polyface import networks
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.schema import ATTRIBUTES, VOCABULARIES
from polyface.training.papers import PAPERS
from polyface.training.recipe import Recipe, load
from polyface.training.specs import SourceSpec, StageSpec
from polyface.training.stages import _rows, stage_tasks
from polyface.training.start import network_config

TREE: dict[str, Any] = {
    "name": "toy",
    "defaults": {
        "network": {"trunk": {"name": "tcdcn"}},
        "tasks": {"landmarks": {"kind": "landmarks"}},
        "optimisation": {"lr": 0.1, "epochs": 5},
    },
    "stages": [
        {"name": "five", "data": {"tables": [{"name": "synthetic"}]}},
        {
            "name": "dense",
            "data": {"tables": [{"name": "synthetic"}]},
            "tasks": {"landmarks": {"points": 68}},
            "optimisation": {"lr": 0.01},
            "init": {"source": "five"},
        },
    ],
    "variants": {
        "plain": {"stages": ["five"]},
        "hot": {"stages": ["five"], "set": {"five.optimisation.lr": 9, "five.stopping.main": ["landmarks"]}},
        "both": {"stages": ["five", "dense"], "set": {"*.optimisation.epochs": 2, "dense.init": None}},
    },
}


@pytest.fixture
def write(tmp_path) -> Callable[[Any], Path]:
    """``write(tree)``: a recipe file with this tree, or with this text."""

    def make(tree: Any = TREE) -> Path:
        path = tmp_path / "toy.yaml"
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
        return path

    return make


def changed(edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    tree = copy.deepcopy(TREE)
    edit(tree)
    return tree


def fails(path: Path | str, expected: str, *changes: str) -> None:
    with pytest.raises(PolyfaceError, match=expected) as caught:
        load(path, changes)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- reading


def test_defaults_are_merged_key_by_key(write) -> None:
    recipe = load(write())
    five, dense = recipe.stages
    assert (five.optimisation.lr, five.optimisation.epochs) == (0.1, 5)
    assert (dense.optimisation.lr, dense.optimisation.epochs) == (0.01, 5)
    assert five.tasks == {"landmarks": {"kind": "landmarks"}}
    assert dense.tasks == {"landmarks": {"kind": "landmarks", "points": 68}}
    assert five.init == []
    assert [start.source for start in dense.init] == ["five"]
    assert recipe.stage("dense") is dense


def test_merging_shares_nothing_between_stages(write) -> None:
    five, dense = load(write(), ["five.network.trunk.plan=tcdcn68"]).stages
    assert five.network.trunk == {"name": "tcdcn", "plan": "tcdcn68"}
    assert dense.network.trunk == {"name": "tcdcn"}
    five, dense = load(write(), ["*.network.trunk={name: timm}", "five.network.trunk.model=resnet18"]).stages
    assert dense.network.trunk == {"name": "timm"}


def test_anchors_share_nothing_either(write) -> None:
    text = """
name: x
stages:
- {name: a, data: &d {tables: [{name: synthetic}]}, network: {trunk: &t {name: tcdcn}}, tasks: &k {landmarks: {}}}
- {name: b, data: *d, network: {trunk: *t}, tasks: *k}
"""
    a, b = load(write(text), ["a.network.trunk.plan=tcdcn68", "a.data.batch=3"]).stages
    assert b.network.trunk == {"name": "tcdcn"}
    assert (a.data.batch, b.data.batch) == (3, 64)


def test_a_recipe_survives_being_written_and_read(write) -> None:
    recipe = load(write())
    again = load(write(recipe.model_dump(mode="json")))
    assert again == recipe


@pytest.mark.parametrize("name", PAPERS.names())
def test_recipes_that_come_with_the_package(name: str) -> None:
    from polyface.training.stages import build_weighting

    recipe = load(name)
    chosen = [recipe.variant(variant) for variant, row in recipe.variants.items() if row.model is None]
    assert recipe.stages
    for each in [recipe, *chosen]:
        assert each.stages
        for stage in (with_words(stage) for stage in each.stages if isinstance(stage, StageSpec)):
            stage_tasks(stage)
            build_weighting(stage, features=8)


def with_words(stage: StageSpec) -> StageSpec:
    """Two people or words where tasks learn them from training faces, which are not here."""
    taught = {name: task | _taught(task) for name, task in stage.tasks.items()}
    return stage.model_copy(update={"tasks": taught})


def _taught(task: dict[str, Any]) -> dict[str, Any]:
    if task["kind"] == "identity":
        return {"people": ["ann", "bob"]}
    own = task["kind"] == "classification" and not VOCABULARIES.get(task["column"], task.get("vocabulary"))
    return {"vocabulary": ["one", "two"]} if own else {}


# --------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "edit, expected",
    [
        (lambda t: t["stages"][0].update(optimization={}), "stages.0.optimization: unknown key.*'optimisation'"),
        (lambda t: t["stages"][0]["data"].update(batchsize=3), "stages.0.data.batchsize: unknown key.*'batch'"),
        (lambda t: t["stages"][0]["data"].update(crop={"siz": 3}), "stages.0.data.crop.siz: unknown key.*'size'"),
        (lambda t: t["stages"][0]["data"]["tables"][0].update(rato=1), "data.tables.0.rato: unknown key.*'ratio'"),
        (lambda t: t["variants"]["plain"].update(seed=1), "variants.plain.seed: unknown key.*'seeds'"),
        (lambda t: t.update(stage=[]), "stage: unknown key.*'stages'"),
        (lambda t: t["stages"][0].update(optimisation={"lr": -1}), "stages.0.optimisation.lr: .*greater than 0"),
        (lambda t: t["stages"][0].update(optimisation={"lr": "fast"}), "stages.0.optimisation.lr: .*number"),
        (lambda t: t["stages"][0].update(optimisation={"optimiser": "adam"}), "optimisation.optimiser: .*'adamw'"),
        (lambda t: t["stages"][0].update(evaluation={"main": "landmark"}), "evaluation.main .*'landmark'.*'landmarks'"),
        (lambda t: t["stages"][0].update(stopping={"main": ["lanmarks"]}), "stopping.main .*'lanmarks'.*'landmarks'"),
        (lambda t: t["stages"][1].update(name="five"), "two stages have the same name"),
        (lambda t: t.pop("name"), "name: field required"),
        (lambda t: t["stages"][0].pop("data"), "stages.0.data: field required"),
        (lambda t: t.update(seed=-1), "seed: .*greater than or equal to 0"),
        (lambda t: t.update(stages=["five"]), "stages"),
        (lambda t: t.update(stages="five"), "stages"),
        (lambda t: t.update(stages=None), "stages"),
    ],
)  # fmt: skip
def test_every_mistake_names_its_key(write, edit, expected) -> None:
    fails(write(changed(edit)), expected)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("name: [unclosed", "not YAML"),
        ("name: !!python/object/apply:os.system ['true']", "no plain value of YAML"),
        ("- a list", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
    ],
)
def test_bad_yaml(write, text, expected) -> None:
    fails(write(text), expected)


def test_a_file_that_is_not_text(tmp_path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00name")
    fails(tmp_path / "x.yaml", "x.yaml: not ")


def test_unknown_recipes(tmp_path) -> None:
    fails("tcdnc", "unknown recipe 'tcdnc'.*'tcdcn'")
    fails(tmp_path / "gone.yaml", "gone.yaml: no such file")


# ------------------------------------------------------------------------------------------ changes, variants


def test_set_changes_one_stage_all_stages_or_the_recipe(write) -> None:
    recipe = load(
        write(),
        [
            "five.optimisation.lr=0.5",
            "*.data.batch=8",
            "seed=7",
            "dense.data.crop.size=64",
            "five.tasks.landmarks.loss=l1",
        ],
    )
    five, dense = recipe.stages
    assert (five.optimisation.lr, dense.optimisation.lr) == (0.5, 0.01)
    assert (five.data.batch, dense.data.batch) == (8, 8)
    assert recipe.seed == 7
    assert dense.data.crop.size == 64
    assert five.tasks["landmarks"]["loss"] == "l1"


def test_set_null_removes_a_key(write) -> None:
    recipe = load(write(), ["dense.init=null", "five.optimisation.lr=null"])
    assert recipe.stages[1].init == []
    assert recipe.stages[0].optimisation.lr == 1e-3


def test_set_values_are_yaml(write) -> None:
    stage = load(write(), ["five.optimisation.milestones=[0.1, 0.2]", "five.optimisation.precision=bf16-mixed"]).stages[
        0
    ]
    assert stage.optimisation.milestones == [0.1, 0.2]
    assert stage.optimisation.precision == "bf16-mixed"


@pytest.mark.parametrize(
    "change, expected",
    [
        ("five.optimisation.lr", "--set five.optimisation.lr: expected key.key=value"),
        ("fife.optimisation.lr=1", "no stage or key 'fife'.*'five'"),
        ("five.optimisation.epoch=1", "stages.0.optimisation.epoch: unknown key.*'epochs'"),
        ("five.optimization.lr=1", "stages.0.optimization: unknown key.*'optimisation'"),
        ("five=1", "'five' names a whole stage"),
        ("five.optimisation.lr.x=1", "'five.optimisation.lr.x'"),
        ("five.data.tables.1.name=mtfl", "'five.data.tables.1.name'"),
        ("five.optimisation.milestones=[0.1", "--set five.optimisation.milestones=.*: not YAML"),
        ("sead=1", "sead: unknown key.*'seed'"),
    ],
)
def test_wrong_changes_are_named(write, change, expected) -> None:
    fails(write(), expected, change)


def test_variants_are_rows_with_their_stages_and_changes(write) -> None:
    recipe = load(write())
    before = recipe.model_copy(deep=True)
    plain, hot, both = (recipe.variant(name) for name in ("plain", "hot", "both"))
    assert [stage.name for stage in plain.stages] == ["five"]
    assert plain.stages[0] == recipe.stages[0]
    assert hot.stages[0].optimisation.lr == 9
    assert hot.measured.extras["stopping"].main == ["landmarks"]
    assert [stage.optimisation.epochs for stage in both.stages] == [2, 2]
    assert both.stages[1].init == []
    assert isinstance(hot, Recipe)
    assert not hot.variants
    assert recipe == before  # a variant changes its own copy


def test_wrong_variants_are_named(write) -> None:
    recipe = load(write())
    with pytest.raises(PolyfaceError, match="no variant 'hott'.*'hot'"):
        recipe.variant("hott")
    with pytest.raises(PolyfaceError, match="no stage 'fiv'.*'five'"):
        recipe.stage("fiv")
    wrong = load(write(changed(lambda t: t["variants"]["hot"].update(stages=["fife"]))))
    with pytest.raises(PolyfaceError, match="no stage 'fife'.*'five'"):
        wrong.variant("hot")
    wrong = load(write(changed(lambda t: t["variants"]["hot"].update(set={"five.optimisation.rl": 1}))))
    with pytest.raises(PolyfaceError, match="toy: hot: stages.0.optimisation.rl: unknown key"):
        wrong.variant("hot")


# ------------------------------------------------------------------------------------------------- sizes


def sized(edit: Callable[[dict[str, Any]], object] = lambda tree: None) -> dict[str, Any]:
    def add(tree: dict[str, Any]) -> None:
        tree["sizes"] = {"small": {"*.optimisation.epochs": 1, "dense.data.batch": 8, "variants.hot.minutes": 2}}
        edit(tree)

    return changed(add)


def test_a_size_changes_the_recipe_before_its_variants_and_set_do(write) -> None:
    path = write(sized())
    whole, small = load(path), load(f"{path}:small", ["five.data.batch=4"])
    assert [stage.optimisation.epochs for stage in whole.stages] == [5, 5]
    assert [stage.optimisation.epochs for stage in small.stages] == [1, 1]
    assert [stage.data.batch for stage in small.stages] == [4, 8]
    assert small.variant("both").stage("dense").optimisation.epochs == 2
    assert small.variants["hot"].minutes == 2
    assert (whole.place, small.place, small.variant("hot").place) == ("toy", "toy-small", "toy-small")


def test_a_pattern_changes_all_variants_that_match_it_one_change_after_the_other(write) -> None:
    minutes = {"variants.*.minutes": 5, "variants.b*.minutes": 3}  # then that of "hot", 2
    small = load(f"{write(sized(lambda tree: tree['sizes']['small'].update(minutes)))}:small")
    assert {name: row.minutes for name, row in small.variants.items()} == {"plain": 5, "hot": 2, "both": 3}
    unmatched = write(sized(lambda tree: tree["sizes"]["small"].update({"variants.x*.minutes": 1})))
    fails(f"{unmatched}:small", r"variants.x\*.stages: field required")


def test_wrong_sizes_are_named(write) -> None:
    path = write(sized())
    fails(f"{path}:smal", "has no size 'smal'; did you mean 'small'?")
    fails("tcdcn:small", "recipe tcdcn has no size 'small'; none is known")
    wrong = write(sized(lambda tree: tree["sizes"]["small"].update({"six.data.batch": 1})))
    fails(f"{wrong}:small", "sizes.small: no stage or key 'six'")


def test_dmm_cnn_is_the_papers(write) -> None:
    """22 objective and 18 subjective attributes, all of them once; 88,713,464 parameters with the paper's 72 points."""
    recipe = load("dmm-cnn")
    stage = recipe.stage("celeba")
    groups = stage.network.heads["attributes"]
    assert isinstance(groups, dict)
    assert {name: len(group) for name, group in groups.items()} == {"objective": 22, "subjective": 18}
    assert sorted(groups["objective"] + groups["subjective"]) == sorted(ATTRIBUTES)
    assert stage.weighting.options["fixed"] == {"landmarks": 0.5}

    def parameters(variant: str, changes: tuple[str, ...] = ()) -> int:
        one = load("dmm-cnn", changes).variant(variant).stages[0]
        with torch.device("meta"):
            built = networks.build(network_config(one, stage_tasks(one)))
        return sum(p.numel() for p in built.parameters())

    assert parameters("DMM-CNN", ("celeba.tasks.landmarks.points=72",)) == 88_713_464
    assert parameters("DMM-SPP", ("celeba.tasks.landmarks.points=72",)) == 86_615_288
    assert parameters("Baseline") == 23_589_992


def test_rows_with_fixed_thresholds_are_the_networks_of_those_with_adaptive_ones() -> None:
    """Thresholds do not reach the losses: but for them, each pair of rows has one and the same stage."""
    recipe = load("dmm-cnn:small")
    for fixed, adaptive in (("DMM-EQ-FIX", "DMM-EQ-AT"), ("DMM-DW-FIX", "DMM-CNN"), ("UW", "DMM-EQ-AT")):
        a, b = recipe.variant(fixed).stages[-1], recipe.variant(adaptive).stages[-1]
        assert recipe.variants[fixed].model == adaptive
        assert StageSpec.model_validate(a.model_dump() | {"thresholds": b.extras.get("thresholds")}) == b
        assert ("thresholds" not in a.extras) == fixed.endswith("FIX")


# ------------------------------------------------------------------------------------------ recognition


def test_options_of_a_variant_follow_its_seed(write) -> None:
    """The word seed stands for it, wherever a table has it; other words and the recipe stay as they are."""
    tables = [{"name": "synthetic", "options": {"seed": "seed", "n": 8, "identities": 2}}, {"name": "seed"}]
    tree = changed(lambda t: t["stages"][0].update(data={"tables": tables}))
    recipe = load(write(tree | {"seed": 11}))
    for seed, expected in ((None, 11), (0, 0), (4, 4)):
        variant = recipe.variant("plain", seed)
        one, other = variant.stages[0].data.tables
        assert one.options == {"seed": expected, "n": 8, "identities": 2}
        assert (other.name, other.options, variant.seed) == ("seed", {}, expected)
    assert recipe.stages[0].data.tables[0].options["seed"] == "seed"
    both = load(write(changed(lambda t: t["stages"][1]["data"]["tables"].append(tables[0])))).variant("both", 6)
    assert [table.options.get("seed") for stage in both.stages for table in stage.data.tables] == [None, None, 6]


def test_where_and_without_choose_rows(tmp_path) -> None:
    """Rows whose columns hold a word of `where`, and none of `without`; a null is neither."""
    picture = np.zeros((4, 4, 3), np.uint8)
    people = [("ann", "photo"), ("bob", "photo"), ("ann", "caricature"), (None, "photo"), ("eve", "caricature")]
    labels = [{"identity": who, "modality": modality, "split": "train"} for who, modality in people]
    labels[4]["split"] = "val"
    write_table([Record(picture, str(i), f"{i}.png", one) for i, one in enumerate(labels)], tmp_path / "t.parquet")
    table = FaceTable.open(tmp_path / "t.parquet")

    def rows(part: str = "train", **conditions: Any) -> list[int]:
        return list(_rows(table, part, SourceSpec(name="t", **conditions)).tolist())

    assert rows() == [0, 1, 2, 3]
    assert rows(without={"identity": "ann"}) == [1, 3]
    assert rows(without={"identity": ["ann", "bob", "nobody"]}) == [3]
    assert rows(where={"modality": "photo"}, without={"identity": "ann"}) == [1, 3]
    assert rows(where={"identity": ["ann", "bob"]}, without={"modality": "photo"}) == [2]
    assert rows("val", without={"identity": "eve"}) == []
    with pytest.raises(PolyfaceError, match="'identty'.*'identity'"):
        rows(without={"identty": "ann"})


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"centres": {"weight": 1}}, "stages.0.centres.tasks: field required"),
        ({"centres": {"tasks": ["a"], "rate": 0}}, "stages.0.centres.rate: .*greater than 0"),
        ({"centres": {"tasks": ["a"], "rate": 1.5}}, "stages.0.centres.rate: .*less than or equal to 1"),
        ({"centres": {"tasks": ["a"], "wieght": 1}}, "stages.0.centres.wieght: unknown key.*'weight'"),
        ({"distil": {"tasks": ["a"]}}, "stages.0.distil.teacher: field required"),
        ({"distil": {"teacher": "x", "tasks": ["a"], "peple": True}}, "stages.0.distil.peple: unknown key.*'people'"),
        ({"init": {"source": "x", "branch": "face"}}, "stages.0.init.branch: unknown key.*'branches'"),
        ({"optimisation": {"body_lr": 0}}, "stages.0.optimisation.body_lr: .*greater than 0"),
        ({"optimisation": {"epsilon": -1}}, "stages.0.optimisation.epsilon: .*greater than 0"),
        ({"evaluation": {"protocol": "listed-pear"}}, "stages.0.evaluation.protocol: .*'listed-pairs'"),
        ({"evaluation": {"protocol": {"name": "per-task", "task": []}}}, "evaluation.protocol.*unknown option 'task'"),
        ({"data": {"tables": [{"name": "a", "witout": {}}]}}, "tables.0.witout: unknown key.*'without'"),
        (
            {"data": {"tables": [{"name": "a"}], "balanced": ["modality"]}},
            "stages.0.data.balanced: unknown key.*'balance'",
        ),
    ],
)
def test_mistakes_in_what_recognition_adds(write, settings: dict[str, Any], expected: str) -> None:
    fails(write(changed(lambda t: t["stages"][0].update(settings))), expected)


@pytest.mark.parametrize("size", ["", ":small", ":optimisers", ":view2"])
def test_every_row_of_caricature_can_be_built(size: str) -> None:
    """Heads, branches, cosines and crops fit each other; three branches start from the one called face."""
    recipe = load(f"caricature{size}")
    for name in recipe.variants:
        stage = with_words(recipe.variant(name).stages[-1])
        with torch.device("meta"):
            network = networks.build(network_config(stage, stage_tasks(stage)))
        assert (network.size, network.channels) == (stage.data.crop.size, stage.data.crop.channels), name
        assert set(network.branches) == set(network.heads) or stage.name in ("photos", "distilled"), name
        assert all(network.embedding_of(task) for task in stage.tasks), name
        assert stage.evaluation.main in stage.tasks, name
        assert all(set(extra.tasks) <= set(stage.tasks) for extra in stage.extras.values()), name
        if stage.name not in ("photos", "distilled"):
            assert stage.data.balance == ["modality", "identity"], name
            assert (not stage.init) == ("from scratch" in name)
            assert all(start.branches == "face" for start in stage.init)


def test_caricatures_default_is_the_papers_network() -> None:
    """Spec 2.2: a trunk of 6,439,296 parameters and three branches of 3,201,536, embeddings of 1792."""
    stage = with_words(load("caricature").variant("Dynamic").stages[0])
    with torch.device("meta"):
        network = networks.build(network_config(stage, stage_tasks(stage)))
    counts = [sum(p.numel() for p in module.parameters()) for module in (network.trunk, *network.branches.values())]
    assert counts == [6_439_296, 3_201_536, 3_201_536, 3_201_536]
    assert {form.dim for form in network.embeddings.values()} == {1792}
    assert (stage.weighting.name, stage.optimisation.epsilon, stage.optimisation.clip) == ("ming", 1.0, 5.0)


def test_halves_of_people_are_drawn_by_the_seed_of_a_row() -> None:
    recipe = load("caricature")
    for name in ("Dynamic within", "Naive dynamic within", "Single-verif within"):
        tables = [recipe.variant(name, seed).stages[-1].data.tables[0].options for seed in (0, 3)]
        assert tables == [{"split": "half", "draw": 0}, {"split": "half", "draw": 3}]
        assert recipe.variants[name].splits
