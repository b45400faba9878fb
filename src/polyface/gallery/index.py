"""Which faces of a store are nearest to an embedding: exactly, or through an index that is built from the vectors.

The approximate index looks at a share of the faces only, and at four bits a number: the principal components of the
embeddings (rotated at random, so that every number matters alike) are sorted into the cells of a k-means, and of the
cells nearest to a query all faces are compared by FAISS's 4-bit fast scan (André et al. 2017; Douze et al. 2024). The
best of them are then compared by their stored vectors, so distances are exact in both cases. How many cells and how
many of the best is measured when the index is built: the cheapest with which faces of the gallery itself, taken as
queries, find `RECALL` of their ten nearest.

FAISS is an extra (`search`): without it every search is exact, by numpy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyface.data.table import Progress
from polyface.errors import PolyfaceError
from polyface.files import atomic_path, sha256
from polyface.gallery.format import IndexFile, disk_errors
from polyface.gallery.store import FaceStore

AUTO = 50_000
"""Faces from which on a gallery is given an approximate index, unless it was told otherwise."""
LEAST, LEAST_DIM = 1000, 8  # faces and numbers below which an index saves nothing
RECALL = 0.97
_QUERIES, _TOP = 256, 10  # faces that are taken as queries to measure recall@10
_CHUNK = 65_536  # vectors that are in memory at once, beside the index
_COMPONENTS = 96  # of the embeddings, each kept as 4 bits; with 64 as many faces must be compared twice as often
_REFINES = (50, 100, 200, 400, 800)
_COMPARED = 0.02  # what it costs to compare a face by its 4-bit code, if by its vector it is 1 (6 ns to 300 ns)
_NEVER = np.float32(np.inf)

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Neighbours:
    """Searches a `FaceStore`. A *gap* is what nearer means: the negative product of two embeddings (cosine), or their
    squared distance (euclidean)."""

    def __init__(self, store: FaceStore) -> None:
        self.store = store
        self.problem = ""
        self._faiss = _faiss()
        self._index: Any = None
        self._file = ""
        self._last = -1
        self._ids: Rows = np.zeros(0, np.int64)
        self._ids_of = (-1, 0)

    # ------------------------------------------------------------------------------------------------------- search

    def search(
        self, queries: Floats, top: int, by_person: bool, exact: bool = False, progress: Progress | None = None
    ) -> list[tuple[Rows, Floats]]:
        """For each query [Q, D] the rows [≤ top] of the nearest faces, nearest first, and their gaps; `by_person`: of
        each person the nearest face only. Fewer than `top` where the gallery holds fewer."""
        total = min(top, len(self.store.faces.people()) if by_person else self.store.faces.live)
        found: list[tuple[Rows, Floats]] = []
        for start in range(0, len(queries), 1024):
            some = np.ascontiguousarray(queries[start : start + 1024], np.float32)
            found += self._search(some, total, by_person, exact or self._loaded() is None)
            if progress:
                progress(len(found), len(queries), "faces searched")
        return found

    def _search(self, queries: Floats, total: int, by_person: bool, exact: bool) -> list[tuple[Rows, Floats]]:
        """Ask for more and more candidates until every query has `total` faces that are not removed (or people), and no
        nearer one can be missing: removed faces, or many of one person, may fill a list of candidates."""
        found: list[tuple[Rows, Floats]] = [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(queries)
        lacking, fetch = np.arange(len(queries)), total * (4 if by_person else 1)
        while total and len(lacking):
            fetch = min(fetch, len(self.store.faces))
            step = max(1, (1 << 24) // fetch)  # bounds the memory that candidates take
            sure = np.zeros(len(queries), bool)
            for start in range(0, len(lacking), step):
                some = lacking[start : start + step]
                lists = self._candidates(queries[some], fetch, exact)
                gaps = [self._gaps(queries[some], rows) for rows, _ in lists]
                # Up to its last face that is not removed, a list is complete.
                ends = [
                    np.where(whole, _NEVER, np.where(own < _NEVER, own, -_NEVER).max(1))
                    for own, (_, whole) in zip(gaps, lists, strict=True)
                ]
                all_rows, all_gaps = np.concatenate([rows for rows, _ in lists], axis=1), np.concatenate(gaps, axis=1)
                for query, its_rows, its_gaps, end in zip(some, all_rows, all_gaps, np.min(ends, axis=0), strict=True):
                    rows, best = found[query] = self._best(its_rows, its_gaps, total, by_person)
                    sure[query] = len(rows) == total and best[-1] <= end
            lacking = lacking[~sure[lacking]]
            if exact and fetch == len(self.store.faces):
                break
            exact |= fetch >= len(self.store.faces) // 8  # more than the cells that an index looks into may hold
            fetch *= 4
        return found

    def _candidates(self, queries: Floats, fetch: int, exact: bool) -> list[tuple[Rows, NDArray[np.bool_]]]:
        """Lists of rows [Q, ≥ fetch] among which the nearest are, −1 where there is none, and whether a list [Q] is all
        that there is."""
        built, faces = self.store.manifest.built, self.store.faces
        if exact or built is None:
            self.store.check()
            return [(self._nearest(queries, fetch, 0), np.full(len(queries), fetch == len(faces)))]
        most = min(max(fetch, built.refine), self._index.ntotal)
        ids = self._index.search(queries, most)[1]
        lists = [(self._rows_of(ids), (ids < 0).any(1) | (most == self._index.ntotal))]
        newer = int(np.searchsorted(self._all_ids(), self._last, side="right"))  # faces since the index was built
        if (count := len(faces) - newer) > 0:
            rows = self._nearest(queries, min(fetch, count), newer)
            lists.append((rows, np.full(len(queries), fetch >= count)))
        return lists

    def _nearest(self, queries: Floats, fetch: int, first: int) -> Rows:
        """Rows from `first` on, by brute force."""
        if self._faiss is None:
            return _nearest(queries, self.store.vectors[first:], fetch, self._cosine) + first
        metric = self._faiss.METRIC_INNER_PRODUCT if self._cosine else self._faiss.METRIC_L2
        rows: Rows = self._faiss.knn(queries, self.store.vectors[first:], fetch, metric=metric)[1]
        return np.where(rows < 0, rows, rows + first)

    def _gaps(self, queries: Floats, rows: Rows) -> Floats:
        """The gap to each candidate [Q, m], by the stored vectors; infinite where there is none, or it was removed."""
        safe = np.maximum(rows, 0)
        live = (rows >= 0) & self.store.faces.rows["live"][safe]
        self.store.check(rows[live])
        if self._faiss is None:
            near = (
                _gap(query, self.store.vectors[own], self._cosine) for query, own in zip(queries, safe, strict=True)
            )
            return np.where(live, np.stack(list(near)), _NEVER)
        gaps, pointer = np.empty(rows.shape, np.float32), self._faiss.swig_ptr
        measure = self._faiss.fvec_inner_products_by_idx if self._cosine else self._faiss.fvec_L2sqr_by_idx
        vectors, (count, width) = self.store.vectors, rows.shape
        measure(pointer(gaps), pointer(queries), pointer(vectors), pointer(safe), vectors.shape[1], count, width)
        return np.where(live, -gaps if self._cosine else gaps, _NEVER)

    def _best(self, rows: Rows, gaps: Floats, total: int, by_person: bool) -> tuple[Rows, Floats]:
        order = np.lexsort((rows, gaps))  # of two equals the one that was enrolled first
        order = order[: np.count_nonzero(gaps < _NEVER)]
        if by_person:
            first = np.unique(self.store.faces.rows["person"][rows[order]], return_index=True)[1]
            order = order[np.sort(first)]
        return rows[order[:total]], gaps[order[:total]]

    @property
    def _cosine(self) -> bool:
        return self.store.manifest.similarity == "cosine"

    def _all_ids(self) -> Rows:
        now = self.store.manifest.generation, len(self.store.faces)
        if now != self._ids_of:
            self._ids, self._ids_of = np.ascontiguousarray(self.store.faces.rows["id"]), now
        return self._ids

    def _rows_of(self, ids: Rows) -> Rows:
        """Where faces stand now that an index knows by id; −1 for those that were erased."""
        known = self._all_ids()
        rows = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[rows] == ids, rows, -1)

    # -------------------------------------------------------------------------------------------------------- index

    def _loaded(self) -> Any:
        """The index that the manifest names; None where there is none, or it is damaged (`problem` says how)."""
        built = self.store.manifest.built
        if built is not None and built.file != self._file:
            path = self.store.folder / built.file
            self._index, self._file = None, built.file
            if self._faiss is None:
                self.problem = f"{path}: needs FAISS (`pip install 'polyface[search]'`); searching exactly"
                return None
            try:
                if sha256(path) == built.sha256:
                    self._use(self._faiss.read_index(str(path)), path)
                else:
                    self.problem = f"{path}: is damaged; searching exactly, until faces are added or it is built again"
            except (OSError, RuntimeError) as error:  # FAISS raises the latter
                reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[-1][:160]
                self.problem = f"{path}: cannot be read ({reason}); searching exactly, until it is built again"
        return None if built is None else self._index

    def _use(self, index: Any, path: Path) -> None:
        """Search with this index from now on, if it holds all faces up to its last; newer ones are searched exactly."""
        held = self._held(index)
        self._last = int(held.max(initial=-1))
        ids = self._all_ids()[self.store.faces.rows["live"]]
        if np.isin(ids[ids <= self._last], held).all():
            self._index, self._file, self.problem = index, path.name, ""
        else:
            self.problem = f"{path}: lacks faces; searching exactly, until it is built again"

    def _held(self, index: Any) -> Rows:
        """The ids that an index holds."""
        lists = self._ivf(index).invlists
        parts = (
            self._faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell)).copy()
            for cell in range(lists.nlist)
            if lists.list_size(cell)
        )
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _taken(self) -> Any:
        """The loaded index, to be changed; should saving the change fail, the file is read again."""
        index = self._loaded()
        self._index, self._file = None, ""
        return index

    def wanted(self) -> bool:
        """Whether these faces are to have an approximate index."""
        least = {"exact": np.inf, "approximate": LEAST, "auto": AUTO}[self.store.manifest.index]
        return self.store.manifest.dim >= LEAST_DIM and bool(self.store.faces.live >= max(least, LEAST))

    def current(self) -> bool:
        """Whether the index, if one is wanted, covers all faces but the newest hundredth."""
        if self._faiss is None and self.store.manifest.index == "auto":
            return True
        built = self.store.manifest.built
        if not self.wanted():
            return built is None
        if built is None or self._loaded() is None:
            return False
        return 100 * int(np.count_nonzero(self._all_ids() > self._last)) <= len(self.store.faces)

    def build(self, progress: Progress | None = None) -> None:
        """Make the index that is wanted, from the last one where that serves, and save it.

        Raises:
            PolyfaceError: a damaged vector, no FAISS, or the disk is full. The gallery then stays as it is.
        """
        self.store.must_write()
        if self._faiss is None:
            raise PolyfaceError("an approximate index is made by FAISS: run `pip install 'polyface[search]'`")
        if not self.wanted():
            self._save(None, 0.0, 1)
            return
        self.store.check(progress=progress)
        live, index, built = np.flatnonzero(self.store.faces.rows["live"]), self._taken(), self.store.manifest.built
        if index is None or built is None or _cells(len(live)) > 1.5 * self._ivf(index).nlist:
            index, new = self._trained(live, progress), live
        else:
            self._erase(index)
            new = live[self._all_ids()[live] > self._last]
        for done, (rows, vectors) in enumerate(self._chunks(new), 1):
            index.add_with_ids(vectors, self._all_ids()[rows])
            if progress:
                progress(min(done * _CHUNK, len(new)), len(new), "faces indexed")
        recall, refine = self._tuned(index, live, progress)
        self._save(index, recall, refine)

    def erase(self) -> None:
        """Take faces that were removed out of the index, and off the disk."""
        built, index = self.store.manifest.built, self._taken()
        if built is not None and index is None:
            self._save(None, 0.0, 1)  # a damaged one holds who knows what
        elif built is not None and self._erase(index):
            self._save(index, built.recall, built.refine)

    def _erase(self, index: Any) -> int:
        """Remove from an index what is not live; returns how many faces that were."""
        live = self.store.faces.rows["live"]
        known = np.zeros(self.store.faces.next_id + 8, np.uint8)
        known[self._all_ids()[live]] = 1
        bits = np.packbits(known, bitorder="little")
        keep = self._faiss.IDSelectorBitmap(bits)
        return int(index.remove_ids(self._faiss.IDSelectorNot(keep)))

    def _save(self, index: Any, recall: float, refine: int) -> None:
        """Put an index (None, or one of nothing: no index) in the place of the last one."""
        before = self.store.manifest.built
        if index is None or index.ntotal == 0:
            self.store.update(built=None)
        else:
            number = int(before.file.split("-")[1].split(".")[0]) + 1 if before else 1
            path = self.store.folder / f"index-{number}.faiss"
            with disk_errors(self.store.folder, "its faces are safe, but the index was not saved"):
                with atomic_path(path) as aside:
                    self._faiss.write_index(index, str(aside))
                ivf = self._ivf(index)
                kind = f"{ivf.d} components of 4 bits, {ivf.nprobe} of {ivf.nlist} cells, best {refine} compared"
                built = IndexFile(
                    file=path.name, sha256=sha256(path), faces=index.ntotal, last_id=int(self._held(index).max()),
                    recall=recall, refine=refine, kind=kind,
                )  # fmt: skip
                self.store.update(built=built)
            self._use(index, path)
        if before:
            (self.store.folder / before.file).unlink(missing_ok=True)

    def _chunks(self, rows: Rows) -> Iterator[tuple[Rows, Floats]]:
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            yield some, np.ascontiguousarray(self.store.vectors[some])

    def _ivf(self, index: Any) -> Any:
        return self._faiss.extract_index_ivf(index)

    def _trained(self, live: Rows, progress: Progress | None) -> Any:
        """An empty index whose components, cells and 4-bit codes are those of a sample of the faces."""
        faiss, cells, draw = self._faiss, _cells(len(live)), np.random.default_rng(0)
        sample = np.sort(draw.choice(live, min(len(live), 40 * cells), replace=False))
        components = _components(next(self._chunks(draw.choice(sample, min(len(sample), _CHUNK), replace=False)))[1])
        projected = np.concatenate([vectors @ components.T for _, vectors in self._chunks(sample)])
        metric = faiss.METRIC_INNER_PRODUCT if self._cosine else faiss.METRIC_L2
        width = len(components)
        centres, rounds = None, 10
        for done in range(1, rounds + 1):
            step = faiss.Kmeans(
                width, cells, niter=1, seed=1, min_points_per_centroid=1, max_points_per_centroid=len(projected)
            )
            step.train(projected, init_centroids=centres)
            centres = step.centroids
            if progress:
                progress(done, rounds, "rounds of k-means")
        ivf = faiss.index_factory(width, f"IVF{cells},PQ{width}x4fs", metric)
        faiss.downcast_index(ivf.quantizer).add(centres)
        ivf.train(projected[:_CHUNK])
        turn = faiss.LinearTransform(self.store.manifest.dim, width, False)
        faiss.copy_array_to_vector(components.ravel(), turn.A)
        turn.is_trained = True
        index = faiss.IndexPreTransform(turn, ivf)
        index.own_fields = True
        turn.this.disown()
        ivf.this.disown()
        return index

    def _tuned(self, index: Any, live: Rows, progress: Progress | None) -> tuple[float, int]:
        """Set how many cells are looked into; returns the recall@10 that was measured, and how many faces are then
        compared by their vectors. Of the settings that reach `RECALL`, the one that compares least."""
        queries = np.random.default_rng(1).choice(live, min(_QUERIES, len(live)), replace=False)
        vectors = np.ascontiguousarray(self.store.vectors[queries])
        # each finds itself, which says nothing: it is left out of both answers
        exactly = self._search(vectors, _TOP + 1, False, exact=True)
        truth = np.stack([rows[rows != own][:_TOP] for own, (rows, _) in zip(queries, exactly, strict=True)])
        truth = self._all_ids()[truth]
        ivf, share, best = self._ivf(index), len(live) / self._ivf(index).nlist, (np.inf, 0, 0, 0.0)
        probes = np.unique(np.geomspace(1, ivf.nlist, 50).astype(int)).tolist()
        for done, probe in enumerate(probes, 1):
            if _COMPARED * probe * share >= best[0]:
                break
            ivf.nprobe = probe
            same = index.search(vectors, min(_REFINES[-1], len(live)))[1][:, None] == truth[:, :, None]
            for refine in _REFINES:
                cost, recall = _COMPARED * probe * share + refine, float(same[:, :, :refine].any(2).mean())
                enough = recall >= RECALL or (probe, refine) == (ivf.nlist, _REFINES[-1])
                if enough and cost < best[0]:
                    best = cost, probe, refine, recall
            if progress:
                progress(done, len(probes), "settings tried")
        ivf.nprobe = best[1]
        return best[3], best[2]


def _cells(faces: int) -> int:
    """Cells of the k-means for so many faces: about 125 faces in each of a million's 8,000."""
    return max(1, min(round(8 * math.sqrt(faces)), faces // 32))


def _components(vectors: Floats) -> Floats:
    """Principal components [d ≤ 96, D] about the origin, which keeps products and distances, turned at random."""
    width = min(_COMPONENTS, vectors.shape[1])
    moments = (vectors.T @ vectors).astype(np.float64)
    principal = np.linalg.eigh(moments)[1][:, ::-1][:, :width]
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((width, width)))[0]
    return np.ascontiguousarray((principal @ turn).T, np.float32)


def _gap(query: Floats, vectors: Floats, cosine: bool) -> Floats:
    """The gaps [m] between a query [D] and vectors [m, D]; equal vectors have equal ones, to the last bit."""
    gaps: Floats = -np.einsum("md,d->m", vectors, query) if cosine else np.square(vectors - query).sum(1)
    return gaps


def _nearest(queries: Floats, vectors: Floats, fetch: int, cosine: bool) -> Rows:
    """The rows [Q, fetch] of the nearest vectors, in no order: what `faiss.knn` finds."""
    lengths = 0 if cosine else np.square(vectors).sum(1)
    found, step = [], max(1, (1 << 24) // len(vectors))  # bounds the memory that products take
    for start in range(0, len(queries), step):
        gaps = lengths - (1 if cosine else 2) * (queries[start : start + step] @ vectors.T)
        found.append(np.argpartition(gaps, fetch - 1, axis=1)[:, :fetch])
    return np.concatenate(found)


def _faiss() -> Any:
    """FAISS, or None where it is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss
