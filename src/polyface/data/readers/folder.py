"""Images in a folder, with or without a folder for each person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyface.data.folders import look
from polyface.data.readers.common import demand, lacking
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError, utf8
from polyface.schema import VOCABULARIES, person


@dataclass(frozen=True)
class Folder:
    """Every image of a tree of folders; one folder a person gives `identity`.

    Layout: any tree; folders that are linked are followed, each once. Hidden files and folders, and files that do not
    end as an image does, are passed over, and counted in a line of the log. A folder that cannot be opened is skipped.

    Labels: ``identity``, the name of the folder (composed as Unicode's NFC, no blanks around it), where images lie as
    ``<person>/<image>``. With ``people=None`` that is taken to be so when *every* image lies exactly one folder deep,
    in two folders or more, none of which is named after a part (train, val, test, …) or ``images``; True and False
    decide it. With True, an image of any other depth has no identity. Nothing else is labelled.

    Licence and source: those of the images.
    """

    people: bool | None = None

    name = "folder"
    verified = True
    about = "images in a tree of folders; <person>/<image> gives identity"
    layout = "a folder of images (.jpg, .png, …), or one folder of images for each person"

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face an image, by path.

        Raises:
            PolyfaceError: `root` is missing, is not a folder or holds no image.
        """
        root = demand(Path(root), self)
        if not root.is_dir():
            raise lacking(root, "not a folder", self)
        held = look(root).tell()
        for inner, reason in held.closed.items():
            yield Skipped((root / inner).as_posix(), f"this folder cannot be opened ({reason})")
        if not held.files:
            raise lacking(root, "no image", self)
        people = _one_a_person(held.files) if self.people is None else self.people
        for name in held.files:
            path = utf8(name.as_posix())
            try:
                labels = {"identity": person(name.parts[0])} if people and len(name.parts) == 2 else {}
            except PolyfaceError as error:
                yield Skipped(path, str(error))
            else:
                yield Record(image=root / name, where=path, path=path, labels=labels)


_NOT_PEOPLE = {*VOCABULARIES["split"], "valid", "validation", "training", "testing", "dev", "images", "img", "faces"}


def _one_a_person(names: list[Path]) -> bool:
    folders = {name.parts[0].lower() for name in names}
    return all(len(name.parts) == 2 for name in names) and len(folders) >= 2 and not folders & _NOT_PEOPLE
