"""A folder of drawings: what they replace, and what never."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polyface.data.images import encode_png
from polyface.errors import PolyfaceError
from polyface.files import made_here
from polyface.inference import Drawings, FaceResult, ImageResult, draw_all
from polyface.inference.drawing import without_drawings

Pictures = Callable[..., np.ndarray]


def photo(path: Path, picture: Pictures, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(picture(seed=seed)))
    return path


def found(path: Path) -> ImageResult:
    return ImageResult(str(path), 120, 90, (FaceResult(np.float32([20, 10, 60, 60]), 0.9),))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_draw_all_writes_a_picture_a_file(picture: Pictures, tmp_path: Path) -> None:
    photos = [photo(tmp_path / folder / "same.png", picture) for folder in "xy"]
    unread = [ImageResult("c.jpg", 0, 0, error="c.jpg: is empty"), ImageResult(None, 120, 90)]
    paths = list(draw_all([*map(found, photos), *unread], tmp_path / "drawn"))
    assert [path.name for path in paths] == ["same.jpg", "same-2.jpg"]
    assert names(tmp_path / "drawn") == ["same-2.jpg", "same.jpg"]
    for path in paths:
        with Image.open(path) as image:
            assert (image.format, image.size) == ("JPEG", (120, 90))
        assert made_here(path)


def test_a_drawing_replaces_its_own_earlier_one_whatever_the_order(picture: Pictures, tmp_path: Path) -> None:
    photos = [photo(tmp_path / folder / "same.png", picture, seed) for seed, folder in enumerate("xyz")]
    first = Drawings(tmp_path / "drawn")
    places = {path: first.add(path, found(path)) for path in photos[:2]}
    again = Drawings(tmp_path / "drawn", photos)
    assert again.place(photos[2]).name == "same-3.jpg"
    assert [again.has(path) for path in photos] == [True, True, False]
    for path in reversed(photos):
        again.add(path, found(path))
    assert all(again.place(path) == place for path, place in places.items())
    assert names(tmp_path / "drawn") == ["same-2.jpg", "same-3.jpg", "same.jpg"]
    photo(photos[0], picture, seed=7)
    os.utime(photos[0], (0, 0))
    assert not again.has(photos[0])  # the photo is another now
    assert Drawings(tmp_path / "drawn").place(photos[0]) == places[photos[0]]


def test_nothing_but_a_drawing_of_the_same_photo_is_replaced(picture: Pictures, tmp_path: Path) -> None:
    """Beside the photo: the photo itself, others' files, links to anything, folders, another photo's drawing."""
    folder, mine = tmp_path / "photos", photo(tmp_path / "photos" / "me.jpg", picture)
    (folder / "me-2.jpg").write_text("not Polyface's")
    (folder / "me-3.jpg").symlink_to(mine)
    (folder / "me-4.jpg").mkdir()
    (folder / "me-5.jpg").symlink_to(folder / "nowhere")
    (folder / "me-6.jpg").hardlink_to(mine)
    other = photo(tmp_path / "other" / "me.jpg", picture, seed=1)
    Drawings(tmp_path / "made").add(other, found(other))
    shutil.copy(tmp_path / "made" / "me.jpg", folder / "me-7.jpg")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    linked = tmp_path / "link.jpg"
    linked.symlink_to(mine)
    for given in (mine, linked):
        drawings = Drawings(folder, [given])
        place = drawings.add(given, found(given))
        assert place.name == {"me.jpg": "me-8.jpg", "link.jpg": "link.jpg"}[given.name]
        assert drawings.has(given)
    assert {path: path.read_bytes() for path in before} == before


def test_a_picture_that_is_analyzed_is_never_drawn_over(picture: Pictures, tmp_path: Path) -> None:
    """Not even where it is the drawing of the other picture."""
    mine = photo(tmp_path / "a" / "me.png", picture)
    drawn = Drawings(tmp_path / "b").add(mine, found(mine))
    shutil.copy(drawn, tmp_path / "b" / "copy.jpg")
    assert Drawings(tmp_path / "b", [mine, drawn]).place(mine).name == "me-2.jpg"
    assert Drawings(tmp_path / "b", [mine]).place(mine) == drawn
    shutil.copy(drawn, mine.with_name("me.jpg"))  # a user keeps the drawing in place of the photo
    assert Drawings(tmp_path / "a").place(mine.with_name("me.jpg")).name == "me-2.jpg"


def test_what_an_earlier_run_drew_is_not_analyzed(picture: Pictures, tmp_path: Path) -> None:
    photos = [photo(tmp_path / name, picture) for name in ("a.png", "sub/b.png")]
    drawn = [Drawings(folder).add(path, found(path)) for path in photos for folder in (tmp_path, tmp_path / "sub")]
    assert without_drawings([*photos, *drawn], tmp_path) == [*photos, *(p for p in drawn if p.parent != tmp_path)]


def test_long_and_odd_names_are_drawn(picture: Pictures, tmp_path: Path) -> None:
    stems = ["x" * 250, "é" * 125, "caf\udce9", "\udcff"]
    for stem in stems:
        for folder in "ab":
            path = photo(tmp_path / folder / "short.png", picture)
            path = path.rename(path.with_name(f"{stem}.png"))
            place = Drawings(tmp_path / "drawn").add(path, found(path))
            place.name.encode()
            with Image.open(place) as image:
                image.load()
    assert len(names(tmp_path / "drawn")) == 2 * len(stems)


DRAWER = """
import sys
from polyface.inference import Drawings, FaceResult, ImageResult
import numpy as np
found = ImageResult(sys.argv[1], 120, 90, (FaceResult(np.float32([20, 10, 60, 60]), 0.9),))
Drawings("drawn").add(sys.argv[1], found)
assert Drawings("drawn").has(sys.argv[1])
"""


def test_a_locale_without_letters_draws_under_the_same_name(picture: Pictures, tmp_path: Path) -> None:
    photo(tmp_path / ("é" * 125 + ".png"), picture)
    ascii_alone = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", DRAWER, "é" * 125 + ".png"]
    subprocess.run(command, cwd=tmp_path, env=os.environ | ascii_alone, check=True)
    assert names(tmp_path / "drawn") == ["é" * 125 + ".jpg"]


def test_a_full_disk_is_told_and_leaves_no_picture(picture: Pictures, tmp_path: Path) -> None:
    mine, drawings = photo(tmp_path / "me.png", picture), Drawings(tmp_path / "drawn")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        with pytest.raises(OSError) as told:
            drawings.add(mine, found(mine))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert str(told.value.filename).endswith("drawn/me.jpg")
    assert names(tmp_path / "drawn") == []


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PolyfaceError, match="no folder that can be written"):
            Drawings(folder)
