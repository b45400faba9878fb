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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from polyface.data.folders import look
from polyface.data.table import Progress
from polyface.data.writing import Skipped
from polyface.errors import PolyfaceError, nearest
from polyface.files import first_wrong
from polyface.gallery.format import Face, Manifest
from polyface.gallery.index import Neighbours
from polyface.gallery.inputs import Infos, batches, checked, digest, infos, names, subject
from polyface.gallery.store import FaceStore
from polyface.gallery.types import (
    Enrolment,
    GalleryInfo,
    Match,
    Precomputed,
    QueryFace,
    QueryImage,
)
from polyface.inference.embeddings import Embedder, FoundFace
from polyface.inference.inputs import Source, column, count, given_boxes, image_files, is_single, own_boxes, sources

__all__ = ["Embedder", "Enrolment", "FoundFace", "Gallery", "GalleryInfo", "Match"]
__all__ += ["Precomputed", "QueryFace", "QueryImage"]

_PHOTOS = 64  # pictures that are embedded, and then acknowledged, together
_VECTORS = 8192  # embeddings that are


class _Photo(NamedTuple):
    """A picture on its way into the gallery; image: digest of its content."""

    source: Source
    pixels: NDArray[np.uint8]
    image: str
    person: str
    boxes: NDArray[np.float32] | None
    info: Mapping[str, Any] | None


class Gallery:
    """Known faces in one folder. Make one with `create`, open one with `open`; close it, or use it in a `with`.

    One process at a time may write, any number may search what was there when they opened it. `len` counts faces.
    """

    def __init__(self, store: FaceStore, embedder: Embedder) -> None:
        self._store, self.embedder = store, embedder
        self._finder: Neighbours | None = None
        self._seen: dict[str, tuple[str, ...]] | None = None

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
        if embedder is not None and (embedder.id, embedder.dim) != (made.embedder, made.dim):
            store.close()
            raise PolyfaceError(
                f"{folder}: holds embeddings of '{made.embedder}' ({made.dim} numbers), not of '{embedder.id}' "
                f"({embedder.dim}): use that model, or enrol again into a new gallery"
            )
        return cls(store, embedder or Precomputed(made.embedder, made.dim, made.similarity))

    def close(self) -> None:
        """Let others write. What was enrolled is safe without it."""
        self._store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.live

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
        Pictures are stored 64 at a time, and those reported done survive whatever happens next; called again after an
        interrupt, it goes on with the others.

        Raises:
            PolyfaceError: people, boxes or info do not fit the pictures, an embedding is not finite (or, for a cosine
                similarity, not of length 1), or the disk is full.
        """
        total, done, report = count(images), 0, Enrolment()
        given = {"people": names(people), "boxes": given_boxes(images, boxes), "info": infos(info)}
        with self._enrolling():
            for batch in batches(sources(images, channels), "images", _PHOTOS, **given):
                photos = [self._photo(source, person, own, told, report) for source, person, own, told in batch]
                self._store_photos([photo for photo in photos if photo], report)
                done += len(batch)
                if progress:
                    progress(done, max(total, done), "photos enrolled")
        return report

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
        files = [(folder / name, name.parts[0]) for name in held.files if len(name.parts) > 1]
        people = {person for _, person in files}
        stray = [name for name in held.files if len(name.parts) == 1]
        empty = [name for name in sorted(held.folders) if len(name.parts) == 1 and name.name not in people]
        skipped = [Skipped(str(folder / name), "lies in no person's folder") for name in stray]
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
        vectors, report, done = self._checked(embeddings), Enrolment(), 0
        with self._enrolling():
            for batch in batches(
                vectors, "embeddings", _VECTORS, people=names(people), paths=column(paths), info=infos(info)
            ):
                rows, faces = [], []
                for number, (vector, person, path, told) in enumerate(batch, done):
                    image = digest(vector)
                    if self._is_new(image, person, path or f"embedding {number}", report):
                        rows.append(number)
                        faces.append(Face(person, image, path, None, told))
                self._append(vectors[rows], faces, report)
                done += len(batch)
                if progress:
                    progress(done, len(vectors), "embeddings enrolled")
        return report

    @contextmanager
    def _enrolling(self) -> Iterator[None]:
        self._store.must_write()
        try:
            yield
        except BaseException:
            self._seen = None  # names pictures that were not stored
            raise

    def _photo(self, source: Source, person: str, own: Any, info: Any, report: Enrolment) -> _Photo | None:
        """A picture decoded; None where it cannot be, or is here already."""
        try:
            pixels = source.pixels()
        except PolyfaceError as error:
            report.skipped.append(Skipped(source.where, str(error).removeprefix(f"{source.where}: ")))
            return None
        image = digest(pixels)
        if not self._is_new(image, person, source.where, report):
            return None
        return _Photo(source, pixels, image, person, own_boxes(own, source.where), info)

    def _store_photos(self, photos: Sequence[_Photo], report: Enrolment) -> None:
        found = self._embed([photo.pixels for photo in photos], [photo.boxes for photo in photos])
        vectors, faces = [], []
        for photo, seen in zip(photos, found, strict=True):
            if not seen:
                report.skipped.append(Skipped(photo.source.where, "no face found"))
                self._known()[photo.image] = tuple(name for name in self._known()[photo.image] if name != photo.person)
                continue
            if len(seen) > 1:
                reason = f"shows {len(seen)} faces; the large one in the middle was taken"
                report.remarks.append(Skipped(photo.source.where, reason))
            face = subject(seen, photo.pixels)
            vectors.append(self._checked(face.embedding, photo.source.where)[0])
            box = tuple(round(float(value), 2) for value in face.box)
            faces.append(Face(photo.person, photo.image, photo.source.path, box, photo.info))
        self._append(np.array(vectors, np.float32), faces, report)

    def _append(self, vectors: NDArray[np.float32], faces: Sequence[Face], report: Enrolment) -> None:
        self._store.append(vectors, faces)
        report.faces += len(faces)

    def _is_new(self, image: str, person: str, where: str, report: Enrolment) -> bool:
        """Whether this picture is not yet enrolled under this name; notes what there is to say of it."""
        others = self._known().get(image, ())
        if person in others:
            report.skipped.append(Skipped(where, f"is the same picture as another of '{person}'"))
            return False
        if others:
            report.remarks.append(Skipped(where, f"the same picture is enrolled under '{others[0]}' as well"))
        self._known()[image] = (*others, person)
        return True

    def _known(self) -> dict[str, tuple[str, ...]]:
        """Who is enrolled with which picture."""
        if self._seen is None:
            self._seen = {}
            rows = self._store.rows[self._store.rows["live"]]
            for image, person in zip(rows["image"].tolist(), rows["person"].tolist(), strict=True):
                name, key = self._store.names[person], image.decode()
                self._seen[key] = (*self._seen.get(key, ()), name)
        return self._seen

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
        for batch in batches(sources(images, channels), "images", _PHOTOS, boxes=given_boxes(images, boxes)):
            pictures, errors = list[tuple[NDArray[np.uint8], Any]](), dict[int, str]()
            for number, (source, own) in enumerate(batch):
                box = own_boxes(own, source.where)
                try:
                    pictures.append((source.pixels(), box))
                except PolyfaceError as error:
                    if single:
                        raise
                    errors[number] = str(error)
            found = iter(self._embed([pixels for pixels, _ in pictures], [box for _, box in pictures]))
            faces = [[] if number in errors else next(found) for number in range(len(batch))]
            flat = [face.embedding for of in faces for face in of]
            matches = iter(self.search_embeddings(np.array(flat), top=top, by=by, exact=exact) if flat else ())
            for number, ((source, _), of) in enumerate(zip(batch, faces, strict=True)):
                told = tuple(QueryFace(face.box, next(matches)) for face in of)
                results.append(QueryImage(source.path, told, errors.get(number)))
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
            face = self._store.face(row)
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
        return dict(sorted(self._store.people().items()))

    def remove(self, *people: str) -> int:
        """Forget people: from now on, and after any crash, no search finds them. Returns how many faces they had.

        `compact` erases their embeddings from the disk.

        Raises:
            PolyfaceError: one of them is not here (the nearest name is told; no one is removed), or the disk is full.
        """
        known = self._store.people()
        for name in people:
            if name not in known:
                raise PolyfaceError(f"{self._store.folder}: no person is called '{name}'; {nearest(name, known)}")
        self._seen = None
        return self._store.remove(people) if people else 0

    def compact(self, progress: Progress | None = None) -> int:
        """Erase what was removed from the disk, index included; returns how many faces. Killed at any moment it leaves
        the gallery whole; it needs as much free disk as the gallery takes."""
        erased = self._store.compact(progress)
        if self._store.manifest.built:
            self._neighbours().erase()
        return erased

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
            people=len(store.people()),
            removed=len(store) - len(self),
            embedder=made.embedder,
            dim=made.dim,
            similarity=made.similarity,
            index=f"approximate: {built.kind}" if built else "exact",
            indexed=built.faces if built else 0,
            recall=built.recall if built else None,
            bytes=sum(path.stat().st_size for path in store.folder.iterdir()),
        )

    def _embed(self, pictures: Sequence[NDArray[np.uint8]], boxes: Sequence[Any]) -> list[list[FoundFace]]:
        return self.embedder.embed(pictures, boxes) if pictures else []

    def _checked(self, embeddings: ArrayLike, where: str = "embeddings") -> NDArray[np.float32]:
        return checked(embeddings, self.embedder.dim, self.embedder.similarity == "cosine", where)
