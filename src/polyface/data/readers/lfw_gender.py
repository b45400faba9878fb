"""LFW-gender: as many men's as women's faces of LFW, of which no person is in two parts (Jalal & Tariq, 2017)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyface.data.readers._lfw_draws import DRAWS, balanced, digest, gender_parts, most_pictured, person
from polyface.data.readers.common import Images, check_draw, demand
from polyface.data.readers.lfw import GENDER_LISTS, gender_lists, genders_of, images_of
from polyface.data.writing import Plan, Record
from polyface.schema import built_in

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LFWGender:
    """A part of Labeled Faces in the Wild to tell men from women: 2,905 faces of each.

    Layout: that of LFW: the images, and beside them ``male_names.txt`` and ``female_names.txt`` with an image's name a
    line. Images in both lists or in neither are left out, and a line of the log counts them.

    Labels: ``gender``, ``identity`` (the name of the person's folder), ``source`` (lfw-gender), ``modality`` (photo).
    Of each gender the 2,905 faces are those whose paths have the smallest SHA-1; which faces the paper took is not
    known. (There are 2,961 of women.)

    Split, by the option ``draw``, 0 to 9: test is whole people, in an order that the draw shuffles, until it has a
    fifth of each gender (581 faces); val is the tenth of the others, by whole people, whose names have the smallest
    SHA-1. The 50 people of ``lfw-identity`` are never test here, and its test faces of the same draw are in no part, so
    that two networks that learn from one draw see no test face of each other.

    Licence: none is stated; for research. Source: http://vis-www.cs.umass.edu/lfw/
    """

    draw: int | str = 0

    name = "lfw-gender"
    folder = "lfw"
    verified = True
    about = "LFW-gender: 2,905 faces of men and 2,905 of women in LFW, no person in two parts, ten splits"
    layout = (
        "male_names.txt and female_names.txt beside the folder lfw-deepfunneled (or lfw_funneled, lfw) of images "
        "<name>/<name>_0001.jpg; obtain them from http://vis-www.cs.umass.edu/lfw/"
    )

    def plan(self, root: Path) -> Plan:
        """The gender's column, with the hash of the list of images, which tells whether two folders gave the same."""
        said = f"SHA-1 of the list {digest(self._faces(Path(root))[1])}"
        return Plan({"gender": built_in("gender")}, hints={"gender": said})

    def records(self, root: Path) -> Iterator[Record]:
        """One face an image, by path; `root` is the folder of the lists.

        Raises:
            PolyfaceError: the images or a list of names is missing, or ``draw`` is no number from 0 to 9.
        """
        draw = check_draw(self, self.draw, DRAWS)
        images, faces = self._faces(Path(root))
        named = Counter(name for names in gender_lists(Path(root)).values() for name in names)
        times = Counter(named[path.partition("/")[2]] for path in images.paths)
        if times[0] or times[2]:
            what = "%s: left out %d images that both %s name, and %d that neither does"
            _log.warning(what, root, times[2], " and ".join(GENDER_LISTS.values()), times[0])
        parts = gender_parts(faces, most_pictured(images.paths), draw)
        for path in sorted(faces):
            labels = {"gender": faces[path], "identity": person(path), "split": parts.get(path)}
            yield Record(images.folder / path, path, path, {"source": self.name, "modality": "photo"} | labels)

    def _faces(self, root: Path) -> tuple[Images, dict[str, str]]:
        """All images, and the gender of those that are taken."""
        images = images_of(root, self)
        for name in GENDER_LISTS.values():
            demand(root / name, self)
        genders = genders_of(root)
        known = {path: genders[name] for path in images.paths if (name := path.partition("/")[2]) in genders}
        return images, balanced(known)
