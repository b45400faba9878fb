"""Extended Yale B, cropped: 38 people under 64 lights (Georghiades et al. 2001; Lee, Ho & Kriegman 2005)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyface.data.readers._labelled import LIGHT_FROM, trained_on
from polyface.data.readers.common import Images, demand
from polyface.data.writing import Plan, Record, Skipped
from polyface.schema import Column

_NAME = re.compile(r"yaleB(\d\d)/yaleB(\d\d)_P00(A([+-]\d{3})E([+-]\d\d))\.\w+")
_FRONT = 10  # degrees, up to which the two halves of the mean face differ by less than a third in brightness
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class YaleB:
    """The Extended Yale Face Database B, the cropped frontal faces.

    Layout: ``CroppedYale/yaleB01/yaleB01_P00A+035E+15.pgm``: person 01 to 39 (14 is absent), pose 00, and the azimuth
    and elevation of the light in degrees. The 18 pictures that the authors call bad end in ``.bad`` and are passed
    over; so are ``…_Ambient.pgm``, without any flash, which are nearly black. Lines of the log count both.

    Labels: ``identity`` ("yaleb-01"); ``yaw`` (0); ``illumination``, the light as the file name has it ("A+035E+15");
    ``source`` (yaleb), ``modality`` (photo). Columns of its own: ``light_azimuth`` in degrees, positive where the light
    comes from the viewer's right, the opposite of the file name's sign; ``light_elevation``, positive from above;
    ``light_from`` (left, front, right), front up to 10 degrees.

    Split: a tenth of the faces, by whole people, is val and the rest train.

    Licence: free for research. Source: http://vision.ucsd.edu/~leekc/ExtYaleDatabase/ExtYaleB.html
    """

    name = "yaleb"
    verified = True
    about = "Extended Yale B: 2,414 cropped faces of 38 people under 64 lights (Lee et al. 2005)"
    layout = (
        "the folder CroppedYale of folders yaleB01 to yaleB39 with images yaleB01_P00A+035E+15.pgm; obtain it from "
        "http://vision.ucsd.edu/~leekc/ExtYaleDatabase/ExtYaleB.html"
    )

    def plan(self, root: Path) -> Plan:
        """The columns of its own."""
        return Plan(
            {
                "light_azimuth": Column("number", mirror="negate", unit="degrees"),
                "light_elevation": Column("number", mirror="none", unit="degrees"),
                "light_from": LIGHT_FROM,
            }
        )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face an image, by path; `root` is the folder of ``CroppedYale``, or is it.

        Raises:
            PolyfaceError: the folder is missing, or holds no image.
        """
        root = demand(Path(root), self)
        images = Images(root / "CroppedYale" if (root / "CroppedYale").is_dir() else root, 2, self)
        lit = [path for path in images.paths if not Path(path).stem.endswith("_Ambient")]
        if dark := len(images.paths) - len(lit):
            _log.warning("%s: left out %d pictures without a flash (_Ambient)", images.folder, dark)
        yield from trained_on(_face(images.folder, path) for path in lit)


def _face(folder: Path, path: str) -> Record | Skipped:
    named = _NAME.fullmatch(path)
    if not named or named[1] != named[2]:
        return Skipped(path, "expected yaleBNN/yaleBNN_P00A+000E+00.pgm as its name, of one person NN")
    person, light, azimuth, elevation = named[1], named[3], int(named[4]), int(named[5])
    if abs(azimuth) > 180 or abs(elevation) > 90:
        return Skipped(path, f"light {light}: expected an azimuth to 180 and an elevation to 90 degrees")
    labels = {
        "source": "yaleb",
        "modality": "photo",
        "identity": f"yaleb-{person}",
        "yaw": 0.0,
        "illumination": light,
        "light_azimuth": -azimuth,
        "light_elevation": elevation,
        "light_from": "front" if abs(azimuth) <= _FRONT else "left" if azimuth > 0 else "right",
    }
    return Record(image=folder / path, where=path, path=path, labels=labels)
