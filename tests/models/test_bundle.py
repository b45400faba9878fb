"""A bundle is read whole and unchanged, or refused with one line; reading it executes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from polyface import tasks as task_kinds
from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec
from polyface.errors import PolyfaceError
from polyface.files import sha256
from polyface.models.bundle import MANIFEST, WEIGHTS, Bundle, load_bundle
from polyface.networks import build


def fabricate(filters: str = "shared") -> Bundle:
    tasks = {
        "landmarks": task_kinds.build("landmarks", {"kind": "landmarks", "points": 5}),
        "pose": task_kinds.build("pose", {"kind": "classification", "column": "pose"}),
    }
    torch.manual_seed(3)
    network = build({
        "trunk": {"name": "tcdcn", "filters": filters},
        "heads": {name: task.output_dim for name, task in tasks.items()},
        "normalise": {"mean": 100.0, "std": 60.0},
    })  # fmt: skip
    about = {"name": "toy", "terms": "for tests only", "error": 12.5}
    return Bundle(network, tasks, CropSpec(size=40, channels=1, scale=1.25), BoxSpec(source="landmarks"), about)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate().save(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "toy"))


def images() -> torch.Tensor:
    return torch.rand(4, 1, 40, 40, generator=torch.Generator().manual_seed(1)) * 255


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors and make the hash match them: what a hash alone cannot see."""
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)
    rewrite(folder, lambda manifest: manifest.update(sha256=sha256(folder / WEIGHTS)))


def refusal(folder: Path) -> str:
    with pytest.raises(PolyfaceError) as caught:
        load_bundle(folder, quiet=True)
    message = str(caught.value)
    assert "\n" not in message
    assert folder.name in message
    return message


# ---------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("filters", ["shared", "unshared"])
def test_round_trip(filters: str, tmp_path: Path) -> None:
    bundle = fabricate(filters)
    again = load_bundle(bundle.save(tmp_path / "model"), quiet=True)
    assert again.about == bundle.about
    assert (again.crop, again.boxes) == (bundle.crop, bundle.boxes)
    assert {n: t.config() for n, t in again.tasks.items()} == {n: t.config() for n, t in bundle.tasks.items()}
    assert not again.network.training
    for name, tensor in bundle.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name])
    assert float(again.network.mean) == 100
    assert float(again.network.std) == 60


def test_fresh_process_answers_the_same_bits(whole: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch, polyface\n"
        "images = torch.rand(4, 1, 40, 40, generator=torch.Generator().manual_seed(1)) * 255\n"
        "with torch.inference_mode(): found = polyface.load(sys.argv[1]).network(images).outputs\n"
        "from safetensors.torch import save_file\n"
        "save_file(found, sys.argv[2])\n"
    )
    out = tmp_path / "out.safetensors"
    done = subprocess.run([sys.executable, "-c", code, whole, out], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "toy: for tests only" in done.stderr
    with torch.inference_mode():
        expected = fabricate().network.eval()(images()).outputs
    for name, tensor in load_file(out).items():
        assert torch.equal(tensor, expected[name])


def test_half_precision_storage(whole: Path, tmp_path: Path) -> None:
    half = fabricate().save(tmp_path / "half", dtype=torch.float16)
    assert (half / WEIGHTS).stat().st_size < 0.55 * (whole / WEIGHTS).stat().st_size
    network = load_bundle(half, quiet=True).network
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    with torch.inference_mode():
        found, expected = network(images()), fabricate().network.eval()(images())
    assert (found.outputs["landmarks"] - expected.outputs["landmarks"]).abs().max() < 2e-3


def test_terms_are_told_once_a_process(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Other weights than the other tests': those have been told already, perhaps.
    reweigh(folder, lambda state: state["heads.pose.bias"].add_(1.0))
    load_bundle(folder)
    load_bundle(folder)
    told = capsys.readouterr()
    assert told.err == "toy: for tests only\n"
    assert told.out == ""


def test_saving_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    bundle, folder = fabricate(), tmp_path / "model"
    bundle.save(folder)
    (folder / "stale.txt").write_text("of the earlier save")
    with torch.no_grad():
        bundle.network.heads["pose"].bias.fill_(2.0)
    bundle.save(folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted([MANIFEST, WEIGHTS])
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (load_bundle(folder, quiet=True).network.heads["pose"].bias == 2).all()


def test_a_failed_save_leaves_the_old_bundle(tmp_path: Path) -> None:
    bundle = fabricate()
    folder = bundle.save(tmp_path / "model")
    before = sha256(folder / WEIGHTS)
    bundle.about["unsayable"] = object()
    with pytest.raises(TypeError):
        bundle.save(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert sha256(folder / WEIGHTS) == before


# ----------------------------------------------------------------------------------------------------- tampering


def test_every_flipped_byte_is_refused(folder: Path) -> None:
    weights = folder / WEIGHTS
    original = weights.read_bytes()
    spots = {0, 7, 8, 9, 60, len(original) - 1, *range(0, len(original), len(original) // 40)}
    for spot in sorted(spots):
        for bit in (0, 7):
            changed = bytearray(original)
            changed[spot] ^= 1 << bit
            weights.write_bytes(changed)
            assert "SHA-256" in refusal(folder), f"byte {spot}, bit {bit}"
    weights.write_bytes(original)
    load_bundle(folder, quiet=True)


@pytest.mark.parametrize("keep", [0, 8, 500, -1])
def test_truncated_weights_are_refused(folder: Path, keep: int) -> None:
    weights = folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "SHA-256" in refusal(folder)
    rewrite(folder, lambda manifest: manifest.update(sha256=sha256(weights)))
    assert "not a safetensors file" in refusal(folder)


def test_missing_tensor_is_refused(folder: Path) -> None:
    reweigh(folder, lambda state: state.pop("heads.pose.bias"))
    assert "'heads.pose.bias' is missing" in refusal(folder)


def test_unknown_tensor_is_refused(folder: Path) -> None:
    reweigh(folder, lambda state: state.update(extra=torch.zeros(1)))
    assert "'extra' is unknown" in refusal(folder)


def test_misshaped_tensor_is_refused(folder: Path) -> None:
    reweigh(folder, lambda state: state.update({"heads.pose.bias": torch.zeros(6)}))
    message = refusal(folder)
    assert "'heads.pose.bias' is torch.float32 [6]" in message
    assert "expected torch.float32 [5]" in message


def test_transposed_tensor_is_refused(folder: Path) -> None:
    reweigh(folder, lambda state: state.update({"heads.pose.weight": state["heads.pose.weight"].T.contiguous()}))
    assert "'heads.pose.weight'" in refusal(folder)


def test_integers_for_floats_are_refused(folder: Path) -> None:
    reweigh(folder, lambda state: state.update({"heads.pose.bias": torch.zeros(5, dtype=torch.int32)}))
    assert "int32" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    reweigh(folder, lambda state: state["trunk.fc.weight"][3].fill_(value))
    assert "not finite" in refusal(folder)


def test_a_pickle_in_place_of_the_weights_is_not_opened(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    # A pickle, by hand, that would create a file when loaded.
    payload = f"cbuiltins\nopen\n(V{mark}\nVw\ntR.".encode()
    (folder / WEIGHTS).write_bytes(payload)
    refusal(folder)
    rewrite(folder, lambda manifest: manifest.update(sha256=sha256(folder / WEIGHTS)))
    assert "not a safetensors file" in refusal(folder)
    assert not mark.exists()


# ------------------------------------------------------------------------------------------------------ manifest


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "null", "3", "\x00\x01", "{}", '{"format": 1}'])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    assert MANIFEST in refusal(folder)


def test_a_manifest_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00{")
    assert MANIFEST in refusal(folder)


@pytest.mark.parametrize("key", ["format", "network", "tasks", "crop", "boxes", "about", "sha256"])
def test_a_missing_key_is_named(folder: Path, key: str) -> None:
    rewrite(folder, lambda manifest: manifest.pop(key))
    assert key in refusal(folder)


def test_a_later_format_is_refused(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(format=2))
    assert "format is '2'" in refusal(folder)


BROKEN: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("network is no object", lambda m: m.update(network=3)),
    ("network without trunk", lambda m: m["network"].pop("trunk")),
    ("network without heads", lambda m: m["network"].pop("heads")),
    ("trunk without name", lambda m: m["network"]["trunk"].pop("name")),
    ("unknown trunk", lambda m: m["network"]["trunk"].update(name="os.system")),
    ("unknown trunk option", lambda m: m["network"]["trunk"].update(depth=3)),
    ("unknown trunk plan", lambda m: m["network"]["trunk"].update(plan="huge")),
    ("other filters than the weights", lambda m: m["network"]["trunk"].update(filters="unshared")),
    ("head of words", lambda m: m["network"]["heads"].update(pose="five")),
    ("head of a negative length", lambda m: m["network"]["heads"].update(pose=-5)),
    ("other head length", lambda m: m["network"]["heads"].update(pose=6)),
    ("normalisation of words", lambda m: m["network"].update(normalise={"mean": "grey"})),
    ("division by zero", lambda m: m["network"].update(normalise={"mean": 0.0, "std": 0.0})),
    ("tasks is a list", lambda m: m.update(tasks=[])),
    ("task is no object", lambda m: m["tasks"].update(pose=3)),
    ("unknown kind of task", lambda m: m["tasks"]["pose"].update(kind="exec")),
    ("unknown task option", lambda m: m["tasks"]["pose"].update(colour="red")),
    ("task without a head", lambda m: m["tasks"].update(gender={"kind": "classification", "column": "gender"})),
    ("task of another length than its head", lambda m: m["tasks"]["landmarks"].update(points=68)),
    ("crop of another size than the network", lambda m: m["crop"].update(size=60)),
    ("crop of other channels than the network", lambda m: m["crop"].update(channels=3)),
    ("unknown crop option", lambda m: m["crop"].update(tilt=1)),
    ("crop is no object", lambda m: m.update(crop=3)),
    ("unknown boxes", lambda m: m["boxes"].update(source="guess")),
    ("about is no object", lambda m: m.update(about="a toy")),
    ("hash is no text", lambda m: m.update(sha256=5)),
]


@pytest.mark.parametrize("change", [change for _, change in BROKEN], ids=[name for name, _ in BROKEN])
def test_a_broken_manifest_is_refused_in_one_line(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    rewrite(folder, change)
    with pytest.raises(PolyfaceError) as caught:
        load_bundle(folder, quiet=True)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert f"{WEIGHTS} is missing" in refusal(folder)
    (folder / MANIFEST).unlink()
    assert f"{MANIFEST} is missing" in refusal(folder)
    with pytest.raises(PolyfaceError, match="not a model bundle"):
        load_bundle(tmp_path / "nowhere")
