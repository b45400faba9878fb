"""LFW-identity: 20 faces of each of 50 people, as OpenFace tells them apart (Amos et al., CMU-CS-16-118, 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyface.data.readers._lfw_draws import (
    DRAWS,
    IMAGES,
    PEOPLE,
    digest,
    identity_parts,
    most_pictured,
    person,
)
from polyface.data.readers.common import check_draw, lacking
from polyface.data.readers.lfw import LFW, genders_of, images_of
from polyface.data.writing import Plan, Record
from polyface.schema import built_in


@dataclass(frozen=True)
class LFWIdentity:
    """A part of Labeled Faces in the Wild to tell 50 people apart: OpenFace's classification experiment.

    Layout: that of LFW, of which the images alone are needed.

    Labels: ``identity``, the name of the person's folder: the 50 people with the most images. 48 people have more than
    22, and five have 22, of whom two are taken, by name: George Robertson and Hamid Karzai. Of each person it is the
    first 20 images, by name. ``gender`` as :class:`lfw.LFW` has it, ``source`` (lfw-identity), ``modality`` (photo).

    Split, by the option ``draw``, 0 to 9: a tenth of the 1,000 faces is test, in the ten draws of OpenFace's code
    (scikit-learn's ``ShuffleSplit``, seed 0). They are not stratified: a person has none to seven test faces. Of the
    other 900, the tenth whose paths have the smallest SHA-1 is val. The test faces of a draw are in no part of
    ``lfw-gender`` with the same draw.

    Licence: none is stated; for research. Source: http://vis-www.cs.umass.edu/lfw/ (images), and
    https://github.com/cmusatyalab/openface, ``evaluation/lfw-classification.py`` (the experiment)
    """

    draw: int | str = 0

    name = "lfw-identity"
    folder = "lfw"
    verified = True
    about = "LFW-identity: 20 faces of LFW of each of 50 people, ten splits (Amos et al. 2016)"
    layout = LFW.layout

    def plan(self, root: Path) -> Plan:
        """The people's column, with the hash of the list of images, which tells whether two folders gave the same."""
        said = f"SHA-1 of the list {digest(self._chosen(Path(root))[1])}"
        return Plan({"identity": built_in("identity")}, hints={"identity": said})

    def records(self, root: Path) -> Iterator[Record]:
        """One face an image, people with the most images first; `root` is the folder of LFW.

        Raises:
            PolyfaceError: the images are missing, there are no 50 people with 20 of them, or ``draw`` is no number from
                0 to 9.
        """
        draw = check_draw(self, self.draw, DRAWS)
        folder, chosen = self._chosen(Path(root))
        parts, genders = identity_parts(chosen, draw), genders_of(Path(root))
        for path in chosen:
            labels = {"identity": person(path), "gender": genders.get(path.partition("/")[2]), "split": parts[path]}
            yield Record(folder / path, path, path, {"source": self.name, "modality": "photo"} | labels)

    def _chosen(self, root: Path) -> tuple[Path, list[str]]:
        """The folder of the images, and which of them there are to tell apart."""
        images = images_of(root, self)
        chosen = most_pictured(images.paths)
        if len(chosen) < PEOPLE * IMAGES:
            raise lacking(images.folder, f"not {PEOPLE} people with {IMAGES} images", self)
        return images.folder, chosen
