"""Where Polyface keeps what it can make again, for users with and without a home."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from polyface.errors import PolyfaceError
from polyface.files import cache_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files; the user has neither a home nor a word on where the cache is."""
    for name in ("POLYFACE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def nowhere() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_user_without_a_home_has_a_cache_of_his_own(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", nowhere)
    folder = cache_folder("cuts")
    root = temporary / f"polyface-{os.getuid()}"
    assert folder == root / "cuts"
    assert folder.is_dir()
    assert root.stat().st_mode & 0o777 == 0o700


def test_a_home_that_cannot_be_written_is_none(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = temporary.parent / "home"
    home.write_text("no folder")
    monkeypatch.setenv("HOME", str(home))
    assert cache_folder() == temporary / f"polyface-{os.getuid()}"


def test_a_home_is_taken_first(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(temporary.parent / "home"))
    assert cache_folder("cuts") == temporary.parent / "home/.cache/polyface/cuts"
    monkeypatch.setenv("XDG_CACHE_HOME", str(temporary.parent / "other"))
    assert cache_folder("cuts") == temporary.parent / "other/polyface/cuts"


def test_what_another_user_put_there_is_not_read(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # so the folder made here is somebody else's
    with pytest.raises(PolyfaceError, match="polyface-54321: cannot be written; set POLYFACE_CACHE"):
        cache_folder()


def test_a_cache_that_was_asked_for_and_cannot_be(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / "file").touch()
    monkeypatch.setenv("POLYFACE_CACHE", str(temporary / "file" / "below"))
    with pytest.raises(PolyfaceError, match="below: cannot be written; set POLYFACE_CACHE"):
        cache_folder()
