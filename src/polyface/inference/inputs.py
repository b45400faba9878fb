"""Whatever a picture comes as: a file, a folder, encoded bytes, a row of a face table, a PIL image, an array, a tensor,
or many of these; what else is given with pictures: boxes of one's own, a device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from polyface.data import images as files
from polyface.data.boxes import check_boxes
from polyface.data.folders import look, pictures
from polyface.errors import PolyfaceError, check_names, short

if TYPE_CHECKING:
    import torch


CHANNELS = ("rgb", "bgr")
"""The orders in which an array or tensor may hold colours; OpenCV's is the second."""


@dataclass(frozen=True)
class Source:
    """A picture that is not decoded yet. where: what errors call it; path: its file, None from memory; channels: the
    order of its colours, if it is an array or a tensor."""

    picture: Any
    where: str
    path: str | None
    channels: str = "rgb"

    def pixels(self) -> np.ndarray:
        """uint8 RGB [H, W, 3]; a line of the log says where a file holds several pictures, of which one is taken."""
        return pixels(self.picture, self.where, self.channels, files.log)


def is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _is_encoded(value: Any) -> bool:
    """Whether this is one encoded picture in memory: bytes, an open file, or a row {"bytes", "path"}."""
    return isinstance(value, bytes | bytearray | memoryview | Mapping) or hasattr(value, "read")


def is_single(images: Any) -> bool:
    """Whether this is one picture: not a folder, nor several."""
    if is_path(images):
        return not Path(images).is_dir()
    return isinstance(images, Image.Image) or _is_encoded(images) or getattr(images, "ndim", 0) in (2, 3)


def count(images: Any) -> int:
    """How many pictures these are; 0 where only reading them all would tell."""
    if is_single(images):
        return 1
    if is_path(images):
        return len(look(images).files)
    return len(images) if isinstance(images, Sized) else 0


def sources(images: Any, channels: str = "rgb") -> Iterator[Source]:
    """The pictures of `images`, one after the other; folders are read in the order of their names, to any depth.

    channels: the order of colours in those that are arrays or tensors.
    """
    check_names([channels], CHANNELS, "channels")
    return (replace(source, channels=channels) for source in _sources(images))


def _sources(images: Any) -> Iterator[Source]:
    if is_single(images):
        yield _source(images, "image")
    elif is_path(images):
        yield from (_source(path, "") for path in image_files(images))
    elif isinstance(images, Iterable):
        for index, item in enumerate(images):
            if is_path(item) and Path(item).is_dir():
                yield from _sources(item)
            else:
                yield _source(item, f"image {index}")
    else:
        raise PolyfaceError(f"cannot analyse a {type(images).__name__}: {_EXPECTED}")


_EXPECTED = (
    "give a path, a folder, encoded bytes, an open file, a row {bytes, path} of a face table, a PIL image, a uint8 "
    "array [H, W, 3], a uint8 tensor [3, H, W], or several of these"
)


def _source(picture: Any, where: str) -> Source:
    picture = picture.as_py() if hasattr(picture, "as_py") else picture  # of an Arrow column
    if isinstance(picture, Mapping):
        if "image" in picture:  # a whole row of a table
            return _source(picture["image"], where)
        data, path = picture.get("bytes"), picture.get("path")
        if data is None and not path:
            raise PolyfaceError(f"{where}: is a {type(picture).__name__} without bytes and path; {_EXPECTED}")
        return Source(path if data is None else data, path or where, path)
    name = "name" if hasattr(picture, "read") else "filename"  # an open file's, a PIL image's
    path = os.fspath(picture) if is_path(picture) else getattr(picture, name, None) or None
    path = os.fsdecode(path) if isinstance(path, str | bytes) else None
    return Source(picture, path or where, path)


def image_files(source: str | os.PathLike[str]) -> list[Path]:
    """The pictures of a folder, to any depth and in the order of their paths; a file is itself, read or not.

    A line of the log says what is passed over. Raises where there is none, or a folder cannot be opened.
    """
    if not os.fspath(source):
        raise PolyfaceError("the name of a photo or folder is empty; name one")  # Path("") is the present folder
    folder = Path(source)
    return [folder / name for name in pictures(folder)] if folder.is_dir() else [folder]


def pixels(
    picture: Any, where: str = "image", channels: str = "rgb", tell: Callable[[str], object] | None = None
) -> np.ndarray:
    """One picture as uint8 RGB [H, W, 3], turned as it is displayed.

    channels: the order of colours in an array or tensor, "rgb" or "bgr". tell: as `polyface.data.images.decode` has it.

    Raises:
        PolyfaceError: unreadable, or an array or tensor of another dtype or shape.
    """
    if is_path(picture):
        return files.decode(Path(picture), where, tell)
    if hasattr(picture, "read"):
        picture = picture.read()
        if isinstance(picture, str):
            raise PolyfaceError(f"{where}: is a file that was opened as text; open it in binary mode")
    if isinstance(picture, bytes | bytearray | memoryview):
        return files.decode(bytes(picture), where, tell)
    if isinstance(picture, Image.Image):
        return _of_pil(picture, where)
    if isinstance(picture, np.ndarray):
        return _of_array(picture, where, channels, "array", "[H, W] or [H, W, 3]")
    if hasattr(picture, "detach") and hasattr(picture, "cpu"):  # a tensor: channels come first
        array = picture.detach().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
        return _of_array(array, where, channels, "tensor", "[3, H, W] or [1, H, W]", tuple(picture.shape))
    raise PolyfaceError(f"{where}: is a {type(picture).__name__}; {_EXPECTED}")


def _of_array(
    array: np.ndarray, where: str, channels: str, kind: str, expected: str, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if array.dtype != np.uint8 or not array.size or not (grey or (array.ndim == 3 and array.shape[2] == 3)):
        raise PolyfaceError(
            f"{where}: expected a uint8 {kind} {expected} in {channels.upper()}, found {array.dtype} "
            f"{list(shape or array.shape)}"
        )
    if grey:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(array[..., ::-1] if channels == "bgr" else array)


def _of_pil(image: Image.Image, where: str) -> np.ndarray:
    try:
        return files.pixels_of(image, where)
    except PolyfaceError:
        raise
    except Exception as error:  # an open file is decoded only here, and raises as variously as decoders do
        raise PolyfaceError(f"{where}: is truncated or corrupt ({short(error)})") from error


def column(values: Iterable[Any] | None) -> Iterator[Any]:
    """The values one by one; None for ever where there are none."""
    return repeat(None) if values is None else iter(values)


def together(items: Iterable[Any], called: str, **columns: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    """Items, each with its entry of every column; raises where a column is shorter or longer."""
    number, end = 0, object()
    for number, item in enumerate(items, 1):
        entries = [next(column, end) for column in columns.values()]
        if short := [name for name, entry in zip(columns, entries, strict=True) if entry is end]:
            raise PolyfaceError(f"there are more {called} than {short[0]} ({number - 1}): give one entry each")
        yield item, *entries
    for name, column in columns.items():
        if not isinstance(column, repeat) and next(column, end) is not end:
            raise PolyfaceError(f"there are more {name} than {called} ({number}): give one entry each")


def given_boxes(images: Any, boxes: Any) -> Iterator[Any]:
    """The boxes of each of `images`: those of one picture, an entry for each of several, or None for ever."""
    if boxes is not None and is_single(images):
        return iter([boxes])
    return column(boxes.to_pylist() if hasattr(boxes, "to_pylist") else boxes)  # an Arrow column


def own_boxes(own: Any, where: str) -> np.ndarray | None:
    """Boxes float32 [N, 4] that were given for the picture `where`; None where it is left to the detector.

    Raises:
        PolyfaceError: no numbers, another shape than [N, 4] or [4], or a box without an inside.
    """
    if own is None:
        return None
    try:
        boxes = np.asarray(own, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise PolyfaceError(f"{where}: its boxes are not numbers of the shape [N, 4] ({error})") from error
    if boxes.shape == (4,):
        if np.isnan(boxes).all():
            return None  # how a FaceTable's numbers say "no box"
        boxes = boxes[None]
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise PolyfaceError(f"{where}: its boxes have the shape {list(boxes.shape)}, expected [N, 4] as x0, y0, x1, y1")
    check_boxes(boxes, f"{where}: ")
    return boxes


def usable_device(device: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        PolyfaceError: there is no such device, or nothing can be put on it.
    """
    import torch  # not to be waited for where only pictures are read

    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise PolyfaceError(f"device '{device}' cannot be used ({short(error)}); try cpu") from error
