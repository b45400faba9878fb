"""Decoding: every mode of file comes out as uint8 RGB, the right way up; every broken one as a line naming it."""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngImageFile

from polyface.data.images import decode, encode_png, pixels_of, size_of
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
def test_16_bit_grey_is_scaled(kind):
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


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 1, 2, 3, 4, 4]], np.uint16),  # a sensor of few bits
        np.array([[28000, 28100, 28200, 28300, 28400, 28400]], np.uint16),  # a thermal camera's counts
        np.array([[-200, -100, 0, 100, 200, 200]], np.int32) * 10**6,
        np.array([[-1.0, -0.5, 0, 0.5, 1, 1]], np.float32),
        np.array([[36.5, 36.625, 36.75, 36.875, 37, 37]], np.float32),  # degrees
    ],
)
def test_grey_of_more_than_8_bits_is_shown_from_its_darkest_to_its_brightest(values):
    found = decode(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(found[0, :, 0], [0, 64, 128, 191, 255, 255])  # 255 / 4 = 63.75 a step
    assert (found == found[..., :1]).all()


def test_dead_pixels_do_not_set_the_range():
    values = np.arange(2000, dtype=np.uint16).reshape(40, 50) % 500 + 1000
    values[0, 0], values[0, 1] = 65535, 0  # a thousandth of 2,000 at either end is two
    found = decode(encoded(Image.fromarray(values), "TIFF"))[..., 0]
    assert (found[0, 0], found[0, 1]) == (255, 0)
    wanted = np.clip((values.astype(float) - 1000) * 255 / 499, 0, 255)
    assert np.abs(found.astype(float) - wanted).max() < 1.5


def test_what_was_not_measured_is_black_and_sets_no_range():
    values = np.array([[np.nan, np.inf, -np.inf, 10, 20]], np.float32)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), "TIFF"))[0, :, 0], [0, 0, 0, 0, 255])
    nothing = np.full((2, 2), np.nan, np.float32)
    assert (decode(encoded(Image.fromarray(nothing), "TIFF")) == 0).all()


@pytest.mark.parametrize("level", [0, 70000])
def test_a_picture_of_one_value_is_black(level):
    assert (decode(encoded(Image.fromarray(np.full((2, 2), level, np.int32)), "TIFF")) == 0).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colours_become_rgb(mode):
    image = Image.new("LAB", (3, 3), (90, 120, 140)) if mode == "LAB" else Image.fromarray(smooth()).convert(mode)
    np.testing.assert_array_equal(decode(encoded(image, "TIFF")), np.array(image.convert("RGB")))


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
    assert size_of(data) == found.shape[1::-1]
    assert np.abs(found.astype(int) - expected).mean() < 5


def test_exif_behind_the_pixels_of_a_png_counts_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(smooth()), exif=exif)
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    pixels, end = data.replace(chunk, b"").rsplit(data[-12:], 1)[0], data[-12:]
    late = pixels + chunk + end
    assert late.index(b"IDAT") < late.index(b"eXIf")
    assert size_of(late) == decode(late).shape[1::-1] == (48, 64)


def test_the_size_of_a_png_costs_none_of_its_pixels(monkeypatch, tmp_path: Path):
    data = encoded(Image.fromarray(smooth()))
    (tmp_path / "a.png").write_bytes(data)
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("it is decoded"))
    assert size_of(data) == size_of(tmp_path / "a.png") == (64, 48)


def test_damaged_exif_does_not_cost_the_picture():
    data = encoded(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode(data).shape == (48, 64, 3)


def test_path_and_string_and_bytes_agree(tmp_path: Path):
    file = tmp_path / "a.png"
    file.write_bytes(encode_png(picture()))
    for data in (file, str(file), file.read_bytes()):
        np.testing.assert_array_equal(decode(data), picture())


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_it_is_told_that_one_of_several_pictures_is_taken(kind):
    one, two = (Image.fromarray(smooth() // part) for part in (1, 2))
    told = []
    found = decode(encoded(one, kind, save_all=True, append_images=[two]), "a.x", told.append)
    assert told == ["a.x: holds several pictures, frames or pages; the first is taken"]
    assert np.abs(found.astype(int) - decode(encoded(one, kind), "b.x", told.append)).mean() < 4
    assert len(told) == 1


def test_a_damaged_second_frame_does_not_cost_the_first():
    frames = [Image.fromarray(smooth() // part) for part in (1, 2)]
    whole = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    second = whole.rindex(b",\0\0\0\0")
    for end in range(second, second + 20):
        np.testing.assert_array_equal(decode(whole[:end], "x", lambda _: None), decode(whole))


def test_the_second_picture_of_a_phone_is_not_worth_a_word():
    one, two = (Image.fromarray(smooth() // part) for part in (1, 2))
    told = []
    decode(encoded(one, "MPO", save_all=True, append_images=[two]), "a.mpo", told.append)
    assert told == []


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


def test_a_pipe_is_not_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "a.jpg")
    for read in (decode, size_of):
        with pytest.raises(PolyfaceError, match=r"a\.jpg: not a regular file"):
            read(tmp_path / "a.jpg")


def liar(kind: str, width: int, height: int, **options: object) -> bytes:
    """A picture of 64×64 whose header claims another size."""
    image = Image.fromarray(picture(64, 64))
    data = bytearray(encoded(image, kind, **options))
    if kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "JPEG2000":
        for mark, size in ((b"ihdr", 4), (b"\xff\x51", 6), (b"\xff\x51", 22)):  # of the file, the grid, the tile
            at = data.find(mark) + size
            data[at : at + 8] = struct.pack(">II", height, width)
    elif kind == "AVIF":
        at = data.find(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", width, height)
    else:
        at = re.search(b"\xff[\xc0-\xc2]", data).start() + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


LIARS = [("JPEG", {}), ("JPEG", {"progressive": True}), ("MPO", {}), ("GIF", {}), ("JPEG2000", {}), ("AVIF", {})]


@pytest.mark.parametrize("kind, options", LIARS)
def test_a_file_that_cannot_hold_its_pixels_is_refused_before_they_take_memory(kind, options, monkeypatch):
    data = liar(kind, 9990, 9990, **options)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("was decoded"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("was decoded"))
    for film in (b"", b"\0" * 4000):
        with pytest.raises(PolyfaceError, match=r"^x: is truncated or corrupt \(claims 9990×9990 pixels"):
            decode(data + film, "x")


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF"])
def test_a_flat_picture_is_decoded_however_few_bytes_it_takes(kind):
    data = encoded(Image.new("RGB", (2400, 1800), "white"), kind)
    assert len(data) < 1200
    assert (decode(data) > 250).all()


@pytest.mark.parametrize("kind, options", LIARS)
def test_an_open_pillow_image_is_no_way_around(kind, options, tmp_path: Path):
    (tmp_path / "a").write_bytes(liar(kind, 9000, 9000, **options))
    with Image.open(tmp_path / "a") as image, pytest.raises(PolyfaceError, match="is truncated or corrupt"):
        pixels_of(image)


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "GIF", "PNG"])
def test_an_open_pillow_image_is_left_where_it_is(kind, tmp_path: Path):
    frames = [Image.fromarray(smooth() // part) for part in (1, 2)]
    many = {} if kind == "JPEG" else {"save_all": True, "append_images": frames[1:]}
    (tmp_path / "a").write_bytes(encoded(frames[0], kind, **many))
    with Image.open(tmp_path / "a") as image:
        for number in range(2 if many else 1):
            image.seek(number)
            wanted = np.array(image.copy().convert("RGB"))
            np.testing.assert_array_equal(pixels_of(image), wanted)
            np.testing.assert_array_equal(pixels_of(image), wanted)  # decoded by now


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "GIF", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_large_pictures_of_one_colour_are_read(kind, mode):
    image = Image.new(mode, (1001, 749), 128 if mode == "L" else (90, 120, 200))
    tightest = {"JPEG": {"optimize": True, "progressive": True, "quality": 10}}
    tightest |= {"TIFF": {"compression": "tiff_lzw"}, "WEBP": {"lossless": True}}
    for options in ({}, tightest.get(kind, {"optimize": True})):
        found = decode(encoded(image, kind, **options))
        assert found.shape == (749, 1001, 3)
        assert np.ptp(found.reshape(-1, 3).astype(int), axis=0).max() <= 4


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def scans(count: int, side: int = 64) -> bytes:
    """A progressive grey JPEG whose first scan is followed by `count` that add nothing to any block."""
    blocks = (side // 8) ** 2
    out = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([16] * 64))
    out += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    for table, symbol in ((0, 0), (1, 0)):  # one code each: no difference; the end of a block
        out += segment(0xC4, bytes([table << 4, 1, *[0] * 15, symbol]))
    coded = bytes(blocks // 8)
    out += segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + coded
    return out + (segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + coded) * count + b"\xff\xd9"


def test_a_jpeg_of_a_hundred_scans_is_read_and_of_more_refused():
    assert decode(scans(99)).shape == (64, 64, 3)
    with pytest.raises(PolyfaceError, match=r"^x: is a JPEG of 101 scans, more than the 100 that are decoded"):
        decode(scans(100), "x")


def test_scans_are_counted_up_to_the_end_of_the_picture():
    film = b"\xff\xda\0\x02" * 500
    assert decode(scans(9) + film).shape == (64, 64, 3)
    hidden = scans(9)[:-2] + segment(0xFE, b"\xff\xd9") + scans(500)[scans(500).index(b"\xff\xda") :]
    with pytest.raises(PolyfaceError, match=r"JPEG of \d+ scans"):
        decode(hidden)


def test_many_scans_cost_no_time():
    data = scans(5_000, 256)
    start = time.perf_counter()
    with pytest.raises(PolyfaceError, match="JPEG of 5,001 scans"):
        decode(data)
    assert time.perf_counter() - start < 1  # decoded, they take several seconds


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
