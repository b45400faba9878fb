"""Heat maps laid over pictures, and sheets of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from polyface.errors import PolyfaceError
from polyface.report.faces import Picture, as_image, contact_sheet

_BRIGHTEST = 99.5  # the percentile of a map that is drawn as its largest: single pixels must not hide all others
_UNDER = 0.35  # how much of the picture is seen where the map is 0


def overlay(picture: Picture, heat: ArrayLike) -> Image.Image:
    """A picture in grey with a map [H, W], 0 or more, of its size laid over it: dark where there is nothing, then
    violet, orange and yellow."""
    from matplotlib import colormaps

    grey, values = np.asarray(as_image(picture).convert("L"), dtype=np.float64) / 255, np.asarray(heat, np.float64)
    if values.shape != grey.shape:
        raise PolyfaceError(f"a map {list(values.shape)} does not fit its picture {list(grey.shape)}")
    some = values[values > 0]
    scaled = np.clip(values / np.percentile(some, _BRIGHTEST), 0, 1) if some.size else values
    colour = colormaps["inferno"](scaled)[..., :3]
    share = _UNDER + (1 - _UNDER) * scaled[..., None]
    mixed = share * colour + (1 - share) * grey[..., None]
    return Image.fromarray(np.round(255 * mixed).astype(np.uint8))


def heat_sheet(
    picture: Picture, maps: Mapping[tuple[str, str], ArrayLike], titles: Mapping[str, str], cell: int = 240
) -> Image.Image:
    """A face and its maps {(what is explained, method): [H, W]}: a row for each that is explained and a column a
    method; of a single method all in one row. titles: of the methods, in captions."""
    asked, methods = (list(dict.fromkeys(key[place] for key in maps)) for place in (0, 1))
    pictures: list[Picture] = []
    captions: list[str] = []
    for number, told in enumerate(asked):
        if number == 0 or len(methods) > 1:
            pictures.append(picture)
            captions.append("")
        for method in methods:
            pictures.append(overlay(picture, maps[told, method]))
            captions.append(f"{told}\n{titles[method]}")
    return contact_sheet(pictures, captions, columns=_columns(asked, methods), cell=cell)


def _columns(asked: Sequence[str], methods: Sequence[str]) -> int:
    return 1 + (len(methods) if len(methods) > 1 else len(asked))
