"""A gallery of known faces: enrol photos or embeddings under names, search by photo or caricature, remove a person.

    embedder = BundleEmbedder("runs/caricature/dynamic/model")
    with Gallery.create("friends", embedder) as gallery:
        gallery.enrol("photos/anna", "Anna")
        for face in gallery.search("caricature.jpg")[0].faces:
            print([(match.person, match.distance) for match in face.matches])

`FaceStore` keeps the faces, `Neighbours` finds the nearest, an `Embedder` turns pictures into embeddings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from polyface.data.folders import look
from polyface.data.table import Progress
from polyface.data.writing import Skipped
from polyface.errors import PolyfaceError, nearest, utf8
from polyface.files import first_wrong
from polyface.gallery.enrolling import Enroller
from polyface.gallery.format import Manifest
from polyface.gallery.index import Neighbours
from polyface.gallery.inputs import Infos, bounded, checked
from polyface.gallery.store import FaceStore
from polyface.gallery.types import Enrolment, GalleryInfo, Match, Picture, Precomputed, QueryFace, QueryImage
from polyface.inference.embeddings import Embedder, FoundFace
from polyface.inference.inputs import Source, count, given_boxes, image_files, is_single, own_boxes, sources, together
from polyface.schema import person as one_form

__all__ = ["Embedder", "Enrolment", "FoundFace", "Gallery", "GalleryInfo", "Match"]
__all__ += ["Picture", "Precomputed", "QueryFace", "QueryImage"]


class _Query(NamedTuple):
    """A picture that is searched: decoded, or why it could not be."""

    path: str | None
    pixels: NDArray[np.uint8] | None
    boxes: NDArray[np.float32] | None
    error: str | None = None


class Gallery:
    """Known faces in one folder. Make one with `create`, open one with `open`; close it, or use it in a `with`.

    One process at a time may write, any number may search what was there when they opened it. `len` counts faces.
    """

    def __init__(self, store: FaceStore, embedder: Embedder) -> None:
        self._store, self.embedder = store, embedder
        self._enroller = Enroller(store, embedder)
        self._finder: Neighbours | None = None

    @classmethod
    def create(cls, folder: Path | str, embedder: Embedder, index: str = "auto") -> Gallery:
        """Make an empty gallery for the embeddings of this embedder, and open it for writing.

        index: "exact", "approximate", or "auto": approximate from 50,000 faces on.

        Raises:
            PolyfaceError: the folder is not empty, or cannot be written.
        """
        said = {"embedder": embedder.id, "dim": embedder.dim, "similarity": embedder.similarity, "index": index}
        try:
            manifest = Manifest.model_validate(said)
        except ValidationError as error:
            raise PolyfaceError(f"{folder}: {first_wrong(error)}") from error
        return cls(FaceStore.create(folder, manifest), embedder)

    @classmethod
    def open(cls, folder: Path | str, embedder: Embedder | None = None, *, write: bool = False) -> Gallery:
        """Open a gallery; without an embedder it takes embeddings only.

        Raises:
            PolyfaceError: no gallery, a damaged one, one of another embedder, or another process is writing to it.
        """
        store = FaceStore.open(folder, write)
        made = store.manifest
        own = (made.embedder, made.dim, made.similarity)
        if embedder is not None and (embedder.id, embedder.dim, embedder.similarity) != own:
            store.close()
            raise PolyfaceError(
                f"{folder}: holds embeddings of '{made.embedder}' ({made.dim} numbers, {made.similarity}), not of "
                f"'{embedder.id}' ({embedder.dim}, {embedder.similarity}): use that model, or enrol again into a new "
                "gallery"
            )
        if write:
            store.recover()
        return cls(store, embedder or Precomputed(made.embedder, made.dim, made.similarity))

    def close(self) -> None:
        """Let others write. What was enrolled is safe without it."""
        self._store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(*([PolyfaceError] if kind else [])):  # what went wrong first is what is told
            self._store.close(told=kind is None)

    def __len__(self) -> int:
        return self._store.faces.live

    # ------------------------------------------------------------------------------------------------------ enrolling

    def enrol(
        self,
        images: Any,
        people: str | Iterable[str],
        *,
        boxes: Any = None,
        info: Infos = None,
        channels: str = "rgb",
        progress: Progress | None = None,
    ) -> Enrolment:
        """Enrol pictures, one face of each.

        images, channels: as an `Analyzer` takes them. people: a name for all, or one for each. boxes: for each picture
        its face's box [4], or None (detect). info: for each, or one for all, what else is to be kept, as JSON holds it.
        progress: called with (done, total, what).

        Of several faces the large one in the middle is taken. A picture of the same content is stored once a person.
        Pictures are stored 64 at a time (fewer of large ones), and those reported done survive whatever happens next;
        called again after an interrupt, it goes on with the others.

        Raises:
            PolyfaceError: people, boxes or info do not fit the pictures, an embedding is not finite (or, for a cosine
                similarity, not of length 1), or the disk is full.
        """
        return self._enroller.pictures(images, people, boxes, info, channels, progress)

    def enrol_folder(
        self, folder: Path | str, person: str | None = None, *, progress: Progress | None = None
    ) -> Enrolment:
        """Enrol a folder that holds a folder of photos for each person; with `person`, photos of that one alone."""
        folder = Path(folder)
        if person is not None:
            return self.enrol(image_files(folder), person, progress=progress)
        if not folder.is_dir():
            raise PolyfaceError(f"{folder}: is no folder with a folder for each person; to enrol a photo, give a name")
        held = look(folder).whole().tell()
        files, skipped = list[tuple[Path, str]](), list[Skipped]()
        for name in held.files:
            try:
                files.append((folder / name, _owner(name)))
            except PolyfaceError as error:
                skipped.append(Skipped(str(folder / name), str(error)))
        full = {name.parts[0] for name in held.files}
        empty = [name for name in sorted(held.folders) if len(name.parts) == 1 and name.name not in full]
        skipped += [Skipped(str(folder / name), "holds no photo") for name in empty]
        if not files:
            raise PolyfaceError(
                f"{folder}: holds no person's folder with photos; for photos of one person, give a name"
            )
        report = self.enrol([file for file, _ in files], [name for _, name in files], progress=progress)
        return dataclasses.replace(report, skipped=skipped + report.skipped)

    def enrol_embeddings(
        self,
        embeddings: ArrayLike,
        people: str | Iterable[str],
        *,
        paths: Iterable[str | None] | None = None,
        info: Infos = None,
        progress: Progress | None = None,
    ) -> Enrolment:
        """Enrol embeddings [N, D] that this gallery's embedder made; the rest as `enrol`, 8,192 at a time."""
        return self._enroller.embeddings(embeddings, people, paths, info, progress)

    # ------------------------------------------------------------------------------------------------------ searching

    def search(
        self,
        images: Any,
        boxes: Any = None,
        *,
        top: int = 10,
        by: str = "person",
        exact: bool = False,
        channels: str = "rgb",
        progress: Progress | None = None,
    ) -> list[QueryImage]:
        """Who is nearest to every face of one picture or many, photos or caricatures.

        images, boxes, channels: as an `Analyzer` takes them; each face is a query of its own. top: matches a face gets.
        by: "person" (of each person the best picture) or "image" (every enrolled picture for itself). exact: pass over
        an approximate index. In a folder or an iterable, a file that cannot be read gives a result with `error`; a
        single one raises.

        Raises:
            PolyfaceError: the gallery is empty or damaged, an argument is out of range, or the picture cannot be read.
        """
        self._must_answer(top, by)
        single, total, results = is_single(images), count(images), list[QueryImage]()
        rows = together(sources(images, channels), "images", boxes=given_boxes(images, boxes))
        for batch in bounded((_query(source, own, single) for source, own in rows), lambda query: query.pixels):
            seen = [(query.pixels, query.boxes) for query in batch if query.pixels is not None]
            found = iter(self.embedder.embed(*map(list, zip(*seen, strict=True))) if seen else ())
            faces = [[] if query.pixels is None else next(found) for query in batch]
            flat = [face.embedding for of in faces for face in of]
            matches = iter(self.search_embeddings(np.array(flat), top=top, by=by, exact=exact) if flat else ())
            for query, of in zip(batch, faces, strict=True):
                told = tuple(QueryFace(face.box, next(matches)) for face in of)
                results.append(QueryImage(query.path, told, query.error))
            if progress:
                progress(len(results), max(total, len(results)), "pictures searched")
        return results

    def search_embeddings(
        self,
        embeddings: ArrayLike,
        *,
        top: int = 10,
        by: str = "person",
        exact: bool = False,
        progress: Progress | None = None,
    ) -> list[tuple[Match, ...]]:
        """Who is nearest to each embedding [Q, D] of this gallery's embedder; the rest as `search`."""
        self._must_answer(top, by)
        queries = self._checked(embeddings)
        found = self._neighbours().search(queries, top, by == "person", exact, progress)
        return [self._matches(*pair) for pair in found]

    def _matches(self, rows: NDArray[np.int64], gaps: NDArray[np.float32]) -> tuple[Match, ...]:
        matches = []
        for row, gap in zip(rows.tolist(), gaps.tolist(), strict=True):
            face = self._store.faces.face(row)
            cosine = -gap if self.embedder.similarity == "cosine" else None
            distance = max(0.0, gap if cosine is None else 2 - 2 * cosine) ** 0.5
            matches.append(Match(face.person, distance, cosine, face.path, face.box, face.info))
        return tuple(matches)

    def _must_answer(self, top: int, by: str) -> None:
        if by not in ("person", "image"):
            raise PolyfaceError(f"by is '{by}'; {nearest(by, ('person', 'image'))}")
        if top < 1:
            raise PolyfaceError(f"top is {top}: give at least 1")
        if not len(self):
            raise PolyfaceError(f"{self._store.folder}: holds no face yet; enrol some (`polyface gallery add`)")

    def _neighbours(self) -> Neighbours:
        self._finder = self._finder or Neighbours(self._store)
        return self._finder

    # --------------------------------------------------------------------------------------------------- the rest of it

    def people(self) -> dict[str, int]:
        """How many faces of each person there are, by name."""
        return dict(sorted(self._store.faces.people().items()))

    def pictures(self, person: str | None = None) -> list[Picture]:
        """The enrolled faces with their ids, of one person or of all, in the order in which they were enrolled."""
        faces = self._store.faces
        rows = np.flatnonzero(faces.rows["live"]) if person is None else faces.of([self._named(person)])
        told = ((int(faces.rows["id"][row]), faces.face(int(row))) for row in rows)
        return [Picture(id, face.person, face.path, face.box, face.info) for id, face in told]

    def remove(self, *people: str, pictures: Iterable[int | str] = ()) -> int:
        """Forget people, and single faces: from now on, and after any crash, no search finds them. Returns how many.

        pictures: single faces, each by the id that `pictures` tells, or by the path it was enrolled from. `compact`
        erases the embeddings from the disk. Who was forgotten already, but is not erased yet, is no mistake; nor is who
        was erased by a process that was killed before it closed the gallery.

        Raises:
            PolyfaceError: a person (the nearest name is told) or picture is not here, and nothing was removed; or the
                disk is full.
        """
        rows = self._store.faces.of([self._named(name, gone=True) for name in people])
        return self._change(drop=np.union1d(rows, self._pictured(pictures, gone=True)))

    def rename(self, old: str, new: str) -> int:
        """Give a person another name; returns how many faces it has. Done already, it is no mistake.

        Raises:
            PolyfaceError: there is no such person, the new name is another's, or the disk is full.
        """
        known, new = self._store.faces.people(), one_form(new)
        old = self._named(old, moved=new in known)
        if old in known and new in known and new != old:
            raise PolyfaceError(f"{self._store.folder}: there is a '{new}' already; `merge` makes one person of two")
        return self._give(self._store.faces.of([old]), new)

    def merge(self, *people: str, into: str) -> int:
        """Give all faces of some people to another; of equal pictures one is kept. Returns how many it got. Done
        already, it is no mistake.

        Raises:
            PolyfaceError: one of them is not here, or the disk is full.
        """
        into = self._named(into)
        return self._give(self._store.faces.of([self._named(name, moved=True) for name in people]), into)

    def move(self, *pictures: int | str, person: str) -> int:
        """Give single faces (named as for `remove`) to a person, new or known; returns how many it got.

        Raises:
            PolyfaceError: there is no such picture, or the disk is full.
        """
        return self._give(self._pictured(pictures), one_form(person))

    def _give(self, rows: NDArray[np.int64], person: str) -> int:
        """Give faces to a person; what it has already is forgotten."""
        faces = self._store.faces
        own = faces.of([person])
        rows = np.setdiff1d(rows, own)
        images, first = np.unique(faces.rows["image"][rows], return_index=True)
        move = np.sort(rows[first[~np.isin(images, faces.rows["image"][own])]])
        self._change(np.setdiff1d(rows, move), move, person)
        return len(move)

    def _change(self, drop: NDArray[np.int64], move: Sequence[int] | NDArray[np.int64] = (), person: str = "") -> int:
        self._store.must_write()
        self._enroller.forget()
        ids = self._store.faces.rows["id"]
        move = np.asarray(move, np.int64)
        return self._store.change(ids[drop], ids[move], person) if len(drop) + len(move) else 0

    def _named(self, name: str, gone: bool = False, moved: bool = False) -> str:
        """The name of a person who is here, or with `gone` was removed (`FaceStore.was_removed`), or with `moved` has
        another name by now."""
        faces = self._store.faces
        known = faces.people()
        form = name if name in known else one_form(name)
        before = (gone or moved) and self._store.was_removed(form)
        if form in known or before or (moved and form in faces.names):
            return form
        raise PolyfaceError(f"{self._store.folder}: no person is called '{form}'; {nearest(form, known)}")

    def _pictured(self, pictures: Iterable[int | str], gone: bool = False) -> NDArray[np.int64]:
        """The rows of single faces, by id or path; with `gone` none of those that were removed."""
        faces, found = self._store.faces, list[int]()
        ids = {id: row for row, (id, live) in enumerate(faces.rows[["id", "live"]].tolist()) if live}
        for picture in pictures:
            number = int(picture) if str(picture).isdecimal() else None
            path = utf8(str(picture))  # another locale may have named the same file otherwise
            rows = [ids[number]] if number in ids else [row for row in ids.values() if faces.told(row) == path]
            was = gone and ((number is not None and number < faces.next_id) or self._store.was_removed(path))
            if not rows and not was:
                raise PolyfaceError(
                    f"{self._store.folder}: there is no picture '{picture}'; `polyface gallery info --pictures` lists "
                    "them by id and path"
                )
            found += rows
        return np.unique(np.array(found, np.int64))

    def compact(self, progress: Progress | None = None) -> int:
        """Erase what was removed from the disk, index included; returns how many faces. Killed at any moment it leaves
        the gallery whole; it needs as much free disk as the gallery takes."""
        if self._store.manifest.built and len(self) < len(self._store.faces):
            self._neighbours().erase()  # first, so that who is interrupted finds something left to erase
        return self._store.compact(progress)

    def build_index(self, progress: Progress | None = None) -> bool:
        """Bring the approximate index up to date, if this gallery wants one and the last covers less than 99 % of its
        faces (the others are searched exactly meanwhile); returns whether it was built."""
        self._store.must_write()
        stale = bool(self._store.manifest.built) or self._neighbours().wanted()
        stale = stale and not self._neighbours().current()
        if stale:
            self._neighbours().build(progress)
        return stale

    def notes(self) -> list[str]:
        """What is to be known of the state it was found in: an unfinished batch that was dropped, a damaged index."""
        found = [self._store.recovered, self._finder.problem if self._finder else ""]
        return [note for note in found if note]

    def info(self) -> GalleryInfo:
        """Counts, embedder, index and size on disk."""
        store, made, built = self._store, self._store.manifest, self._store.manifest.built
        return GalleryInfo(
            faces=len(self),
            people=len(store.faces.people()),
            removed=len(store.faces) - len(self),
            embedder=made.embedder,
            dim=made.dim,
            similarity=made.similarity,
            index=f"approximate: {built.kind}" if built else "exact",
            indexed=built.faces if built else 0,
            recall=built.recall if built else None,
            bytes=sum(path.stat().st_size for path in store.folder.iterdir()),
        )

    def _checked(self, embeddings: ArrayLike, where: str = "embeddings") -> NDArray[np.float32]:
        return checked(embeddings, self.embedder.dim, self.embedder.similarity == "cosine", where)


def _query(source: Source, own: Any, raising: bool) -> _Query:
    boxes = own_boxes(own, source.where)
    try:
        return _Query(source.path, source.pixels(), boxes)
    except PolyfaceError as error:
        if raising:
            raise
        return _Query(source.path, None, boxes, str(error))


def _owner(name: Path) -> str:
    """Whose a photo is, by its path in a folder of people."""
    if len(name.parts) == 1:
        raise PolyfaceError("lies in no person's folder")
    return one_form(name.parts[0])
