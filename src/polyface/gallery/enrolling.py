"""How faces get into a gallery: pictures or embeddings, some at a time, each picture once a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.data.table import Progress
from polyface.data.writing import Skipped
from polyface.errors import PolyfaceError
from polyface.gallery.format import Face
from polyface.gallery.inputs import Infos, batches, bounded, checked, digest, infos, names, subject
from polyface.gallery.store import FaceStore
from polyface.gallery.types import Enrolment
from polyface.inference.embeddings import Embedder
from polyface.inference.inputs import Source, column, count, given_boxes, own_boxes, sources, together

_VECTORS = 8192  # embeddings that are acknowledged together


class _Photo(NamedTuple):
    """A picture on its way into the gallery. pixels: None where it is not to be stored; image: digest of them."""

    source: Source
    person: str
    pixels: NDArray[np.uint8] | None = None
    image: str = ""
    boxes: NDArray[np.float32] | None = None
    info: Mapping[str, Any] | None = None


class Enroller:
    """Enrols into a store what an embedder sees; `Gallery` says what its methods take."""

    def __init__(self, store: FaceStore, embedder: Embedder) -> None:
        self._store, self._embedder = store, embedder
        self._seen: dict[str, tuple[str, ...]] | None = None

    def forget(self) -> None:
        """Look again who is enrolled with which picture: something was removed or corrected."""
        self._seen = None

    def pictures(
        self,
        images: Any,
        people: str | Iterable[str],
        boxes: Any,
        info: Infos,
        channels: str,
        progress: Progress | None,
    ) -> Enrolment:
        total, done, report = count(images), 0, Enrolment()
        columns = {"people": names(people), "boxes": given_boxes(images, boxes), "info": infos(info)}
        with self._enrolling():
            rows = together(sources(images, channels), "images", **columns)
            photos = (self._photo(source, person, own, told, report) for source, person, own, told in rows)
            for batch in bounded(photos, lambda photo: photo.pixels):
                self._store_photos([photo for photo in batch if photo.pixels is not None], report)
                done += len(batch)
                if progress:
                    progress(done, max(total, done), "photos enrolled")
        return report

    def embeddings(
        self,
        embeddings: ArrayLike,
        people: str | Iterable[str],
        paths: Iterable[str | None] | None,
        info: Infos,
        progress: Progress | None,
    ) -> Enrolment:
        vectors, report, done = self._checked(embeddings), Enrolment(), 0
        columns = {"people": names(people), "paths": column(paths), "info": infos(info)}
        with self._enrolling():
            for batch in batches(vectors, "embeddings", _VECTORS, **columns):
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
            self.forget()  # it names pictures that were not stored
            raise

    def _photo(self, source: Source, person: str, own: Any, info: Any, report: Enrolment) -> _Photo:
        """A picture decoded, unless it cannot be, or is here already."""
        try:
            pixels = source.pixels()
        except PolyfaceError as error:
            report.skipped.append(Skipped(source.where, str(error).removeprefix(f"{source.where}: ")))
            return _Photo(source, person)
        image = digest(pixels)
        if not self._is_new(image, person, source.where, report):
            return _Photo(source, person)
        return _Photo(source, person, pixels, image, own_boxes(own, source.where), info)

    def _store_photos(self, photos: Sequence[_Photo], report: Enrolment) -> None:
        pictures = [photo.pixels for photo in photos if photo.pixels is not None]
        found = self._embedder.embed(pictures, [photo.boxes for photo in photos]) if photos else []
        vectors, faces = [], []
        for photo, pixels, seen in zip(photos, pictures, found, strict=True):
            if not seen:
                report.skipped.append(Skipped(photo.source.where, "no face found"))
                self._known()[photo.image] = tuple(name for name in self._known()[photo.image] if name != photo.person)
                continue
            if len(seen) > 1:
                reason = f"shows {len(seen)} faces; the large one in the middle was taken"
                report.remarks.append(Skipped(photo.source.where, reason))
            face = subject(seen, pixels)
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
            self._seen, faces = {}, self._store.faces
            rows = faces.rows[faces.rows["live"]]
            for image, person in zip(rows["image"].tolist(), rows["person"].tolist(), strict=True):
                key = image.decode()
                self._seen[key] = (*self._seen.get(key, ()), faces.names[person])
        return self._seen

    def _checked(self, embeddings: ArrayLike, where: str = "embeddings") -> NDArray[np.float32]:
        return checked(embeddings, self._embedder.dim, self._embedder.similarity == "cosine", where)
