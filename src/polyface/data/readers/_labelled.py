"""What readers of one list of faces share: its rows by column, and the columns of sets of known pose and light."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from polyface.data.readers.common import cut, demand, numbered_lines, stable_path
from polyface.data.writing import Reader, Record, Skipped
from polyface.errors import PolyfaceError, nearest, short
from polyface.schema import Column

EXPRESSION = Column("words", ("neutral", "smile", "surprise", "squint", "disgust", "scream", "anger", "blink", "talk"))
"""One vocabulary, so that tables of several sets can be one: Multi-PIE's six expressions in its order, then others."""

LIGHT_FROM = Column("words", ("left", "front", "right"))
"""The viewer's side from which the light comes; front where neither half of the face is much the brighter one."""

LIGHT_SIDE = Column("number", mirror="negate", unit="ln of right half over left half")
"""How much brighter a source of light makes the right half of the picture than the left one."""

SESSION = Column("words", ("1", "2", "3", "4"))
"""The day on which somebody was photographed, by its number."""

Fields = Mapping[str, str]
"""A row of a label file: column → what stands there, without blanks around it."""
_Word = TypeVar("_Word")
_Parsed = TypeVar("_Parsed")
_EVEN = 0.25  # of LIGHT_SIDE: no flash of PIE or Multi-PIE lies between 0.21 and 0.32 on either side


def labelled_faces(
    root: Path, reader: Reader, columns: tuple[str, ...], parse: Callable[[Fields], dict[str, Any]]
) -> Iterator[Record | Skipped]:
    """One face a row of ``labels.csv``, in its order.

    columns: those that the file must have besides ``file``, the image's path. parse: the labels of a row, beside
    ``source`` and ``modality``; a ValueError says what is wrong with it, and the row is skipped.

    Raises:
        PolyfaceError: the file is missing, or lacks a column.
    """
    file = demand(demand(Path(root), reader) / "labels.csv", reader)
    seen: dict[str, str] = {}

    def face(fields: Fields) -> tuple[str, dict[str, Any]]:
        path = stable_path(fields["file"])
        if path in seen:
            raise ValueError(f"a second row of {path}, after that of line {seen[path]}")
        return path, {"source": reader.name, "modality": "photo"} | parse(fields)

    for row in named_rows(file, ("file", *columns), face):
        if isinstance(row, Skipped):
            yield row
            continue
        where, (path, labels) = row
        seen[path] = where.rpartition(":")[2]
        yield Record(image=file.parent / path, where=where, path=path, labels=labels)


def named_rows(
    file: Path, columns: Iterable[str], parse: Callable[[Fields], _Parsed], separator: str = ","
) -> Iterator[tuple[str, _Parsed] | Skipped]:
    """The rows of a list whose first line names its columns: where each stands, and what `parse` makes of its fields.

    columns: those that it must have, in whatever order. A row of more or fewer fields than there are columns is
    skipped, and one of which `parse` says by a ValueError what is wrong.

    Raises:
        PolyfaceError: it lacks a column.
    """
    lines = numbered_lines(file)
    names = [name.strip() for name in lines[0][1].split(separator)] if lines else []
    if lacking := [name for name in columns if name not in names]:
        hint = nearest(lacking[0], names)
        raise PolyfaceError(f"{file}:1: lacks the column '{lacking[0]}' ({hint}); obtain the file again")
    for number, line in lines[1:]:
        where = f"{file.name}:{number}"
        values = [value.strip() for value in line.split(separator)]
        if len(values) != len(names):
            yield Skipped(where, f"{len(values)} fields, expected {len(names)} as in the first line")
            continue
        try:
            parsed = parse(dict(zip(names, values, strict=True)))
        except ValueError as error:
            yield Skipped(where, str(error))
            continue
        yield where, parsed


def look_up(fields: Fields, column: str, words: Mapping[str, _Word]) -> _Word:
    """What a word of a label file stands for; ValueError names an unknown one with its nearest neighbour."""
    if (found := fields[column]) not in words:
        raise ValueError(f"{column} is '{short(found)}'; {nearest(found, words)}")
    return words[found]


def agree(fields: Fields, by: str, expected: Mapping[str, str]) -> None:
    """ValueError where a field is another than what the word in the field `by` stands for."""
    for column, word in expected.items():
        if fields[column] != word:
            raise ValueError(f"{column} is '{short(fields[column])}', but {by} {fields[by]} has '{word}'")


def person(fields: Fields, source: str, people: int, digits: int = 2) -> str:
    """The identity of a numbered person, unique over sets: "pie-01"; ValueError where there is no such number."""
    found = fields["person"]
    if not (found.isdecimal() and 1 <= int(found) <= people):
        raise ValueError(f"person is '{short(found)}', expected a number from 1 to {people}")
    return f"{source}-{int(found):0{digits}d}"


def number(fields: Fields, column: str, most: float) -> float:
    """A number from −`most` to `most`; ValueError where there is none."""
    try:
        found = float(fields[column])
    except ValueError:
        raise ValueError(f"{column} is '{short(fields[column])}', expected a number") from None
    if not abs(found) <= most:  # NaN is not
        raise ValueError(f"{column} is {fields[column]}, expected a number from {-most:g} to {most:g}")
    return found


def yaw(fields: Fields) -> float:
    """The schema's yaw in degrees, positive where the nose points to the picture's right edge, of a label file that has
    the opposite sign; ValueError where there is none from −90 to 90."""
    return 0.0 - number(fields, "yaw", 90)


def trained_on(faces: Iterable[Record | Skipped]) -> list[Record | Skipped]:
    """The faces as training ones, but for a tenth that is val: whole people, by the fixed order of their names."""
    found = list(faces)
    good = [face for face in found if isinstance(face, Record)]
    for face in good:
        face.labels["split"] = "train"
    cut(good, "val", lambda face: str(face.labels["identity"]))
    return found


def light_from(side: float) -> str:
    """The word of `LIGHT_FROM` for a number of `LIGHT_SIDE`."""
    return "front" if abs(side) < _EVEN else "right" if side > 0 else "left"
