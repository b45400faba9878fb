"""What a label must be to stand in a face table: a value of its column's kind, in its range, as Arrow takes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polyface.errors import PolyfaceError, nearest, short
from polyface.schema import Column

LONGEST_WORD = 4096  # bytes of UTF-8
_SMALLEST_BOX = 2.0  # pixels


def checked(name: str, column: Column, value: Any, size: tuple[int, int], where: str) -> Any:
    """A label as it is stored, numbers as float32 holds them. size: width and height of the picture.

    Raises:
        PolyfaceError: a value that its column cannot hold, whatever it is; the place is named.
    """
    if value is None:
        return None
    where = f"{where}: {name}"
    try:
        return _CHECKS[column.type](column, value, size, where)
    except (TypeError, ValueError, OverflowError) as error:
        raise PolyfaceError(f"{where} is not a value of its kind ({short(error)})") from error


def word(value: Any, where: str) -> str:
    """A word that UTF-8 holds, of at most `LONGEST_WORD` bytes."""
    if not isinstance(value, str | bool | int | float | np.generic):
        raise PolyfaceError(f"{where} is a {type(value).__name__}, expected a word")
    text = str(value)
    if (length := len(text.encode())) > LONGEST_WORD:
        raise PolyfaceError(f"{where} is a word of {length:,} bytes; at most {LONGEST_WORD:,} are taken")
    return text


def _near(numbers: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Refuse coordinates [..., 2] that lie further outside the picture than it is large."""
    pairs, (width, height) = numbers.reshape(-1, 2), size
    far = (pairs < [-width, -height]) | (pairs > [2 * width, 2 * height])
    if far.any():
        x, y = pairs[far.any(axis=1)][0]
        raise PolyfaceError(f"{where} has ({x:g}, {y:g}), far outside its {width}×{height} image")


def _shaped(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    numbers = np.array(value, dtype=np.float64)
    if numbers.shape != shape:
        raise PolyfaceError(f"{where} has shape {short(list(numbers.shape))}, expected {list(shape)}")
    return numbers


def _points(column: Column, value: Any, size: tuple[int, int], where: str) -> list[float | None]:
    numbers = _shaped(value, (column.points, 2), where)
    numbers[np.isnan(numbers).any(axis=1)] = np.nan
    _near(numbers, size, where)
    return [None if math.isnan(x) else x for x in _single(numbers.ravel())]


def _box(column: Column, value: Any, size: tuple[int, int], where: str) -> list[float]:
    box = _shaped(value, (4,), where)
    _near(box, size, where)
    hint = "; other forms are read with --option box=xywh, box=fractions or box=xywh-fractions"
    if not (box[2] > box[0] and box[3] > box[1]):
        raise PolyfaceError(f"{where} {box.tolist()} is empty; expected x0 < x1 and y0 < y1 in pixels{hint}")
    if (box[2:] - box[:2]).max() < min(_SMALLEST_BOX, min(size) / 2):
        raise PolyfaceError(f"{where} {box.tolist()} is smaller than {_SMALLEST_BOX:g} pixels{hint}")
    return _single(box)


def _word(column: Column, value: Any, size: tuple[int, int], where: str) -> str:
    if column.vocabulary and str(value) not in column.vocabulary:
        shown = short(value)
        raise PolyfaceError(f"{where} is '{shown}'; {nearest(shown, column.vocabulary)}")
    return word(value, where)


def _shares(column: Column, value: Any, size: tuple[int, int], where: str) -> list[float]:
    """Shares, or votes, for each word: in order, or by word (a word that is not named has none)."""
    if isinstance(value, Mapping):
        if unknown := [word for word in value if word not in column.vocabulary]:
            raise PolyfaceError(f"{where} names '{short(unknown[0])}'; {nearest(short(unknown[0]), column.vocabulary)}")
        value = [value.get(word) or 0 for word in column.vocabulary]
    shares = _shaped(value, (len(column.vocabulary),), where)
    with np.errstate(over="ignore"):
        total = shares.sum()
    if not ((shares >= 0).all() and 0 < total < math.inf):
        raise PolyfaceError(f"{where} is {short(shares.tolist())}; expected shares of 0 or more that are not all 0")
    return _single(shares / total)


def _attributes(column: Column, value: Any, size: tuple[int, int], where: str) -> list[int | None]:
    if len(value) != 40 or any(v not in (-1, 1, None) for v in value):
        raise PolyfaceError(f"{where} must be 40 values out of -1, 1 and null")
    return [None if v is None else int(v) for v in value]


def _number(column: Column, value: Any, size: tuple[int, int], where: str) -> float | None:
    number = _float(value)
    if abs(number) > float(np.finfo(np.float32).max):
        raise PolyfaceError(f"{where} is {number:g}, out of the range of a number")
    return None if math.isnan(number) else float(np.float32(number))


def _whole(column: Column, value: Any, size: tuple[int, int], where: str) -> int | None:
    number = _float(value)
    if math.isnan(number):
        return None
    if not -(2**31) <= number < 2**31 or number != int(number):
        raise PolyfaceError(f"{where} is {short(value)}, expected a whole number from -2³¹ to 2³¹ - 1")
    return int(number)


def _float(value: Any) -> float:
    if isinstance(value, str) and "_" in value:  # which Python reads over: 20_29 would be 2029
        raise ValueError(f"'{short(value)}' is no number")
    return float(value)


def _single(numbers: np.ndarray) -> list[float]:
    """Numbers as float32 holds them."""
    return list(numbers.astype(np.float32).tolist())


_CHECKS: dict[str, Callable[[Column, Any, tuple[int, int], str], Any]] = {
    "points": _points,
    "box": _box,
    "words": _word,
    "distribution": _shares,
    "attributes": _attributes,
    "number": _number,
    "whole": _whole,
}
