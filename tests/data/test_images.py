"""Decoding: every mode of file comes out as uint8 RGB, the right way up; every broken one as a line naming it."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from polyface.data.images import decode, encode_png
from polyface.errors import PolyfaceError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 4, 255 - x * 2], -1).astype(np.uint8)


def forged_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims `width` x `height`."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [str(w.message) for w in caught] == []


# ------------------------------------------------------------------------------------------- what comes out


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_png_round_trip_is_exact(height, width, seed):
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = decode(encode_png(array))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


def test_grey_array_becomes_three_equal_channels():
    grey = picture()[..., 0]
    np.testing.assert_array_equal(decode(encode_png(grey)), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_are_exact(kind):
    array = picture()
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(array), kind)), array)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000"])
def test_lossy_formats_are_near(kind):
    array = smooth()
    found = decode(encoded(Image.fromarray(array), kind, **({} if kind == "JPEG2000" else {"quality": 95})))
    assert found.shape == array.shape
    assert np.abs(found.astype(int) - array).mean() < 4


def test_grey_jpeg():
    grey = smooth()[..., 0]
    found = decode(encoded(Image.fromarray(grey), "JPEG", quality=100))
    assert found.shape == (*grey.shape, 3)
    assert np.abs(found[..., 1].astype(int) - grey).max() <= 2


def test_one_bit():
    array = np.eye(5, dtype=bool)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(array)))[..., 0], array * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind):
    values = np.array([[0, 128, 129, 257], [32768, 32896, 65406, 65535]], np.uint16)
    found = decode(encoded(Image.fromarray(values), kind))
    # value / 257, rounded: 128 / 257 = .498 -> 0; 129 / 257 = .502 -> 1; 32768 / 257 = 127.5019 -> 128
    np.testing.assert_array_equal(found[..., 0], [[0, 0, 1, 1], [128, 128, 254, 255]])
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_16_bit_pgm():
    values = np.array([[0, 257, 65535]], ">u2")
    found = decode(b"P5 3 1 65535\n" + values.tobytes())
    np.testing.assert_array_equal(found[0, :, 0], [0, 1, 255])


def test_16_bit_big_endian_tiff():
    image = Image.frombytes("I;16B", (3, 1), np.array([0, 25700, 65535], ">u2").tobytes())
    np.testing.assert_array_equal(decode(encoded(image, "TIFF"))[0, :, 0], [0, 100, 255])


def test_cmyk_jpeg():
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[:, :8, 1:3] = 255  # magenta and yellow ink: red
    cmyk[:, 8:, 3] = 255  # black ink
    found = decode(encoded(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=100))
    assert np.abs(found[4, 2].astype(int) - [255, 0, 0]).max() < 12
    assert found[4, 13].max() < 12


def test_palette():
    image = Image.fromarray(smooth()).quantize(16)
    np.testing.assert_array_equal(decode(encoded(image)), np.array(image.convert("RGB")))


def test_palette_transparency_is_laid_on_white():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    image.putdata([0, 1, 2])
    whole = decode(encoded(image, transparency=1))
    np.testing.assert_array_equal(whole[0], [[10, 20, 30], [255, 255, 255], [0, 0, 0]])
    partial = decode(encoded(image, transparency=bytes([255, 255, 51])))  # black at 20 % opacity
    np.testing.assert_array_equal(partial[0], [[10, 20, 30], [200, 100, 50], [204, 204, 204]])


def test_gif_takes_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    found = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(found, np.broadcast_to([255, 0, 0], (4, 4, 3)))


def test_alpha_is_laid_on_white():
    rgba = np.array([[[100, 0, 0, 255], [100, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(rgba)))[0], [[100, 0, 0], [255] * 3, [204] * 3])
    la = np.array([[[7, 255], [7, 0]]], np.uint8)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(la, "LA")))[0], [[7] * 3, [255] * 3])


def test_colour_key_transparency_is_laid_on_white():
    array = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    found = decode(encoded(Image.fromarray(array), transparency=(4, 5, 6)))
    np.testing.assert_array_equal(found[0], [[1, 2, 3], [255, 255, 255]])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    image = Image.fromarray(smooth())
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, kind, exif=exif, **({"quality": 100} if kind in ("JPEG", "WEBP") else {}))
    image.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(image))
    found = decode(data)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 5


def test_damaged_exif_does_not_cost_the_picture():
    data = encoded(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode(data).shape == (48, 64, 3)


def test_path_and_string_and_bytes_agree(tmp_path: Path):
    file = tmp_path / "a.png"
    file.write_bytes(encode_png(picture()))
    for data in (file, str(file), file.read_bytes()):
        np.testing.assert_array_equal(decode(data), picture())


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "is empty (0 bytes)"),
        (b"<html>404</html>", "is not an image that Polyface reads"),
        (encode_png(picture())[:-30], "is truncated or corrupt"),
        (encoded(Image.fromarray(smooth()), "JPEG")[:-200], "is truncated or corrupt"),
        (encoded(Image.fromarray(smooth()), "JPEG")[:3], "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is not an image"),
        (encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "has 32-bit float pixels"),
        (encoded(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF"), "from 70000 to 70000, beyond 16 bits"),
        (forged_png(20_000, 20_000), "claims 400 megapixels"),
        (forged_png(10_001, 10_000), "claims 100 megapixels, more than the 100"),
        (forged_png(9_500, 10_000), "is truncated or corrupt"),  # Pillow alone would warn here
    ],
)
def test_refusals_name_the_place(data, reason):
    with pytest.raises(PolyfaceError) as caught:
        decode(data, "list.txt:7 (a.jpg)")
    assert str(caught.value).startswith("list.txt:7 (a.jpg): ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lower_limit_of_pillow_is_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(PolyfaceError, match=r"a\.png: is refused by Pillow's limit on size"):
        decode(encode_png(picture()), "a.png")


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(PolyfaceError, match=r"gone\.png: cannot be read \(No such file"):
        decode(tmp_path / "gone.png")
    with pytest.raises(PolyfaceError, match="cannot be read"):
        decode(tmp_path)


def test_bytes_without_a_name():
    with pytest.raises(PolyfaceError, match="^image: is empty"):
        decode(b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
def test_damage_anywhere_is_a_picture_or_a_polyface_error(kind):
    data = encoded(Image.fromarray(smooth(12, 16)), kind)
    random = np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(data[: random.integers(1, len(data) + 1)])
        for at in random.integers(0, len(broken), 3):
            broken[at] = random.integers(0, 256)
        try:
            found = decode(bytes(broken), "x")
        except PolyfaceError as error:
            assert str(error).startswith("x: ")  # noqa: PT017
        else:
            assert found.ndim == 3
            assert found.shape[2] == 3


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8), np.zeros(3, np.uint8)]
)
def test_encode_png_refuses_what_is_no_picture(array):
    with pytest.raises(PolyfaceError, match=r"expected uint8 of shape \[H, W\] or \[H, W, 3\], found"):
        encode_png(array)


def test_threads_leave_the_warning_filters_as_they_were():
    before = list(warnings.filters)
    warned = encoded(Image.new("P", (64, 64)), transparency=bytes([0, 128]))  # Pillow warns of such a palette
    threads = [threading.Thread(target=lambda: [decode(warned) for _ in range(30)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
