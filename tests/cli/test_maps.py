"""`polyface explain cam`, `gradients`, `occlusion`, `check` and `regions`: what they write and print."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from polyface.data.synthetic import records
from polyface.data.writing import write_table
from polyface.demo.photos import people

Command = Callable[..., Any]
PHOTO = people()[0].smiling


def test_a_sheet_a_face(polyface: Command, tmp_path: Path) -> None:
    out = tmp_path / "sheets"
    command = (
        "explain",
        "cam",
        PHOTO,
        "--model",
        "face5",
        "--task",
        "glasses",
        "--task",
        "landmarks=2.x",
        "--out",
        out,
    )
    for _ in range(2):  # its own sheet is made again
        told = polyface(*command)
        assert told.status == 0, told.err
    assert told.out == f"{out / 'smiling.png'}: glasses: no, landmarks: 2.x\n"
    with Image.open(out / "smiling.png") as sheet:
        assert sheet.width > 3 * 240
    (out / "smiling.png").write_bytes(b"mine")
    assert "was not made by Polyface" in polyface(*command).mistake


def test_photos_of_one_name_have_sheets_of_their_own(polyface: Command, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(PHOTO, tmp_path / folder / "face.jpg")
    (tmp_path / "b" / "no.jpg").write_bytes(b"no picture")
    out = tmp_path / "sheets"
    command = ("explain", "gradients", tmp_path / "a", tmp_path / "b", "--model", "face5", "--task", "smile")
    told = polyface(*command, "--also", "cam", "--in-photo", "--out", out)
    assert told.status == 0
    assert sorted(path.name for path in out.iterdir()) == ["face-2.png", "face.png"]
    assert "no.jpg" in told.err


@pytest.mark.parametrize(
    "arguments, line",
    [
        (("cam", PHOTO, "--model", "face6"), "no model 'face6': did you mean"),
        (("cam", PHOTO, "--model", "face5", "--task", "glases"), "task names 'glases'; did you mean 'glasses'?"),
        (("cam", PHOTO, "--model", "face5", "--task", "smile=si"), "task smile names 'si'; known: no, yes"),
        (("cam", PHOTO, "--model", "face5", "--layer", "trunk.stag3"), "layer names 'trunk.stag3'; did you mean"),
        (("cam", PHOTO, "--model", "face5", "--also", "lime"), "methods names 'lime'; known: cam, gradients"),
        (
            ("gradients", PHOTO, "--model", "identity"),
            "'verification' is an embedding, which two faces are compared by",
        ),
        (("cam", "no.jpg", "--model", "face5"), "no.jpg"),
        (("regions", "face5", "no", "--method", "cams"), "--method names 'cams'; did you mean 'cam'?"),
    ],
)
def test_a_mistake_is_one_line(polyface: Command, tmp_path: Path, arguments: tuple[Any, ...], line: str) -> None:
    out = () if arguments[0] == "regions" else ("--out", tmp_path)
    assert line in polyface("explain", *arguments, *out).mistake
    assert not list(tmp_path.glob("*.png"))


def test_the_check_says_which_maps_depend_on_the_network(polyface: Command) -> None:
    told = polyface("explain", "check", "face5", PHOTO, "--task", "glasses", "--method", "cam", "--draws", "1")
    assert told.status == 0, told.err
    header, line, about = told.out.splitlines()
    assert header.split()[:2] == ["task", "method"]
    *_, last = line.split()
    figures = [float(word) for word in line.split()[2:-1]]
    assert last == ("passes" if max(figures[2:]) < 0.5 else "FAILS")
    assert "below 0.5" in about


def test_shares_of_mass_by_region_are_printed_and_kept(polyface: Command, tmp_path: Path) -> None:
    table, results = tmp_path / "faces.parquet", tmp_path / "rows.json"
    write_table(records(6, 96, modality="photo", fixed={"yaw": 0.0}), table)
    command = ("explain", "regions", "face5", table, "--split", "all", "--task", "glasses=yes", "--task", "smile")
    told = polyface(*command, "--results", results)
    assert told.status == 0, told.err
    assert json.loads(results.read_text())["command"].startswith("polyface explain regions face5 ")
    rows = {(row["row"], row["metric"]): row for row in json.loads(results.read_text())["rows"]}
    for task in ("glasses: yes", "smile"):
        for metric in ("share of Grad-CAM mass", "area"):
            shares = [
                rows[f"face5 {task}: {region}", metric]["mean"]
                for region in ("eyes", "nose", "mouth", "cheeks", "rest")
            ]
            assert np.isclose(sum(shares), 100, atol=0.01)
    assert "face5 smile: mouth" in told.out
    assert "before smile: mouth" in polyface(*command, "--name", "before").out


@pytest.mark.skipif(importlib.util.find_spec("captum") is None, reason="needs captum")
def test_occlusion_needs_no_gradient(polyface: Command, tmp_path: Path) -> None:
    told = polyface("explain", "occlusion", PHOTO, "--model", "face5", "--task", "smile", "--out", tmp_path)
    assert told.status == 0
    assert (tmp_path / "smiling.png").exists()
