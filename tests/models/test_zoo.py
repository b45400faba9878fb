"""Shipped models are found by name, and what is not there is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyface
from polyface import networks
from polyface.errors import PolyfaceError
from polyface.inference import Analyzer, BundleEmbedder
from polyface.inference import analyzer as analyzer_module
from polyface.models import EMBEDDER, default_models, find, models
from polyface.models import zoo as module
from polyface.models.bundle import MANIFEST, Bundle, load_bundle


@pytest.fixture
def shipped(five: Bundle, sixty_eight: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A weights folder with two models."""
    folder = tmp_path / "weights"
    five.about["terms"] = "research only"
    five.save(folder / "tcdcn")
    (folder / "tcdcn" / "README.md").write_text("# The card\n")
    sixty_eight.save(folder / "tcdcn-68")
    monkeypatch.setattr(module, "shipped_folder", lambda: folder)
    analyzer_module._shipped.cache_clear()
    yield folder
    analyzer_module._shipped.cache_clear()


def test_models_are_listed(shipped: Path) -> None:
    first, second = models()
    assert (first.name, second.name) == ("tcdcn", "tcdcn-68")
    assert first.tasks == ("landmarks", "pose", "smile")
    assert first.terms == "research only"
    assert first.card == "# The card\n"
    assert (second.terms, second.card) == ("", "")
    assert first.path == shipped / "tcdcn"
    assert first.size_mb == pytest.approx(0.32, abs=0.05)
    assert first.about["name"] == "toy"


def test_a_name_or_a_folder_finds_a_model(shipped: Path, saved: Path) -> None:
    assert find("tcdcn") == shipped / "tcdcn"
    assert find(saved) == saved
    assert find(str(saved)) == saved


@pytest.mark.parametrize(
    "name, hint",
    [
        ("tcdcm", "did you mean 'tcdcn'"),
        ("zebra", "known: tcdcn, tcdcn-68"),
        ("./tcdcn", "there is no such folder"),
        (Path("some") / "where", "there is no such folder"),
    ],
)
def test_what_is_not_there_is_said(shipped: Path, name: Any, hint: str) -> None:
    with pytest.raises(PolyfaceError) as caught:
        find(name)
    assert hint in str(caught.value)


def test_a_folder_without_a_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match=f"it holds no {MANIFEST}"):
        find(tmp_path)


def test_no_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "shipped_folder", lambda: tmp_path / "weights")
    assert models() == []
    for use in (default_models, Analyzer, lambda: polyface.analyze(np.zeros((9, 9, 3), np.uint8))):
        with pytest.raises(PolyfaceError, match="ships no model: train one"):
            use()
    with pytest.raises(PolyfaceError, match="ships none"):
        find("tcdcn")


def test_a_broken_manifest_is_said(shipped: Path) -> None:
    for text in ("{", "[]", json.dumps({"about": {}})):
        (shipped / "tcdcn" / MANIFEST).write_text(text)
        with pytest.raises(PolyfaceError, match="not a readable model manifest"):
            models()


def test_all_shipped_models_answer_by_default(shipped: Path, picture: Any) -> None:
    (result,) = polyface.analyze(picture(), [20, 15, 70, 75])
    (face,) = result.faces
    assert set(face.points) == {"landmarks_5", "landmarks_68"}
    assert set(face.labels) == {"pose", "smile"}


def test_an_embedder_answers_no_question(shipped: Path, saved: Path, picture: Any) -> None:
    toy = load_bundle(saved, quiet=True)
    config = {**toy.network.config, "heads": {}}
    Bundle(networks.build(config), {}, toy.crop, toy.boxes, {"name": "embedder"}).save(shipped / "embedder")
    assert [model.name for model in models()] == ["embedder", "tcdcn", "tcdcn-68"]
    assert default_models() == [shipped / "tcdcn", shipped / "tcdcn-68"]
    with pytest.raises(PolyfaceError, match="embedder: it answers no task, it embeds: use it with `polyface gallery`"):
        polyface.analyze(picture(), [20, 15, 70, 75], models="embedder")


def test_a_stand_in_answers_only_when_it_is_named(shipped: Path, picture: Any) -> None:
    quick = load_bundle(shipped / "tcdcn", quiet=True)
    quick.about["stands in for"] = "tcdcn"
    quick.save(shipped / "quick")
    assert [model.stands_in_for for model in models()] == ["tcdcn", "", ""]
    assert default_models() == [shipped / "tcdcn", shipped / "tcdcn-68"]
    (result,) = polyface.analyze(picture(), [20, 15, 70, 75], models="quick")
    assert set(result.faces[0].labels) == {"pose", "smile"}


def test_shipped_models_are_loaded_once(shipped: Path, picture: Any) -> None:
    polyface.analyze(picture(), [20, 15, 70, 75])
    shutil.rmtree(shipped / "tcdcn")
    (result,) = polyface.analyze(picture(), [20, 15, 70, 75])
    assert "landmarks_5" in result.faces[0].points


def test_analyze_takes_models_and_options(shipped: Path, saved: Path, picture: Any, told: Any) -> None:
    bundle = load_bundle(saved, quiet=True)
    for given in (saved, bundle, [saved], "tcdcn"):
        (result,) = polyface.analyze(picture(), models=given, detector=told([20, 15, 70, 75]), average=3)
        assert set(result.faces[0].points) == {"landmarks"}
    with pytest.raises(TypeError, match="averages"):
        polyface.analyze(picture(), averages=3)


def test_what_the_package_really_ships_can_be_read() -> None:
    for info in models():
        assert load_bundle(info.path, quiet=True).tasks.keys() == set(info.tasks)
        assert info.terms, f"{info.name} states no terms of use"
        assert info.card, f"{info.name} has no model card"
        assert info.size_mb < 20


def test_the_shipped_embedder_is_the_default(picture: Any) -> None:
    embedder = BundleEmbedder()
    assert embedder.id.startswith(f"{EMBEDDER}-")
    ((face,),) = embedder.embed([picture()], [np.array([[20, 15, 70, 75]], np.float32)])
    assert face.embedding.shape == (128,)
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
