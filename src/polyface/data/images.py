"""Encoded images to arrays and back: the one place where Polyface decodes a picture.

Whatever a file holds, out comes uint8 RGB ``[H, W, 3]``, the right way up, or a :class:`PolyfaceError` that names the
file. Colour profiles are not applied; of an animation the first frame is taken.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from polyface.errors import PolyfaceError, short
from polyface.files import read_bytes

__all__ = ["MAX_PIXELS", "decode", "encode_png", "size_of"]

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a few hundred bytes can claim to be any size."""

# Not EPS, whose reader runs Ghostscript, nor the many formats that no face data set comes in.
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_ORIENTATION = 0x0112  # EXIF tag; values 1…8


def decode(data: bytes | Path | str, where: str = "") -> NDArray[np.uint8]:
    """Decode an image file, or the bytes of one.

    EXIF orientation is applied. Transparency is laid on white, the page on which cut-out pictures are shown. Grey,
    1-bit, palette and CMYK become RGB. 16-bit samples are scaled to 8 bits (65535 becomes 255), never clipped.

    Args:
        data: a file's path, or encoded bytes.
        where: what to call the image in an error; by default the path, or "image".

    Returns:
        uint8 RGB ``[H, W, 3]``, writable, C-contiguous.

    Raises:
        PolyfaceError: missing, empty, truncated, corrupt or not an image; over 100 megapixels; or of pixels without a
            defined range (32-bit float, or integers beyond 16 bits).
    """
    where = where or ("image" if isinstance(data, bytes) else str(data))
    if not isinstance(data, bytes):
        data = read_bytes(data, where)
    if not data:
        raise PolyfaceError(f"{where}: is empty (0 bytes); fetch the file again")
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=_formats()) as image:
            return pixels_of(image, where)
    except PolyfaceError:
        raise
    except UnidentifiedImageError as error:
        raise PolyfaceError(
            f"{where}: is not an image that Polyface reads (JPEG, PNG, WebP, TIFF, BMP, GIF, PPM and the like); "
            "convert or remove it"
        ) from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, checked before ours when it is the lower
        claimed = re.search(r"\((\d+) pixels\)", str(error))
        _check_size(int(claimed.group(1)) if claimed else MAX_PIXELS + 1, where)
        raise PolyfaceError(f"{where}: is refused by Pillow's limit on size ({error})") from error
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, … on a damaged file.
        raise PolyfaceError(
            f"{where}: is truncated or corrupt ({short(error)}); fetch the file again or remove it"
        ) from error


def size_of(data: bytes | Path | str, where: str = "") -> tuple[int, int]:
    """(width, height) of what `decode` would return, from the file's header alone.

    Raises:
        PolyfaceError: missing, or not an image.
    """
    where = where or ("image" if isinstance(data, bytes) else str(data))
    try:
        with _quiet(), Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=_formats()) as image:
            width, height = image.size
            return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PolyfaceError(f"{where}: cannot be read as an image ({short(error)}); replace the file") from error


def encode_png(array: NDArray[np.uint8]) -> bytes:
    """PNG bytes (lossless) of a uint8 picture, grey ``[H, W]`` or RGB ``[H, W, 3]``.

    Raises:
        PolyfaceError: another dtype or shape.
    """
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise PolyfaceError(
            f"image array: expected uint8 of shape [H, W] or [H, W, 3], found {array.dtype} {list(array.shape)}"
        )
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(out, "PNG", compress_level=4)
    return out.getvalue()


def pixels_of(image: Image.Image, where: str = "image") -> NDArray[np.uint8]:
    """An open Pillow image's pixels as `decode` gives a file's: uint8 RGB ``[H, W, 3]``, turned as displayed.

    Raises:
        PolyfaceError: over 100 megapixels, or of pixels without a defined range. Pillow's own errors on a damaged file
            that was not loaded yet pass through.
    """
    _check_size(image.width * image.height, where)
    image.load()
    turn = _orientation(image)
    return np.ascontiguousarray(_turned(_rgb(image, where), turn))


def _check_size(pixels: int, where: str) -> None:
    if pixels > MAX_PIXELS:
        raise PolyfaceError(
            f"{where}: claims {pixels / 1e6:.0f} megapixels, more than the {MAX_PIXELS / 1e6:.0f} that are "
            "decoded; shrink it"
        )


def _rgb(image: Image.Image, where: str) -> NDArray[np.uint8]:
    """A loaded image's pixels as uint8 ``[H, W, 3]``, not yet turned."""
    if image.mode.startswith("I"):
        return _grey16(np.asarray(image), where)
    if image.mode == "F":
        raise PolyfaceError(f"{where}: has 32-bit float pixels, of no defined range; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _grey16(values: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """16-bit grey to 8 bits, rounded. Pillow holds such files as 16-bit or, some, as 32-bit integers."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise PolyfaceError(f"{where}: has integer pixels from {low} to {high}, beyond 16 bits; convert it to 8 bits")
    grey = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF raises as variously as damaged pixels; the picture itself is sound
        return 1


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation: 2 is mirrored, 3 turned by half, 4 both; 5…8 have rows and columns exchanged."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Those formats that this build of Pillow can read, and HEIF by an extra."""
    Image.init()
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """The endings of files that are decoded, in small letters (".jpg", ".jfif"), as the decoder itself lists them."""
    known = {*_formats(), "MPO"}  # of several JPEG pictures, which Pillow opens as JPEG
    return frozenset(ending for ending, name in Image.EXTENSION.items() if name in known)


def by_extra(ending: str) -> str:
    """What would have to be installed for files of an ending to be decoded, as the rest of a sentence; or nothing."""
    return _HEIF_EXTRA if ending in _HEIF_SUFFIXES and ending not in suffixes() else ""


_HEIF_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")
_HEIF_EXTRA = " (pip install 'polyface[heic]' reads them)"


_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_filter: Any = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings (odd EXIF, size, palette) while any thread is inside.

    ``warnings.catch_warnings`` is not safe with threads: of two that overlap, one restores the other's filters. So one
    filter, for Pillow's modules alone, is shared and counted.
    """
    global _quiet_users, _quiet_filter
    with _quiet_lock:
        if _quiet_users == 0:
            warnings.filterwarnings("ignore", module=r"PIL\b(?#polyface)")
            _quiet_filter = warnings.filters[0]
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            filters = cast("list[Any]", warnings.filters)
            if _quiet_users == 0 and _quiet_filter in filters:
                filters.remove(_quiet_filter)
