"""Answers kept as they are found: whatever ends a run, the same one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from polyface.errors import PolyfaceError, short, utf8
from polyface.files import atomic_path, check_output, lock, made_here, naming, status_of
from polyface.inference.analyzer import Analyzer
from polyface.inference.results import ImageResult, json_line, to_parquet

_INSTEAD = "name another file, or say --overwrite to replace it"


class Journal:
    """A file of JSON lines, one an image, each written whole as soon as the image is answered.

    A line is `made_by`, `file` (the picture's size in bytes and the time of its last change in nanoseconds), and what
    `ImageResult.to_dict` says. Of a file that is there, those lines stay that answer a picture as it is now;
    errors, pictures that have changed and the half line of a process that was killed are left out, and answered again.

    pictures: all that are to be answered. made_by: who answers (`Analyzer.id`). overwrite: whether a file that cannot
    be gone on with is begun anew. exact: numbers are not rounded.

    Raises:
        PolyfaceError: the file holds something else, answers of other models or options, or about other pictures.
    """

    def __init__(
        self, path: Path, pictures: Sequence[Path], made_by: str, overwrite: bool = False, exact: bool = False
    ) -> None:
        self.path, self._pictures, self._made_by, self._exact = path, pictures, made_by, exact
        self._named = {_name(picture): picture for picture in pictures}
        self._answered: Counter[str] = Counter()
        self._under_way: deque[list[int] | None] = deque()
        try:
            left_out = self._left_out()
        except PolyfaceError:
            if not overwrite:
                raise
            left_out, self._answered = None, Counter()
        if left_out is None or left_out:
            with atomic_path(path) as aside, open(aside, "wb") as kept:
                if left_out:
                    kept.writelines(line for number, line in enumerate(_lines(path)) if number not in left_out)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  closed by __exit__

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file, naming(self.path):
            os.fsync(self._file.fileno())

    def results(self) -> Iterator[tuple[ImageResult, bool]]:
        """The answers that are there, each with whether it is about a picture that is given."""
        for line in _lines(self.path):
            told = json.loads(line)
            picture = self._named.get(told["path"])
            yield ImageResult.from_dict(told | ({"path": str(picture)} if picture else {})), picture is not None

    def left(self) -> Iterator[Path]:
        """The pictures that are not answered yet; `add` takes their answers in this order."""
        for picture in self._pictures:
            if self._answered[_name(picture)] > 0:
                self._answered[_name(picture)] -= 1
            else:
                self._under_way.append(_state(picture))
                yield picture

    def add(self, result: ImageResult) -> None:
        """Write an answer down; of a line that does not fit on the disk nothing is left."""
        told = {"made_by": self._made_by, "file": self._under_way.popleft()} | result.to_dict(self._exact)
        line, before = json_line(told).encode(), os.fstat(self._file.fileno()).st_size
        with naming(self.path):
            try:
                while line:
                    line = line[self._file.write(line) :]
            except OSError:
                self._file.truncate(before)
                raise

    def _left_out(self) -> set[int] | None:
        """The numbers of the lines that do not stay; None where there is no file to go on with."""
        if not self.path.exists():
            return None
        if not made_here(self.path):
            raise PolyfaceError(f"{self.path}: is there, and was not made by Polyface; {_INSTEAD}")
        left_out = set()
        for number, line in enumerate(_lines(self.path)):
            told = self._read(line, number) if line.endswith(b"\n") else {"error": "is cut off"}
            picture = self._named.get(told.get("path", ""))
            if "error" in told or (picture and told["file"] != _state(picture)):
                left_out.add(number)
            else:
                self._answered[told["path"]] += 1
        return left_out

    def _read(self, line: bytes, number: int) -> Mapping[str, Any]:
        try:
            told: Mapping[str, Any] = json.loads(line)
            path, made_by, _ = told["path"], told["made_by"], told["file"]
            ImageResult.from_dict(told)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PolyfaceError(f"{self.path}: line {number + 1} is not of a run like this one; {_INSTEAD}") from error
        _check_made_by(self.path, made_by, self._made_by, [path], self._named)
        return told


def analyze_into(
    analyzer: Analyzer,
    pictures: Sequence[Path | str],
    out: Path | str,
    *,
    overwrite: bool = False,
    done: Callable[[Path], bool] | None = None,
) -> Iterator[tuple[ImageResult, bool]]:
    """Analyze files into `out`, and yield each answer with whether it is new: first those that an earlier run found.

    out: a .jsonl file, to which every answer is written at once; or a .parquet file, which is written when all are
    there, from the JSON lines in `<out>.jsonl` until then. The same call goes on with what it finds there (`Journal`),
    and yields nothing for a .parquet file that is whole. overwrite: whether what cannot be gone on with is replaced.
    done: whether a picture that was answered needs nothing else, such as a drawing: else a whole table is made anew.

    Raises:
        PolyfaceError: as `Journal`; `out` ends in neither, cannot be written, is one of the pictures, or another
            process is at work on it.
    """
    files = [Path(picture) for picture in pictures]
    place, kept = check_out(out, files, overwrite)
    made_by, table = analyzer.id, kept != place
    about: dict[str, Any] = {"made_by": made_by, "pictures": _digest(files), "unread": 0}
    with lock(place):
        if table and place.exists() and _about(place, about, files, overwrite) == about:
            if not kept.exists() and all(map(done or bool, files)):
                return
        with Journal(kept, files, made_by, overwrite, exact=table) as journal:
            yield from ((result, False) for result, given in journal.results() if given)
            for result in analyzer.stream(journal.left()):
                journal.add(result)
                about["unread"] += result.error is not None
                yield result, True
            if table:
                to_parquet((result for result, _ in journal.results()), place, overwrite=overwrite, about=about)
        if table:
            kept.unlink()


def check_out(out: Path | str, pictures: Sequence[Path], overwrite: bool = False) -> tuple[Path, Path]:
    """The file that is named by `out`, and that which holds its answers until all are there; raises where either may
    not be written."""
    out = Path(out)
    if out.suffix not in (".jsonl", ".json", ".parquet"):
        raise PolyfaceError(f"--out {out}: expected a .jsonl or .parquet file (pictures go to --draw FOLDER)")
    out = Path(os.path.realpath(out))
    kept = out.with_name(f"{out.name}.jsonl") if out.suffix == ".parquet" else out
    for path in dict.fromkeys((out, kept)):
        check_output(path, overwrite, pictures)
    return out, kept


def _check_made_by(where: Path, made_by: str, expected: str, paths: Iterable[str], named: Container[str]) -> None:
    """Raise unless answers in a file are by the models and options of this run, and about none but its pictures, or
    such as are no longer there."""
    if made_by != expected:
        raise PolyfaceError(f"{where}: holds answers of other models or options; {_INSTEAD}")
    other = next((path for path in paths if path not in named and os.path.exists(path)), None)
    if other is not None:
        raise PolyfaceError(f"{where}: holds an answer about {short(other)}, which is not given now; {_INSTEAD}")


def _about(out: Path, expected: Mapping[str, Any], pictures: Sequence[Path], overwrite: bool) -> Mapping[str, Any]:
    """What a table says of the run that wrote it; raises for one that this run would not go on with."""
    try:
        about: Mapping[str, Any] = json.loads(pq.read_schema(out).metadata[b"polyface"])
        paths = pq.read_table(out, columns=["path"])["path"].unique().to_pylist()
        _check_made_by(out, about["made_by"], expected["made_by"], paths, set(map(_name, pictures)))
    except (OSError, ValueError, KeyError, TypeError, PolyfaceError) as error:
        if overwrite:
            return {}
        if isinstance(error, PolyfaceError):
            raise
        raise PolyfaceError(f"{out}: is not of a run like this one; {_INSTEAD}") from error
    return about


def _digest(pictures: Sequence[Path]) -> str:
    told = hashlib.sha256()
    for picture in pictures:
        told.update(json_line([_name(picture), _state(picture)]).encode())
    return told.hexdigest()[:16]


def _name(picture: Path) -> str:
    """A picture's name in its answer."""
    return utf8(str(picture))


def _state(picture: Path) -> list[int] | None:
    """A file's size in bytes and the time of its last change in nanoseconds."""
    status = status_of(picture)
    return None if status is None else [status.st_size, status.st_mtime_ns]


def _lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from file
