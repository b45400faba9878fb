"""Recognition in training: whose pixels reach which loss, batches of one modality, rates, what stages start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from polyface.data.loader import assemble
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.metrics.recognition.pairs import squared_distances
from polyface.models.bundle import load_bundle
from polyface.models.predict import predict
from polyface.networks.parts.residual import ResidualPart
from polyface.networks.pretrained.dlib import PACKAGE, dlib_tensors
from polyface.networks.shapes import Shape
from polyface.networks.trunks.face_resnet import FaceResNet
from polyface.reproduce.jobs import Job, answered, finished, run_jobs, stored
from polyface.training import stages
from polyface.training.learner import Learner
from polyface.training.records import read_record
from polyface.training.specs import StageSpec
from polyface.training.start import build_network, network_config
from polyface.weighting import Combined

from .recognition import (
    FACE,
    STAGE,
    TASKS,
    faces_of,
    first_batch,
    fit,
    gradients,
    learner_of,
    of_rows,
    recipe_of,
    snapshot,
    stage_tree,
)

published = pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not installed")


@pytest.fixture
def learner(tmp_path: Path) -> Callable[..., Learner]:
    return lambda **changes: learner_of(recipe_of(tmp_path, stage_tree(changes)))


def combined(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> list[Combined]:
    """What the learner's weighting answers from now on."""
    found: list[Combined] = []
    combine = learner.weighting.combine

    def watched(*args: Any) -> Combined:
        found.append(combine(*args))
        return found[-1]

    monkeypatch.setattr(learner.weighting, "combine", watched)
    return found


# ------------------------------------------------------------------------------------------------ masks


def test_pixels_of_caricatures_do_not_reach_the_loss_of_photos(learner) -> None:
    """Spec 2.8: to the bit in evaluation mode, and the reverse; in training batch norm sees all faces."""
    ours = learner()
    batch = assemble(first_batch(ours), ours.crop, ours.tasks, None)
    drawn = batch.labelled["caricature"][:, 0]
    assert int(drawn.sum()) == 8

    def losses(where: Tensor | None) -> list[float]:
        images = batch.images.clone()
        if where is not None:
            images[where] = 255 - images[where]
        with torch.no_grad():
            torch.manual_seed(0)
            return list(ours._losses(replace(batch, images=images), ours.network)[1].tolist())

    for mode in (False, True):
        ours.network.train(mode)
        plain, caricatures, photos = (losses(where) for where in (None, drawn, ~drawn))
        assert (plain[1] == caricatures[1], plain[2] == photos[2]) == (not mode, not mode)  # visual, caricature
        assert plain[0] not in (caricatures[0], photos[0])
        assert (plain[2] != caricatures[2], plain[1] != photos[1]) == (True, True)


@pytest.mark.parametrize("absent, present", [("caricature", "visual"), ("visual", "caricature")])
def test_a_batch_of_one_modality_has_no_loss_of_the_other(learner, monkeypatch, absent: str, present: str) -> None:
    """Weight 0, no gradient, and not in L_4 of Ming et al., where 1/σ would outweigh all others."""
    ours = learner()
    answers = combined(ours, monkeypatch)
    modality = {"visual": "photo", "caricature": "caricature"}[present]
    raw = of_rows(ours, faces_of(ours, modality)[:16])
    means = ours._losses(assemble(raw, ours.crop, ours.tasks, None), ours.network.eval())[1].detach()
    found = gradients(ours, raw)
    assert all(bool(value.isfinite().all()) for value in found.values())
    for name, value in found.items():
        place = name.split(".")[:3]
        if place[0] == "network" and place[1] in ("branches", "heads"):
            assert bool(value.any()) == (place[2] != absent), name
    (answer,) = answers
    weights, names = answer.weights, ("verification", present)
    assert weights[absent] == 0
    assert all(weights[name] > 0.1 for name in names)
    assert means[TASKS.index(absent)] == 0
    assert answer.own_loss is not None
    by_hand = sum(weights[name] / (float(means[TASKS.index(name)]) + 0.01) for name in names)
    assert float(answer.own_loss.detach()) == pytest.approx(by_hand, rel=1e-4)
    psi = found["weighting.logits.0.weight"]
    assert psi.any(dim=1).tolist() == [name != absent for name in TASKS]


def test_weights_1_0_0_have_the_gradient_of_the_single_task(learner) -> None:
    """Spec 2.8; L_4 trains Ψ alone, whose weights these are not."""
    single = {"name": "fixed", "options": {"weights": {"visual": 0, "caricature": 0}}}
    ours, other = learner(weighting=single), learner()
    raw = first_batch(ours)
    torch.manual_seed(0)  # dropout
    found = gradients(ours, raw)
    torch.manual_seed(0)
    batch = assemble(raw, other.crop, other.tasks, other.spec.data.augment)
    means = other._losses(batch, other.network)[1]
    parameters = dict(other.network.named_parameters())
    alone = torch.autograd.grad(means[0], list(parameters.values()), allow_unused=True)
    for name, value in zip(parameters, alone, strict=True):
        torch.testing.assert_close(
            found[f"network.{name}"], torch.zeros(()).expand_as(parameters[name]) if value is None else value
        )


def test_a_step_on_photos_alone_leaves_the_caricatures_branch_as_it_is(learner) -> None:
    """Without weight decay: its gradient is zero, whatever the optimiser's momentum, at the first step."""
    ours = learner(optimisation=STAGE["optimisation"] | {"weight_decay": 0.0})
    before = snapshot(ours.network)
    optimiser = ours.configure_optimizers()["optimizer"]
    ours.training_step(of_rows(ours, faces_of(ours, "photo")[:16]), 0).backward()
    optimiser.step()
    moved = {
        name.split(".")[1] for name, value in ours.network.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved == {"body", "verification", "visual"}


def test_a_whole_stage_of_photos_alone(tmp_path) -> None:
    """Bad input: no caricature among the training faces is an error that names task and part."""
    tree = stage_tree()
    tree["data"]["tables"][0]["where"] = {"modality": "photo"}
    with pytest.raises(PolyfaceError, match="stage one, task 'caricature': no face with split 'train' is labelled"):
        fit(recipe_of(tmp_path, tree), tmp_path / "out")


def test_heads_are_cosines_where_the_loss_has_a_margin(tmp_path) -> None:
    tasks = STAGE["tasks"] | {"verification": {"kind": "identity", "loss": "cosface"}}
    stage = recipe_of(tmp_path, stage_tree({"tasks": tasks})).stages[0]
    config = network_config(stage, stages.stage_tasks(stage))
    assert config["cosine"] == ["verification"]
    assert config["heads"] == {name: {name: [0, 1, 2, 3]} for name in TASKS}
    plain = recipe_of(tmp_path, stage_tree()).stages[0]
    assert "cosine" not in network_config(plain, stages.stage_tasks(plain))


def test_people_are_those_of_the_training_faces(tmp_path) -> None:
    """Of all tables, without those that are taken away; a task of photos knows those of caricatures too."""
    tree = stage_tree()
    tree["data"]["tables"][0]["without"] = {"identity": ["synthetic-1", "synthetic-3"]}
    stage = recipe_of(tmp_path, tree).stages[0]
    tasks = stages.stage_tasks(stage)
    assert {tuple(task.vocabulary) for task in tasks.values()} == {("synthetic-0", "synthetic-2")}  # type: ignore[attr-defined]
    pool = stages.stage_pool(stage, "train", None, tasks)
    assert pool is not None
    assert set(pool.table.words("identity")) == {"synthetic-0", "synthetic-2"}
    tree["data"]["tables"][0]["without"] |= {"modality": "caricature"}
    photos = stages.stage_pool(recipe_of(tmp_path, tree).stages[0], "train", None, {})
    assert photos is not None
    both = zip(pool.table.words("identity"), pool.table.words("modality"), strict=True)
    assert len(photos) == sum(modality == "photo" for _, modality in both)


# ------------------------------------------------------------------------------------------------ rates


def groups_of(learner: Learner) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter by name; each is in one group exactly."""
    names = {id(p): name for name, p in learner.named_parameters()}
    groups = learner.configure_optimizers()["optimizer"].param_groups
    listed = [(names[id(p)], (g["initial_lr"], g["weight_decay"])) for g in groups for p in g["params"]]
    assert sorted(name for name, _ in listed) == sorted(names.values())
    return dict(listed)


@pytest.mark.parametrize("body_lr", [0.1, 1.0, 3.0])
def test_trunk_and_branches_have_a_rate_of_their_own(learner, body_lr: float) -> None:
    optimisation = {"optimiser": "adamw", "lr": 0.01, "body_lr": body_lr, "weight_decay": 0.2}
    ours = learner(optimisation=optimisation, weighting={"name": "ming", "options": {"lr": 0.5}})
    parameters = dict(ours.named_parameters())
    for name, (rate, decay) in groups_of(ours).items():
        own = name.startswith("weighting.")
        body = name.startswith(("network.trunk.", "network.branches."))
        assert rate == pytest.approx(0.5 if own else 0.01 * (body_lr if body else 1)), name
        assert decay == (0.2 if parameters[name].ndim > 1 and not own else 0.0), name
    count = 2 if body_lr == 1 else 4
    assert len(ours.configure_optimizers()["optimizer"].param_groups) == count + 1


def test_without_a_rate_of_their_own_the_groups_are_as_before(learner) -> None:
    """Two of the network, in the order of its parameters: matrices, and what does not decay."""
    ours = learner()
    groups = ours.configure_optimizers()["optimizer"].param_groups
    for group, matrix in zip(groups, (True, False), strict=False):
        expected = [p for p in ours.network.parameters() if (p.ndim > 1) == matrix]
        assert [id(p) for p in group["params"]] == [id(p) for p in expected]


def test_the_schedule_lowers_all_rates_alike(learner) -> None:
    ours = learner(optimisation=STAGE["optimisation"] | {"body_lr": 0.1, "schedule": "cosine"})
    made = ours.configure_optimizers()
    optimiser, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    for _ in range(6):
        optimiser.step()
        schedule.step()
    rates = {group["lr"] / group["initial_lr"] for group in optimiser.param_groups}
    assert max(rates) == pytest.approx(min(rates))
    assert max(rates) < 0.5


def test_rmsprops_epsilon(learner) -> None:
    ours = learner(optimisation={"optimiser": "rmsprop", "lr": 0.1, "epsilon": 1.0})
    optimiser = ours.configure_optimizers()["optimizer"]
    assert isinstance(optimiser, torch.optim.RMSprop)
    assert {group["eps"] for group in optimiser.param_groups} == {1.0}


# ------------------------------------------------------------------------------------------------ starts


def one_branch(**others: Any) -> dict[str, Any]:
    """A stage "photos" that trains one branch, `face`."""
    network = STAGE["network"] | {"branches": {"face": FACE}, "heads": {"verification": "face"}}
    tasks = {"verification": {"kind": "identity"}}
    weighting = {"name": "uniform"}
    optimisation = STAGE["optimisation"] | {"epochs": 1}
    return (
        stage_tree(
            {"name": "photos", "network": network, "tasks": tasks, "weighting": weighting}
            | {"optimisation": optimisation}
        )
        | others
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one branch, trained for an epoch."""
    folder = tmp_path_factory.mktemp("photos")
    return fit(recipe_of(folder, one_branch()), folder / "out")["photos"].bundle


def started(folder: Path, source: str | Path, earlier: dict[str, Path] | None = None, **init: Any) -> torch.nn.Module:
    tree = stage_tree({"init": {"source": str(source), "parts": ["trunk", "branches"]} | init})
    stage = recipe_of(folder, tree).stages[0]
    return build_network(stage, stages.stage_tasks(stage), 5, earlier or {})


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return len(a) > 0 and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_one_branch_is_copied_to_three(tmp_path, photos) -> None:
    """To the bit, trunk and batch norm's statistics too; named by its place or by the stage that trained it."""
    given = load_bundle(photos, quiet=True).network.state_dict()
    for network in (
        started(tmp_path, photos, branches="face"),
        started(tmp_path, "photos", {"photos": photos}, branches=dict.fromkeys(TASKS, "face")),
    ):
        own = network.state_dict()
        assert equal(part(own, "trunk."), part(given, "trunk."))
        for name in TASKS:
            assert equal(part(own, f"branches.{name}."), part(given, "branches.face."))
        places = {p.data_ptr() for p in network.branches.parameters()}  # type: ignore[union-attr, operator]
        assert len(places) == len(list(network.branches.parameters()))  # type: ignore[union-attr, operator]  # copies


def test_some_branches_are_copied_and_the_others_are_random(tmp_path, photos) -> None:
    given = part(load_bundle(photos, quiet=True).network.state_dict(), "branches.face.")
    own = started(tmp_path, photos, branches={"visual": "face"}).state_dict()
    assert [equal(part(own, f"branches.{name}."), given) for name in TASKS] == [False, True, False]


def test_without_a_word_branches_start_from_those_of_their_names(tmp_path) -> None:
    """As before: a stage after a stage of the same network goes on with each branch."""
    tree = stage_tree({"optimisation": STAGE["optimisation"] | {"epochs": 1}})
    source = fit(recipe_of(tmp_path, tree), tmp_path / "out")["one"].bundle
    given, own = load_bundle(source, quiet=True).network.state_dict(), started(tmp_path, source).state_dict()
    assert equal(part(own, "branches."), part(given, "branches."))
    swapped = started(tmp_path, source, branches={"visual": "caricature", "caricature": "visual"}).state_dict()
    for one, other in (("visual", "caricature"), ("caricature", "visual"), ("verification", "verification")):
        assert equal(part(swapped, f"branches.{one}."), part(given, f"branches.{other}."))
    assert not equal(part(given, "branches.visual."), part(given, "branches.caricature."))


@pytest.mark.parametrize(
    "branches, message",
    [
        ({"visul": "face"}, "stage one: init.branches names 'visul'.*'visual'"),
        ("fase", "stage one: init"),
        pytest.param({"visual": "face", "caricature": "fase"}, "init.branches of .* names 'fase'"),
    ],
)
def test_wrong_branches_to_start_from(tmp_path, photos, branches: Any, message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        started(tmp_path, photos, branches=branches)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ dlib's weights

DLIB: dict[str, Any] = {
    "trunk": {"name": "face-resnet", "size": 64},
    "branches": {name: {"kind": "residual", "bottleneck": 128, "similarity": "cosine"} for name in TASKS},
    "heads": {name: name for name in TASKS},
    "normalise": {"mean": 0, "std": 1},
}


def dlib_stage(folder: Path, network: dict[str, Any] | None = None, n: int = 20, **init: Any) -> StageSpec:
    tree = stage_tree({"network": network or DLIB, "init": {"source": "dlib", "parts": ["trunk", "branches"]} | init})
    tree["data"] |= {"crop": {"size": 64, "channels": 3}, "batch": 4}
    tree["data"]["tables"][0]["options"]["n"] = n
    return recipe_of(folder, tree).stages[0]


@pytest.mark.parametrize(
    "network, init",
    [
        (STAGE["network"] | {"trunk": STAGE["network"]["trunk"] | {"size": 64, "channels": 3}}, {}),
        (DLIB | {"branches": {name: {"levels": 0} for name in TASKS}}, {}),
        (DLIB, {"parts": ["trunk", "branches", "heads"]}),
        (DLIB, {"parts": ["branches"]}),
    ],
)
def test_dlibs_weights_are_for_its_network_alone(tmp_path, network: dict[str, Any], init: dict[str, Any]) -> None:
    stage = dlib_stage(tmp_path, network, **init)
    with pytest.raises(
        PolyfaceError, match="stage one: init.source dlib is for trunk face-resnet and branches"
    ) as caught:
        build_network(stage, stages.stage_tasks(stage), 3, {})
    assert "\n" not in str(caught.value)


@published
def test_all_three_branches_start_as_dlibs(tmp_path) -> None:
    trunk, branch = dlib_tensors()
    stage = dlib_stage(tmp_path)
    own = build_network(stage, stages.stage_tasks(stage), 3, {}).state_dict()
    assert equal(part(own, "trunk."), trunk)
    assert all(equal(part(own, f"branches.{name}."), branch) for name in TASKS)
    alone = build_network(dlib_stage(tmp_path, parts=["trunk"]), stages.stage_tasks(stage), 3, {}).state_dict()
    assert equal(part(alone, "trunk."), trunk)
    assert not equal(part(alone, "branches.visual."), branch)


@published
def test_an_untrained_network_says_what_dlibs_says(tmp_path) -> None:
    """Unfolded as a stage begins, its embedding is dlib's at length 1, on faces that it was not unfolded with too."""
    tree_recipe = recipe_of(tmp_path, stage_tree())
    recipe = tree_recipe.model_copy(update={"stages": [dlib_stage(tmp_path)]})
    network = load_bundle(stages.untrained(recipe, tmp_path / "out", None, {}), quiet=True).network
    norm = network.trunk.stem.norm  # type: ignore[union-attr]
    assert not torch.allclose(norm.running_mean, torch.zeros(()))  # type: ignore[arg-type, union-attr]
    trunk, branch = FaceResNet(64), ResidualPart([Shape(256, 32)], bottleneck=128)
    for module, weights in zip((trunk, branch), dlib_tensors(), strict=True):
        module.eval().start_from(weights)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = torch.nn.functional.normalize(branch([trunk(images)["shared"]]))
        for found in network.eval()(images).embeddings.values():
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------ untrained rows


def test_a_row_of_a_network_as_it_starts(tmp_path) -> None:
    """Predictor "start": nothing is trained; the bundle has what `init` gives and answers all of its tasks."""
    variants = {
        "Photos": {"stages": ["photos"], "seeds": 1},
        "Untrained": {"stages": ["one"], "seeds": 1, "start": "Photos", "predictor": "start"},
    }
    stage = stage_tree({"init": {"source": "photos", "parts": ["trunk", "branches"], "branches": "face"}})
    recipe = recipe_of(tmp_path, one_branch(), stage, variants=variants)
    jobs, options = [Job(name, 0) for name in variants], stages.RunOptions(accelerator="cpu", logger="none")
    run_jobs(recipe, jobs, None, tmp_path / "out", options)
    assert all(finished(recipe, tmp_path / "out", job) for job in jobs)
    folders = [tmp_path / "out" / name / "model" for name in ("Photos/seed0/photos", "Untrained/seed0/one")]
    given, own = (load_bundle(folder, quiet=True).network.state_dict() for folder in folders)
    assert equal(part(own, "trunk."), part(given, "trunk."))
    assert all(equal(part(own, f"branches.{name}."), part(given, "branches.face.")) for name in TASKS)
    kept = read_record(tmp_path / "out/Untrained/seed0/one")
    assert kept is not None
    assert (kept.history, kept.model_extra) == ([], {"untrained": True})
    assert not (tmp_path / "out/Untrained/seed0/one/last.ckpt").exists()
    answers = stored(tmp_path / "out", jobs[1])
    for name in TASKS:
        embedding = answers[name]["embedding"]
        assert embedding.shape == (10, 8)
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-4)
        np.testing.assert_allclose(embedding, stored(tmp_path / "out", jobs[0])["verification"]["embedding"], atol=1e-5)
        assert answers[name]["probabilities"].shape == (10, 4)
    assert answered(recipe, tmp_path / "out", jobs[1], "test")


def test_a_network_as_it_starts_is_made_anew_with_other_settings(tmp_path: Path) -> None:
    """What other rows start from would else be of settings that the recipe no longer has."""
    rows = {"Start": {"stages": ["one"], "seeds": 1, "predictor": "start"}}
    job, options = Job("Start", 0), stages.RunOptions(accelerator="cpu", logger="none")
    narrow, wide = stage_tree(), stage_tree()
    wide["network"] = wide["network"] | {"branches": {name: FACE | {"hidden": [12]} for name in TASKS}}
    before, after = (recipe_of(tmp_path, stage, variants=rows) for stage in (narrow, wide))
    run_jobs(before, [job], None, tmp_path, options, parts=())
    assert finished(before, tmp_path, job, ())
    first = load_bundle(tmp_path / "Start/seed0/one/model", quiet=True).network.state_dict()
    assert not finished(after, tmp_path, job, ())
    run_jobs(after, [job], None, tmp_path, options, parts=())
    assert finished(after, tmp_path, job, ())
    assert not equal(load_bundle(tmp_path / "Start/seed0/one/model", quiet=True).network.state_dict(), first)
    kept = load_bundle(tmp_path / "Start/seed0/stale/1/one/model", quiet=True).network.state_dict()
    assert equal(kept, first)


def test_an_average_of_embeddings_is_the_mean_of_their_squared_distances(tmp_path) -> None:
    """Two networks have no axes in common, nor need their embeddings be of one length: distances are averaged."""
    wide = stage_tree({"name": "wide"})
    wide["network"] = wide["network"] | {"branches": {name: FACE | {"hidden": [12]} for name in TASKS}}
    variants = {
        "a": {"stages": ["one"], "predictor": "start"},
        "b": {"stages": ["wide"], "predictor": "start"},
        "both": {"stages": ["one"], "average": ["a", "b"]},
    }
    recipe = recipe_of(tmp_path, stage_tree(), wide, variants={k: v | {"seeds": 1} for k, v in variants.items()})
    jobs = [Job(name, 0) for name in variants]
    run_jobs(recipe, jobs, None, tmp_path / "out", stages.RunOptions(accelerator="cpu", logger="none"))
    a, b, both = (stored(tmp_path / "out", job)["verification"] for job in jobs)
    assert both["embedding"].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(both["embedding"], axis=1), 1, atol=1e-4)
    one, other, found = (squared_distances(x["embedding"], x["embedding"]) for x in (a, b, both))
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_allclose(found, (one + other) / 2, atol=1e-5)
    np.testing.assert_allclose(both["probabilities"], (a["probabilities"] + b["probabilities"]) / 2, rtol=1e-6)


def test_strangers_need_not_validate(tmp_path: Path) -> None:
    """Validation faces of people whom training does not show: an error that says so, unless training faces stand in."""
    records = [
        Record(
            np.full((40, 40), 9 * row, np.uint8),
            "",
            f"{row}.png",
            {"identity": who, "modality": "photo", "split": part},
        )
        for row, (who, part) in enumerate([("ann", "train"), ("bob", "train")] * 10 + [("cid", "val")] * 2)
    ]
    write_table(records, tmp_path / "faces.parquet")
    changes = {
        "tasks": {"verification": {"kind": "identity"}},
        "network": STAGE["network"] | {"branches": {"face": FACE}, "heads": {"verification": "face"}},
        "weighting": {"name": "uniform"},
        "optimisation": {"epochs": 1},
    }
    data = STAGE["data"] | {
        "boxes": {"source": "image"},
        "balance": [],
        "tables": [{"name": str(tmp_path / "faces.parquet")}],
    }
    with pytest.raises(PolyfaceError, match="task 'verification': no face with split 'val' is labelled"):
        fit(recipe_of(tmp_path, stage_tree(changes | {"data": data})), tmp_path / "out")
    found = fit(recipe_of(tmp_path, stage_tree(changes | {"data": data | {"validate_on": "train"}})), tmp_path / "out")
    assert found["one"].history[-1]["validation"].keys() == {"verification"}


def test_test_faces_stand_in_for_validation_faces_where_a_paper_chose_on_them(tmp_path) -> None:
    """The table has none of split val; the losses that choose the epoch are those of the test faces."""
    tables = [STAGE["data"]["tables"][0] | {"where": {"split": ["train", "test"]}}]
    changes = {"optimisation": {"epochs": 1, "lr": 1e-9}, "evaluation": {"main": "verification", "select": "best"}}
    data = STAGE["data"] | {"tables": tables}
    with pytest.raises(PolyfaceError, match="select best needs validation faces, and no face has split 'val'"):
        fit(recipe_of(tmp_path, stage_tree(changes | {"data": data})), tmp_path / "out")
    chosen = recipe_of(tmp_path, stage_tree(changes | {"data": data | {"validate_on": "test"}}))
    found = fit(chosen, tmp_path / "out")["one"]
    bundle = load_bundle(found.bundle, quiet=True)
    pool = stages.pool_of(chosen.stages[0], None, bundle.tasks, "test")
    said = predict(bundle.network, bundle.tasks, pool)["verification"]["probabilities"]
    people = pool.targets["verification"].values.numpy().astype(int).ravel()
    expected = -np.log(said[np.arange(len(pool)), people]).mean()
    assert found.history[-1]["validation"]["verification"] == pytest.approx(expected, rel=1e-4)
