"""Files of anybody's labels: what their columns hold, guessed from the values and overridden by options."""

from __future__ import annotations

import difflib
import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from polyface.data import images
from polyface.data.readers.common import stable_path
from polyface.data.tablefile import file_inside
from polyface.data.values import LONGEST_WORD
from polyface.data.writing import Plan, Record, Skipped
from polyface.errors import PolyfaceError, check_names, nearest, short, utf8
from polyface.files import check_regular
from polyface.schema import Column, built_in, is_column, known_columns, read_column

Row = tuple[str, Path, Mapping[str, Any]]
"""Where a row stands, for errors; the file that holds it; its values by name. The value of the image is its path, its
bytes, or {"bytes": …, "path": …}."""

_IMAGES = ("image", "file", "filename", "file_name", "path", "image_path", "file_path", "filepath", "img", "image_id")
_BOXES = {  # names of four columns that are a box, with or without box_, bbox_ or face_ before them
    "xyxy": ("x0 y0 x1 y1", "x1 y1 x2 y2", "xmin ymin xmax ymax", "x_min y_min x_max y_max", "left top right bottom"),
    "xywh": ("x y w h", "x y width height", "left top width height", "x_1 y_1 width height"),
}
_FORMS = ("xyxy", "xywh", "fractions", "xywh-fractions")
_CLOSED, _LONGEST = 64, 64  # most words of a vocabulary, and letters of a word of one
_LONGEST_NAME = 256  # letters of a column's name
_TRUTH = {"false": "no", "0": "no", "true": "yes", "1": "yes"}
_NUMBERS = {"number", "whole"}


@dataclass(frozen=True)
class LabelReader(ABC):
    """Reads anybody's labels, whatever their columns are called.

    image: the column of the images' paths, by default one called image, file, path and the like. images: the folder
    that the paths start from, by default the label file's. columns: what a column of the table holds where that is not
    guessed right ({age: number, mask: "words:no,yes"}, see `schema.read_column`; "none" leaves it out). map: a name in
    the file → the column's name ({sex: gender}), or a column's name → its words ({gender: {M: male}}; an empty word is
    "not labelled"). box: how boxes are written: xyxy (corners), xywh, fractions (corners in parts of the picture) or
    xywh-fractions, and if need be their columns, "xywh:left,top,w,h".
    """

    image: str = ""
    images: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    map: Mapping[str, Any] = field(default_factory=dict)
    box: str = ""

    follows_links: ClassVar[bool] = True  # whether a picture's path may lead elsewhere through a link

    @abstractmethod
    def _read(self, root: Path) -> tuple[Layout, Iterable[Row | Skipped]]: ...

    def inputs(self, root: Path) -> list[Path]:
        """The files that hold the rows, which no output may replace."""
        return [root]

    def plan(self, root: Path) -> Plan:
        """What the columns become."""
        return self._read(Path(root))[0].plan

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row.

        Raises:
            PolyfaceError: no such file, none of its kind, or columns that do not go with their names or the options.
        """
        layout, rows = self._read(Path(root))
        return (row if isinstance(row, Skipped) else self._record(layout, *row) for row in rows)

    def _record(self, layout: Layout, where: str, file: Path, values: Mapping[str, Any]) -> Record | Skipped:
        image = values.get(layout.image)
        if not isinstance(image, dict):
            image = {"bytes": image, "path": ""} if isinstance(image, bytes) else {"path": _text(image or "")}
        data, path = image.get("bytes"), _text(image.get("path") or "")
        if data is None and not path:
            return Skipped(where, "image is null")
        if data is not None and not isinstance(data, bytes):  # a word would be taken for a path
            return Skipped(where, f"the image's bytes are a {type(data).__name__}; give its path")
        try:
            picture, path = (data, path) if data is not None else self._picture(path, file.parent)
            labels = layout.labels(values, lambda: images.size_of(picture))
        except (ValueError, PolyfaceError) as error:
            return Skipped(where, short(error))
        return Record(picture, where, path, labels)

    def _picture(self, name: str, beside: Path) -> tuple[Path, str]:
        """An image's file, and its path from the images' folder, which `name` may give whole.

        Raises:
            ValueError: it leads out of that folder, or is no regular file.
        """
        folder = (Path(self.images) if self.images else beside).absolute()
        if Path(name).is_absolute() and Path(name).is_relative_to(folder):
            name = str(Path(name).relative_to(folder))
        try:
            path = stable_path(name)
        except ValueError as error:
            raise ValueError(f"{error}; choose the images' folder with --option images=…") from error
        check_regular(folder / path, short(path))
        if not self.follows_links and file_inside(folder, path) is None and os.path.exists(folder / path):
            raise ValueError(f"path '{short(path)}' leads out of the images' folder; choose it with --option images=…")
        return folder / path, path


@dataclass(frozen=True)
class Layout:
    """How the rows of one file become labels: the column of images; the form of boxes and their columns; for every
    column of the table its names in the file and what it holds; the words that stand for others."""

    image: str
    form: str
    box: Sequence[str]
    columns: Mapping[str, tuple[Sequence[str], Column]]
    words: Mapping[str, Mapping[str, str]]
    plan: Plan

    def labels(self, values: Mapping[str, Any], size: Callable[[], tuple[int, int]]) -> dict[str, Any]:
        """A row's labels. size: width and height of its picture.

        Raises:
            ValueError: a value that is none of its column's kind.
        """
        found: dict[str, Any] = {}
        for name, (sources, column) in self.columns.items():
            value = values.get(sources[0])
            if len(sources) > 1:  # shares, each in a column of its own
                value = dict(zip(column.vocabulary, (values.get(one) or 0 for one in sources), strict=True))
            try:
                found[name] = _converted(value, column, self.words.get(name, {}))
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{short(name)}: {short(error)}") from error
        if self.box and not any(_blank(values.get(name)) for name in self.box):
            found["box"] = self._box([values[name] for name in self.box], size)
        return found

    def _box(self, given: Sequence[Any], size: Callable[[], tuple[int, int]]) -> list[float]:
        given = _listed(given[0]) if len(given) == 1 else given
        if len(given) != 4:
            raise ValueError(f"box: has {len(given)} numbers, expected 4")
        try:
            x, y, right, bottom = map(float, given)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"box: {short(error)}") from error
        if "xywh" in self.form:
            right, bottom = x + right, y + bottom
        if "fractions" in self.form:  # of the picture, whose pixels reach from -½ to its length less ½
            width, height = size()
            return [x * width - 0.5, y * height - 0.5, right * width - 0.5, bottom * height - 0.5]
        return [x, y, right, bottom]


def layout(
    names: Sequence[str],
    rows: Iterable[Row | Skipped],
    options: LabelReader,
    where: str,
    held: Mapping[str, Column] | None = None,
) -> Layout:
    """How the rows of a file become labels. names: of its columns. held: what is known of some of them.

    Raises:
        PolyfaceError: an option that names no column, two columns of one name, or no column of images.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise PolyfaceError(f"{where}: column '{twice[0]}' is there twice; rename one")
    if odd := [name for name in ("map", "columns") if not isinstance(getattr(options, name), Mapping)]:
        raise PolyfaceError(f"{where}: option {odd[0]} has keys: {odd[0]}.NAME=…")
    renamed = [name for name, new in options.map.items() if isinstance(new, str)]
    given = {name: new for name, new in options.map.items() if isinstance(new, Mapping)}
    words = {name: {_text(word): new for word, new in each.items()} for name, each in given.items()}
    image = options.image or next((name for name in _IMAGES for one in names if one.lower() == name), "")
    image = next((name for name in names if name.lower() == image.lower()), image)
    if image not in names:
        raise PolyfaceError(f"{where}: no column of images (it has {', '.join(names)}); name it with --option image=…")
    if unknown := [name for name in renamed if name not in names]:
        raise PolyfaceError(f"{where}: no column '{unknown[0]}' to map; {nearest(unknown[0], names)}")
    targets = {name: target_of(name, options) for name in names if name != image}
    form, box = _box_columns(options.box, targets, where)
    named = [new for name, new in targets.items() if name not in box]
    if twice := [new for new, count in Counter(named).items() if count > 1]:
        raise PolyfaceError(f"{where}: two columns become '{twice[0]}'; leave one out: --map NAME=…")
    if unknown := [name for name in words if name not in named]:
        raise PolyfaceError(f"{where}: no column '{unknown[0]}' whose words to map; {nearest(unknown[0], named)}")
    table = [row[2] for row in rows if not isinstance(row, Skipped)]
    columns, left = _held(targets, box, table, words, options, held or {}, where)
    hints = {name: hint for name in columns if (hint := _near(name))}
    boxed = {"box": built_in("box")} if box else {}
    plan = Plan(
        {name: column for name, (_, column) in columns.items()} | boxed,
        {name: ", ".join(sources) for name, (sources, _) in columns.items()} | ({"box": ", ".join(box)} if box else {}),
        left,
        hints | ({"box": f"read as {form}"} if box else {}),
    )
    return Layout(image, form, box, columns, words, plan)


def _held(
    targets: Mapping[str, str],
    box: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    words: Mapping[str, Mapping[str, str]],
    options: LabelReader,
    held: Mapping[str, Column],
    where: str,
) -> tuple[dict[str, tuple[Sequence[str], Column]], dict[str, str]]:
    """The table's columns, and what is left out with the reason."""
    columns: dict[str, tuple[Sequence[str], Column]] = {}
    left: dict[str, str] = {}
    back = {name: source for source, name in targets.items()}
    given = {
        name: one if one == "none" else read_column(one, f"columns.{name}") for name, one in options.columns.items()
    }
    for name, column in given.items():
        if name in back:
            continue
        if isinstance(column, str) or column.type != "distribution":
            raise PolyfaceError(f"{where}: no column '{name}' for --option columns.{name}; {nearest(name, back)}")
        if lacking := [word for word in column.vocabulary if word not in back]:
            raise PolyfaceError(
                f"{where}: no column '{name}' of shares, nor one '{lacking[0]}' of the shares of a word"
            )
        columns[name] = [back[word] for word in column.vocabulary], column
    taken = {*box, *(source for sources, _ in columns.values() for source in sources)}
    for source, name in targets.items():
        if source in taken:
            continue
        values = [one for row in rows if not _blank(one := row.get(source)) and not isinstance(one, Exception)]
        wanted = given.get(name)
        if wanted is None and source in held and (name == source or not is_column(name)):
            wanted = _renamed(name, held[source], words.get(name, {}))
        wanted = wanted or (built_in(name) if is_column(name) else None)
        reason = ""
        if wanted == "none":
            reason = "as asked"
        elif not name or name == "image":
            reason = "it has no name" if not name else "the table's own name for the picture"
        elif len(name) > _LONGEST_NAME:
            reason = f"its name has {len(name):,} letters"
        elif not wanted and not values:
            reason = "nothing is labelled"
        elif column := wanted or _guess([words.get(name, {}).get(_text(one), one) for one in values]):
            columns[name] = [source], column
        else:
            reason = f"not words, numbers, points or shares; say what it holds: --option columns.{name}=…"
        if reason:
            left[source] = "; ".join(filter(None, (reason, _near(source))))
    return columns, left


def _renamed(name: str, column: Column, words: Mapping[str, str]) -> Column:
    """What a column holds when words of its declaration are mapped onto others."""
    if not words:
        return column
    vocabulary = tuple(dict.fromkeys(new for word in column.vocabulary if (new := words.get(word, word))))
    if is_column(name) and set(vocabulary) <= set(built_in(name).vocabulary):
        return built_in(name)
    kept = len(vocabulary) == len(column.vocabulary)  # otherwise indices of a mirror mean other words
    return replace(column, vocabulary=vocabulary, mirror=column.mirror if kept else "")


def target_of(name: str, options: LabelReader) -> str:
    """The table's column for a name in the file: as `map` has it; the column with a fixed meaning whose name differs by
    letter case and blanks alone; or else the name itself."""
    if isinstance(given := options.map.get(name), str):
        return given
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    return plain if is_column(plain) else utf8(name.strip())


def _near(name: str) -> str:
    close = [] if is_column(name) else difflib.get_close_matches(name.lower(), known_columns(), n=1, cutoff=0.75)
    return f"nearest known: '{close[0]}' (--map {name}={close[0]})" if close else ""


def _box_columns(option: str, targets: Mapping[str, str], where: str) -> tuple[str, Sequence[str]]:
    """How boxes are written, and the columns that hold them: one or four, or none."""
    form, _, named = option.partition(":")
    if form and form not in _FORMS:
        raise PolyfaceError(f"{where}: option box is '{form}'; {nearest(form, _FORMS)}")
    back = {new.lower(): source for source, new in targets.items()}
    if named:
        chosen = [name.strip() for name in named.split(",")]
        check_names(chosen, targets, f"{where}: option box")
        if len(chosen) not in (1, 4):
            raise PolyfaceError(f"{where}: option box names {len(chosen)} columns; expected 1 or 4")
        return form, chosen
    if "box" in back:
        return form or "xyxy", [back["box"]]
    for guess, layouts in _BOXES.items():
        for words in layouts:
            for prefix in ("", "box_", "bbox_", "face_"):
                four = [prefix + word for word in words.split()]
                if all(name in back for name in four):
                    return form or guess, [back[name] for name in four]
    if form:
        raise PolyfaceError(
            f"{where}: option box is '{form}', but no column holds boxes: name them, box={form}:x,y,w,h"
        )
    return "", []


def _guess(values: Sequence[Any]) -> Column | None:
    """What a column holds by its values, of which there are some; None if that is not plain."""
    values = [_plain(value) for value in values]
    if all(isinstance(value, Mapping) for value in values):
        words = sorted({str(word) for value in values for word in value if _is_word(str(word))}, key=_natural)
        return Column("distribution", tuple(words)) if len(words) > 1 else None
    if all(isinstance(value, list) for value in values):
        sizes = {len(value) for value in values if value and isinstance(value[0], list)}
        return Column("points", points=sizes.pop()) if len(sizes) == 1 else None
    texts = [_text(value) for value in values if not isinstance(value, Mapping | list)]
    if len(texts) < len(values):
        return None
    words = sorted(filter(_is_word, set(texts)), key=_natural)
    if {word.lower() for word in words} <= _TRUTH.keys():
        return Column("words", ("no", "yes"))
    if all(map(_is_number, words)) and words:
        return Column("number")
    closed = 2 <= len(words) <= _CLOSED and len(texts) >= 2 * len(words) and max(map(len, words)) <= _LONGEST
    return Column("words", tuple(words) if closed else ())


def _converted(value: Any, column: Column, words: Mapping[str, str]) -> Any:
    """A file's value as `write_table` takes it."""
    if isinstance(value, Exception):
        raise ValueError(str(value))
    value = words.get(_text(value), value) if words else value
    if _blank(value):
        return None
    if column.type == "words" and not isinstance(value, Mapping | list):
        word = _text(value)
        truth = word not in column.vocabulary and {"no", "yes"} <= set(column.vocabulary)
        return _TRUTH.get(word.lower(), word) if truth else word
    if column.type in _NUMBERS and isinstance(value, str) and not _is_number(value):
        raise ValueError(f"could not convert string to float: '{short(value)}'")
    value = _plain(value)
    if column.type == "distribution" and isinstance(value, Mapping):
        return {word: float(share or 0) for word, share in value.items()}
    return pairs(value) if column.type == "points" else value


def pairs(value: list[Any]) -> np.ndarray:
    """Points [N, 2] with NaN for null, from x, y, x, y, … or from pairs (a null pair is an invisible point)."""
    if any(isinstance(point, list) for point in value):
        value = [number for point in value for number in (point or (None, None))]
    if len(value) % 2:
        raise ValueError(f"{len(value)} coordinates, an odd number")
    return np.array(value, dtype=np.float64).reshape(-1, 2)


def _listed(value: Any) -> Sequence[Any]:
    value = _plain(value)
    return value if isinstance(value, list) else str(value).replace(",", " ").split()


def _plain(value: Any) -> Any:
    """A text that is JSON of a list or an object as that."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _text(value: Any) -> str:
    """A value as a word: 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value.strip() if isinstance(value, str) else str(value)


def _blank(value: Any) -> bool:
    """Whether a value says nothing: null, NaN, or a text of blanks."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # which Python reads over: 20_29 would be 2029


def _is_word(text: str) -> bool:
    """Whether a table can hold a word; a row that has another one is bad, and says nothing of its column."""
    return 0 < len(text) <= LONGEST_WORD and utf8(text) == text


def _natural(word: str) -> list[tuple[int, str]]:
    """Sorts 4-6 before 10-12."""
    parts = re.split(r"(\d{1,18})", word)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
