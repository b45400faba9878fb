"""Encoded images to arrays and back: the one place where Polyface decodes a picture.

Whatever a file holds, out comes uint8 RGB ``[H, W, 3]``, the right way up, or a :class:`PolyfaceError` that names the
file. Colour profiles are not applied; of an animation the first frame is taken. Grey of more than 8 bits (infrared,
thermal, medical) is shown from its own darkest to its own brightest value, whatever these are (:func:`_eight_bits`).
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from polyface.errors import PolyfaceError, one_line, short
from polyface.files import check_regular, read_bytes
from polyface.forks import after_fork

__all__ = ["MAX_PIXELS", "by_extra", "decode", "encode_png", "log", "pixels_of", "size_of", "suffixes"]

_log = logging.getLogger(__name__)

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a few hundred bytes can claim to be any size."""

# Not EPS, whose reader runs Ghostscript, nor the many formats that no face data set comes in.
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_ORIENTATION = 0x0112  # EXIF tag; values 1…8


def decode(data: bytes | Path | str, where: str = "", tell: Callable[[str], object] | None = None) -> NDArray[np.uint8]:
    """Decode an image file, or the bytes of one.

    EXIF orientation is applied. Transparency is laid on white, the page on which cut-out pictures are shown. Grey,
    1-bit, palette and CMYK become RGB. Grey of 16 or 32 bits, whole numbers or floats, is scaled by its own range; of
    colours of 16 bits the decoder keeps the upper 8.

    Args:
        data: a file's path, or encoded bytes.
        where: what to call the image in an error; by default the path, or "image".
        tell: called with a line where the file holds several pictures (an animation, pages), of which one is taken.

    Returns:
        uint8 RGB ``[H, W, 3]``, writable, C-contiguous.

    Raises:
        PolyfaceError: missing, no regular file, empty, truncated, corrupt or not an image; over 100 megapixels; or a
            JPEG of more than 100 scans.
    """
    where = where or ("image" if isinstance(data, bytes) else str(data))
    if not isinstance(data, bytes):
        data = read_bytes(data, where)
    if not data:
        raise PolyfaceError(f"{where}: is empty (0 bytes); fetch the file again")
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=_formats()) as image:
            pixels = pixels_of(image, where)
            if tell and _several(image):
                tell(f"{where}: holds several pictures, frames or pages; the first is taken")
            return pixels
    except PolyfaceError:
        raise
    except UnidentifiedImageError as error:
        extra = _HEIF_EXTRA if data[4:8] == b"ftyp" and "HEIF" not in _formats() else ""
        raise PolyfaceError(
            f"{where}: is not an image that Polyface reads (JPEG, PNG, WebP, TIFF, BMP, GIF, PPM and the like){extra}; "
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


def log(line: str) -> None:
    """A line of the log, for `decode` to tell what it has to tell."""
    _log.warning("%s", one_line(line))


def size_of(data: bytes | Path | str, where: str = "") -> tuple[int, int]:
    """(width, height) of what `decode` would return, without decoding it.

    Raises:
        PolyfaceError: missing, or not an image.
    """
    where = where or ("image" if isinstance(data, bytes) else str(data))
    try:
        check_regular("" if isinstance(data, bytes) else data, where)
        with _quiet(), Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=_formats()) as image:
            tags = getattr(image, "tag_v2", None)  # a TIFF's, as some versions of Pillow turn its size and some do not
            width, height = (tags[256], tags[257]) if tags else image.size
            turned = (image.format != "PNG" or _holds_exif(data, where)) and _orientation(image) in (5, 6, 7, 8)
            return (height, width) if turned else (width, height)
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
        PolyfaceError: over 100 megapixels. Pillow's own errors on a damaged file that was not loaded yet pass through.
    """
    _check_size(image.width * image.height, where)
    _check_content(image, where)
    image.load()
    turn = _orientation(image)
    return np.ascontiguousarray(_turned(_rgb(image), turn))


def _several(image: Image.Image) -> bool:
    """Whether a file holds pictures beside the one that was read. Those beside a JPEG's (MPO) are no more to be seen in
    it: another eye's view, or what a bright screen adds."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # the next frame is damaged, as variously as the first may be
        return True


def _check_size(pixels: int, where: str) -> None:
    if pixels > MAX_PIXELS:
        raise PolyfaceError(
            f"{where}: claims {pixels / 1e6:.0f} megapixels, more than the {MAX_PIXELS / 1e6:.0f} that are "
            "decoded; shrink it"
        )


def _check_content(image: Image.Image, where: str) -> None:
    """Refuse a file that cannot hold the picture its header claims, where the decoder would fill up the rest with grey
    and say nothing; and one that is made to keep it busy. Nothing is decoded yet."""
    file = getattr(image, "fp", None)
    if file is None or image.format not in ("JPEG", "MPO", "GIF", *_FILLED_UP):
        return  # decoded already, never a file, or of a format whose decoder tells
    at = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(at)
    most = float("inf")
    if image.format in ("JPEG", "MPO"):
        frame, scans, size = _scans(data)
        if scans > _MOST_SCANS:
            raise PolyfaceError(f"{where}: is a JPEG of {scans:,} scans, more than the {_MOST_SCANS} that are decoded")
        most = size * _JPEG_PIXELS.get(frame, most)
    elif image.format == "GIF":
        most = len(data) * _GIF_PIXELS
    else:
        most = max(_CHEAP, len(data) * _PHOTO_PIXELS)
    if image.width * image.height > most:
        raise PolyfaceError(
            f"{where}: is truncated or corrupt (claims {image.width}×{image.height} pixels and cannot hold more than "
            f"{most:,.0f}); fetch the file again or remove it"
        )


_MOST_SCANS = 100  # a progressive JPEG has about ten, and a decoder goes over the whole picture for each
# Pixels that a byte stands for at most. JPEG: a block of 8×8 takes a bit or more for its mean, and in a picture that is
# not progressive (C0, C1) another for the rest; with arithmetic coding (from C9 on) there is no such bound. GIF: a code
# of 12 bits stands for 4096 pixels at most.
_JPEG_PIXELS = {0xC0: 256, 0xC1: 256, 0xC2: 512}
_GIF_PIXELS = 4096 * 8 // 12 + 1
# In these a byte may stand for any number of pixels of one colour, and their decoders take 15 to 20 bytes for a pixel.
# A photo at the lowest quality has 1000 pixels a byte; small pictures cost little and are decoded whatever they hold.
_FILLED_UP, _PHOTO_PIXELS, _CHEAP = ("AVIF", "HEIF", "JPEG2000"), 2048, 1 << 24


def _scans(data: bytes) -> tuple[int, int, int]:
    """A JPEG's kind (the marker of its frame, C0 to CF), how many scans it has, and the bytes that are left for them.

    Scans of a picture that is not progressive are not counted: each takes bytes for every block, which bounds them.
    """
    segments = _segments(data)
    frame, scans, start = 0, 1, len(data)
    for marker, end in segments:
        if marker == _SCAN:
            start = end
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # those are tables
            frame = frame or marker
    if frame not in (0xC0, 0xC1) and data.count(bytes([0xFF, _SCAN]), start) >= _MOST_SCANS:
        scans += sum(marker == _SCAN for marker, _ in segments)  # without bytes of a film behind the picture
    return frame, scans, len(data) - start


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and end of every segment of a JPEG, until its end. What a scan codes lies behind its segment."""
    at = 2
    while (found := _MARKER.search(data, at)) and found[1][0] != _END:
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2]))
        yield found[1][0], at


_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xd9-\xfe])")  # neither a byte of a scan (FF00) nor a restart in it


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """A loaded image's pixels as uint8 ``[H, W, 3]``, not yet turned."""
    if image.mode.startswith(("I", "F")):
        return np.repeat(_eight_bits(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey ``[H, W]`` of more than 8 bits as 8: the picture's darkest value becomes 0, its brightest 255.

    What such a number means differs from camera to camera (12 or 14 bits in 16, degrees, counts), so the picture's own
    range is taken. A thousandth of the pixels at either end is cut off first: dead pixels must not set the range. NaN
    and infinity, where nothing was measured, become 0, and so does a picture of one value.
    """
    exact = np.float32 if values.dtype.itemsize == 2 else np.float64  # each holds every value
    shown: NDArray[np.float64] = values.astype(exact)
    finite = np.isfinite(shown)
    measured = shown[finite]
    if not measured.size:
        return np.zeros(values.shape, np.uint8)
    cut = measured.size // 1000
    ends = [cut, measured.size - 1 - cut]
    low, high = np.partition(measured, ends)[ends]
    shown[~finite] = low
    np.clip(shown, low, high, out=shown)
    shown -= low
    shown *= 255
    shown /= (high - low) or 1
    shown += 0.5
    return shown.astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF raises as variously as damaged pixels; the picture itself is sound
        return 1


def _holds_exif(png: bytes | Path | str, where: str) -> bool:
    """Whether a PNG may hold EXIF: Pillow would decode all of it to see whether one stands after the pixels."""
    content = png if isinstance(png, bytes) else read_bytes(png, where)
    return b"eXIf" in content or b"Raw profile type exif" in content


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


@after_fork
def _fresh_lock() -> None:
    global _quiet_lock
    _quiet_lock = threading.Lock()  # a thread that was not copied may hold the other


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
