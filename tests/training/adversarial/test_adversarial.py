"""The learner `adversarial`: what it leaves, resuming, several processes, collapse, and mistakes in its recipe."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from polyface.data.loader import FaceLoader
from polyface.errors import PolyfaceError
from polyface.models.bundle import load_bundle
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.adversarial.collapse import collapsed
from polyface.training.adversarial.module import AdversarialModule
from polyface.training.adversarial.objectives import AutoEncoder, Began, picture
from polyface.training.adversarial.sheets import Looked, sheets, spread, write_sheet
from polyface.training.adversarial.specs import AdversarialSpec, CollapseSpec
from polyface.training.learners.adversarial import build_pair
from polyface.training.module import StageModule
from polyface.training.specs import same_settings

# 64 faces to train on, 8 to validate: four steps an epoch.
TRUNK = {"name": "began", "size": 16, "widths": [4, 4, 4, 4]}
STAGE: dict[str, Any] = {
    "name": "one",
    "learner": "adversarial",
    "data": {
        "tables": [{"name": "synthetic", "options": {"n": 80, "size": 48, "seed": 1}}],
        "boxes": {"source": "landmarks", "landmarks": "landmarks_5"},
        "crop": {"size": 16, "channels": 1},
        "augment": {"mirror": 0.5, "shift": 0.05},
        "batch": 16,
    },
    "network": {"trunk": TRUNK, "latent": 6, "decoder": {"kind": "decoder", "width": 4, "convolutions": [1, 1]}},
    "optimisation": {"lr": 0.003, "epochs": 2, "precision": "32-true"},
}


def merged(base: Any, changes: Any) -> Any:
    if isinstance(base, dict) and isinstance(changes, dict):
        return {k: merged(base.get(k), changes[k]) if k in changes else base[k] for k in base | changes}
    return changes


def stage(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    return merged(copy.deepcopy(STAGE), changes or {})  # type: ignore[no-any-return]


def written(path: Path, *trees: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": "toy", "seed": 3, "stages": list(trees)}))
    return path


@pytest.fixture
def train(tmp_path) -> Callable[..., dict[str, stages.StageResult]]:
    """``train(tree, …)``: these stages into tmp_path/run."""

    def run(*trees: dict[str, Any], **options: Any) -> dict[str, stages.StageResult]:
        recipe = recipes.load(written(tmp_path / "toy.yaml", *trees))
        given = {"accelerator": "cpu", "logger": "none"} | options
        return stages.run(recipe, tmp_path / "run", None, stages.RunOptions(**given))

    return run


def pool_of(spec: AdversarialSpec) -> Any:
    return stages.stage_pool(spec, "train", None, {})


def module_of(folder: Path, changes: dict[str, Any] | None = None, rank: int = 0, world: int = 1) -> AdversarialModule:
    spec = AdversarialSpec.model_validate(stage(changes))
    pool = pool_of(spec)
    batch = spec.data.batch // world
    faces = FaceLoader(pool, batch, seed=3, stage="one", shuffle=True, rank=rank, world=world)
    return AdversarialModule(spec, 3, build_pair(spec, 3), faces, None, FaceLoader(pool, 16, shuffle=False), folder)


# ---------------------------------------------------------------------------------------------------- what is left


def test_a_later_stage_starts_from_its_trunk(train, tmp_path) -> None:
    """BEGAN, then tasks on what it learnt, with the same trunk and names of tensors; both leave what they should."""
    tasks = {
        "name": "two",
        "data": STAGE["data"],
        "network": {"trunk": TRUNK, "parts": {"face": {"kind": "pool"}}, "heads": {"smile": "face"}},
        "tasks": {"smile": {"kind": "classification", "column": "smile"}},
        "init": {"source": "one", "parts": ["trunk"]},
        "optimisation": {"epochs": 1, "lr": 1e-9, "weight_decay": 0.0},
        "evaluation": {"main": "smile"},
    }
    results = train(stage(), tasks)
    made, later = (load_bundle(results[name].bundle, quiet=True) for name in ("one", "two"))
    assert made.tasks == {}
    assert list(made.network.branches) == ["latent", "decoder", "generator"]
    for name, value in made.network.trunk.state_dict().items():
        torch.testing.assert_close(later.network.trunk.state_dict()[name], value, rtol=0, atol=1e-6)
    first, last = results["one"].history
    for row in (first, last):
        assert row["train"].keys() == {"real", "generated"}
        assert row["equilibrium"].keys() == {"k", "M"}
        assert row["equilibrium"]["M"] >= row["train"]["real"]
        assert row["spread"].keys() == {"reconstructed", "generated"}
        assert row["validation"]["real"] > 0
    assert (first["step"], last["step"]) == (4, 8)
    folder = tmp_path / "run/one"
    sheets = {file.name for file in (folder / "sheets").iterdir()}
    final = {"samples.png", "reconstructions.png", "interpolations.png"}
    assert sheets == final | {"samples-0001.png", "samples-0002.png"}
    assert json.loads((folder / "history.json").read_text())["sheets"].keys() == final
    kept = torch.load(folder / "last.ckpt", weights_only=True)
    assert kept["polyface"]["equilibrium"].keys() == {"real", "generated", "M", "k"}
    assert kept["state_dict"]["objective.k"].item() == kept["polyface"]["equilibrium"]["k"] == last["equilibrium"]["k"]
    times = [results[name].bundle.stat().st_mtime_ns for name in results]
    again = train(stage({"on_collapse": "stop", "sheets": 0}), tasks)  # neither changes what is learnt
    assert [again[name].bundle.stat().st_mtime_ns for name in again] == times


def test_an_auto_encoder_is_the_same_learner_without_a_generator(train, tmp_path) -> None:
    """With another encoder, that ends in a vector, too; what it learns is to reconstruct."""
    trunk = {"name": "timm", "model": "test_resnet", "size": 16, "channels": 1, "shared": 8}
    optimisation = {"epochs": 6, "lr": 0.01}
    tree = stage({"objective": {"name": "reconstruction"}, "optimisation": optimisation, "sheets": 5})
    tree["network"]["trunk"] = trunk
    (result,) = train(tree).values()
    network = load_bundle(result.bundle, quiet=True).network
    assert list(network.branches) == ["latent", "decoder"]
    assert [row["equilibrium"] for row in result.history] == [{"M": row["train"]["real"]} for row in result.history]
    assert result.history[-1]["train"]["real"] < 0.7 * result.history[0]["train"]["real"]
    found = {file.name for file in (tmp_path / "run/one/sheets").iterdir()}
    assert found == {"reconstructions.png", "interpolations.png", "reconstructions-0005.png"}


def test_the_papers_pair_has_its_parameters() -> None:
    """Tables I and II at 128 px: convolutions, the layer to h of 128, and decoder and generator of one architecture."""
    tree = stage({"data": {"crop": {"size": 128}}}) | {"network": {"trunk": {"name": "began"}}}
    network = build_pair(AdversarialSpec.model_validate(tree), 0)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.branches.items()}
    assert counts == {"latent": 8_388_736, "decoder": 155_441, "generator": 155_441}
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 2_509_184 + sum(counts.values())
    assert all(module.training for module in network.modules())
    first, second = (network.branches[name].layers[0][0].weight for name in ("decoder", "generator"))
    assert not torch.equal(first, second)  # each has weights of its own


def test_its_model_is_used_like_any_other(train) -> None:
    """It answers no question, and its latent vector is an embedding of faces."""
    from polyface.inference import Analyzer
    from polyface.inference.embedder import BundleEmbedder

    (result,) = train(stage({"optimisation": {"epochs": 1}})).values()
    face = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    box = np.array([[0, 0, 63, 63]], dtype=np.float32)
    with pytest.raises(PolyfaceError, match="toy/one: it answers no task, it embeds"):
        Analyzer(result.bundle)
    ((found,),) = BundleEmbedder(result.bundle).embed([face], [box])
    assert found.embedding.shape == (6,)


# ---------------------------------------------------------------------------------------------------- resuming


def test_noise_is_a_function_of_the_batch_and_shared_out_over_processes(tmp_path) -> None:
    whole = module_of(tmp_path)
    halves = [module_of(tmp_path, rank=rank, world=2) for rank in (0, 1)]
    seen = []
    for done in (0, 3, 4, 3):
        for module in (whole, *halves):
            module.batches_done = done
        z = whole.noise()
        assert z.abs().max() <= 1
        assert torch.equal(torch.stack([half.noise() for half in halves], 1).flatten(0, 1), z)
        seen.append(z)
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])  # the next epoch
    assert not torch.equal(whole.looked.z[:16], seen[0])


def weights(out: Path) -> bytes:
    return (out / "one" / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(trainings, tmp_path) -> None:
    """In the middle of an epoch and of a step, at the end of an epoch, in between writing and renaming."""
    path = written(tmp_path / "toy.yaml", stage({"optimisation": {"accumulate": 2, "clip": 1.0}, "data": {"batch": 8}}))
    kills = [("step", 5, 2), ("optimiser", 3, 1), ("epoch", 0, 2), ("save", 2, 2), ("bundle", 0, 4)]
    runs: list[dict[str, Any]] = [{"recipe": path, "out": tmp_path / "whole"}]
    for number, (where, at, every) in enumerate(kills):
        run = {"recipe": path, "out": tmp_path / str(number), "options": {"checkpoint_steps": every}}
        runs += [run | {"kill": {"where": where, "at": at}}, run]
    stopped = {"recipe": path, "out": tmp_path / "stopped"}
    runs += [stopped | {"kill": {"where": "step", "at": 5, "signal": "INT"}}, stopped]
    results = trainings(runs)
    whole = results[0]["history"]
    for number, kill in enumerate(kills):
        assert weights(tmp_path / str(number)) == weights(tmp_path / "whole"), kill
        assert results[2 * number + 2]["history"] == whole, kill
    assert results[-2] == {"exit": 0, "interrupted": True}
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert results[-1]["history"] == whole
    assert whole["one"][-1]["equilibrium"]["k"] > 0  # there is an equilibrium to lose


@pytest.mark.slow
def test_two_processes_learn_what_one_does(trainings, tmp_path) -> None:
    one, two = (
        {"recipe": written(tmp_path / f"{batch}.yaml", stage({"data": {"batch": batch}})), "out": tmp_path / str(batch)}
        for batch in (16, 8)
    )
    single, double = trainings([one, two | {"processes": 2}])
    first, second = (rank["history"]["one"] for rank in double["ranks"])
    assert first == second
    for row, other in zip(single["history"]["one"], first, strict=True):
        for part in ("train", "equilibrium", "spread", "validation"):
            assert other[part] == pytest.approx(row[part], rel=1e-3, abs=1e-7), part
    other = load_file(tmp_path / "8/one/model/model.safetensors")
    for name, value in load_file(tmp_path / "16/one/model/model.safetensors").items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=1e-4)


def test_in_bfloat16_losses_are_float32_and_nearly_the_same(tmp_path) -> None:
    plain, mixed = (module_of(tmp_path) for _ in range(2))
    mixed.mixed = lambda: torch.autocast("cpu", torch.bfloat16)
    (raw, *_) = iter(plain._train)
    losses = []
    for module in (plain, mixed):
        total = module.step(raw)
        total.backward()
        assert total.dtype == torch.float32
        assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in module.parameters())
        losses.append(total.item())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


# ---------------------------------------------------------------------------------------------------- rate, collapse


def test_the_rate_is_halved_where_m_stalls_down_to_the_lowest(train, monkeypatch) -> None:
    """M falls in the first two epochs alone, so after every epoch from the third on the rate is halved."""
    follow = iter(step // 4 for step in range(100))

    def stalled(self: Began, losses: Any) -> float:
        return 1.0 / (1 + min(next(follow), 1))

    monkeypatch.setattr(Began, "follow", stalled)
    optimisation = {"epochs": 6, "lr": 0.008, "lowest": 0.0015, "patience": 1}
    (result,) = train(stage({"optimisation": optimisation, "sheets": 0})).values()
    assert [row["equilibrium"]["M"] for row in result.history] == [1, 0.5, 0.5, 0.5, 0.5, 0.5]
    # The rate of an epoch's last step; what its M says is followed from the next step on.
    assert [row["lr"] for row in result.history] == pytest.approx([0.008, 0.008, 0.008, 0.004, 0.002, 0.0015])


def rows(*measures: float, spread: float = 1.0) -> list[dict[str, Any]]:
    return [{"equilibrium": {"M": m}, "spread": {"reconstructed": 0.5, "generated": spread}} for m in measures]


def test_what_counts_as_collapsed() -> None:
    spec = CollapseSpec(stalled=3, spread=0.05)
    assert collapsed(rows(0.5, 0.4, 0.3, 0.31, 0.32), spec) is None
    told = collapsed(rows(0.5, 0.3, 0.4, 0.31, 0.3), spec)
    assert told == "M has not fallen for 3 epochs: 0.3 before, 0.3 since"
    assert collapsed(rows(0.5, 0.3, 0.4, 0.31, 0.2999), spec) is None
    assert collapsed(rows(0.5, 0.5, 0.5), spec) is None  # no epoch before these
    told = collapsed(rows(0.5, 0.4, spread=0.031), spec)
    assert told == "generated pictures are nearly the same: they differ 3.1% as much as faces do"
    assert collapsed(rows(0.5, 0.4, spread=0.05), spec) is None
    assert collapsed(rows(0.5, spread=0.031), spec) is None  # it may just have begun
    assert collapsed([*rows(0.5, spread=0.06), *rows(0.4, spread=0.03)], spec) is None


def test_spread_is_the_deviation_of_a_pixel() -> None:
    pictures = torch.tensor([[[[0.0, 5.0]]], [[[2.0, 5.0]]]])
    assert spread(pictures) == 0.5  # 1 in one place, 0 in the other
    assert spread(pictures[:1]) == 0.0


def test_a_run_that_collapsed_stops_or_goes_on_as_the_recipe_says(train, tmp_path, monkeypatch, caplog) -> None:
    """Nothing has a spread as large as the faces': called collapsed after the second of three epochs."""
    collapse = {"collapse": {"spread": 0.999}, "optimisation": {"lr": 1e-5, "epochs": 3}, "sheets": 0}
    stopping = stage(collapse | {"on_collapse": "stop"})
    with pytest.raises(PolyfaceError, match="stage one, epoch 2: collapsed: reconstructed pictures are") as caught:
        train(stopping)
    assert "\n" not in str(caught.value)
    assert torch.load(tmp_path / "run/one/last.ckpt", weights_only=True)["polyface"]["batches_done"] == 8
    with monkeypatch.context() as patch:
        patch.setattr(StageModule, "training_step", lambda *_: pytest.fail("trained on"))
        with pytest.raises(PolyfaceError, match="epoch 2: collapsed"):
            train(stopping)
    caplog.set_level(logging.WARNING)
    (result,) = train(stage(collapse)).values()  # goes on from there
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert ["nearly the same" in row.get("collapse", "") for row in result.history] == [False, True, True]
    (whole,) = train(stage(collapse), fresh=True).values()
    told = [record for record in caplog.records if "collapsed" in record.message]
    assert [record.message.partition(":")[0] for record in told] == ["stage one, epoch 2"]  # once a run
    assert whole.history == result.history


# ---------------------------------------------------------------------------------------------------- sheets


def test_sheets_show_what_they_say() -> None:
    network = build_pair(AdversarialSpec.model_validate(STAGE), 3).eval()
    looked = Looked(torch.rand(17, 1, 16, 16) * 2 - 1, torch.rand(17, 6) * 2 - 1)
    shown = sheets(network, looked)
    model = AutoEncoder(network)
    with torch.no_grad():
        assert list(shown) == ["samples", "reconstructions", "interpolations"]
        made = picture(network.branches["generator"], looked.z)[:16]
        torch.testing.assert_close(shown["samples"], made.reshape(2, 8, 1, 16, 16))
        assert shown["reconstructions"].shape[:2] == (4, 8)
        assert torch.equal(shown["reconstructions"][2], looked.faces[8:16])
        torch.testing.assert_close(shown["reconstructions"][3], model(looked.faces[8:16]))
        walk = shown["interpolations"][1]
        assert torch.equal(walk[0], looked.faces[2])
        assert torch.equal(walk[-1], looked.faces[3])
        first, last = model.encode(looked.faces[2:4])
        torch.testing.assert_close(
            walk[1:9], model.decode(torch.stack([first + (last - first) * i / 7 for i in range(8)]))
        )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_is_a_whole_picture_of_its_pixels(tmp_path, channels: int) -> None:
    tree = stage({"data": {"crop": {"channels": channels}}, "network": {"trunk": {"channels": channels}}})
    network = build_pair(AdversarialSpec.model_validate(tree), 3)
    values = torch.tensor([-1.5, 0.0, 0.5]).reshape(1, 3, 1, 1, 1).expand(1, 3, channels, 16, 16)
    write_sheet(tmp_path / "new/sheet.png", network, values)
    image = np.asarray(Image.open(tmp_path / "new/sheet.png").convert("RGB"))
    assert image.shape == (98, 3 * 98, 3)  # six times as large, and a frame of two pixels above and on the left
    assert [image[50, 98 * place + 50].tolist() for place in range(3)] == [[0] * 3, [128] * 3, [192] * 3]
    assert (image[:2] == 255).all()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["sheet.png"]


# ---------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"network": {"decoder": {"size": 24}}}, r"network.decoder makes \[1, 24, 24\], and the crop is 1×16²"),
        (
            {"network": {"generator": {"kind": "pool"}}},
            r"network.generator \(pool\): it reads a vector; expected one map",
        ),
        ({"network": {"decoder": {"kind": "decodr"}}}, "network.decoder.kind is 'decodr'; did you mean 'decoder'"),
        ({"network": {"decoder": {"depth": 2}}}, r"network.decoder \(decoder\): unknown option 'depth'"),
        ({"network": {"trunk": {"size": 24}}}, "the trunk takes 1×24² pixels but data.crop gives 1×16²"),
        ({"data": {"sizes": [16, 24]}}, "data.sizes: this network takes pictures of 16 pixels alone"),
        ({"objective": {"name": "gan"}}, "stages.0.objective: .*'began', 'reconstruction'"),
        ({"objective": {"name": "began", "gama": 1}}, "gama: unknown key; did you mean 'gamma'"),
        ({"objective": {"gamma": 1.5}}, "gamma: input should be less than or equal to 1"),
        ({"tasks": {}}, "stages.0.tasks: unknown key"),
        ({"on_collapse": "carry on"}, "on_collapse: input should be 'warn' or 'stop'"),
    ],
)
def test_mistakes_are_placed_and_named(train, tmp_path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        train(stage(changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run/one/last.ckpt").exists()


def test_its_settings_survive_being_written(tmp_path) -> None:
    recipe = recipes.load(written(tmp_path / "toy.yaml", stage()))
    assert recipes.Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    kept = json.loads(recipe.stages[0].model_dump_json()) | {"seed": 3}
    assert same_settings(recipe.stages[0], 3, merged(kept, {"collapse": {"spread": 0.5}, "on_collapse": "stop"}))
    assert not same_settings(recipe.stages[0], 3, merged(kept, {"objective": {"gamma": 0.7}}))
    assert not same_settings(recipe.stages[0], 3, merged(kept, {"optimisation": {"precision": "bf16-mixed"}}))
    auto = recipes.load(tmp_path / "toy.yaml", ["one.optimisation.precision=auto"]).stages[0]
    assert same_settings(auto, 3, kept)  # the device chose


def test_a_loss_that_is_not_finite_stops_the_run(train, monkeypatch) -> None:
    original = AdversarialModule._normalised

    def broken(self: AdversarialModule, raw: Any, training: bool = False) -> torch.Tensor:
        faces = original(self, raw, training)
        if training:
            faces[2] = float("nan")
        return faces

    monkeypatch.setattr(AdversarialModule, "_normalised", broken)
    with pytest.raises(PolyfaceError, match=r"stage one, step 0: the loss is not finite, at rows \d+ \("):
        train(stage())
