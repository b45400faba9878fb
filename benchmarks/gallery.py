"""A gallery of a million faces: exact search beside FAISS's own flat index, the approximate index beside exact search.

    python benchmarks/gallery.py --embeddings FILE.npz [--faces 1000000] [--out docs/results/gallery.json]
    python benchmarks/gallery.py --model BUNDLE --table TABLE [--branch NAME] …

The faces are drawn. The covariance within and between people is measured on an embedder's embeddings of labelled faces
(`embedding` [N, E] and `identity` [N] of the .npz file, or those of the bundle's own detector and network on a face
table); a person is then a Gaussian draw from the one, and each of their faces a draw from the other around it, scaled
to length 1 as embeddings for cosine similarity are. Queries are further draws of people who are in the gallery.

Within: the pooled covariance of the differences from each person's mean. Between: the covariance of those means, less
the share that the variation within leaves in them, without the directions in which nothing remains (the estimates of a
one-way analysis of variance). Embeddings of more than `--dim` numbers are projected to their first principal axes;
those of fewer are turned into that many by a random rotation, which keeps all products: nothing is invented, and the
faces vary in no more directions than were measured.

Times are of one process with `--threads` threads. Ratios are medians over rounds in which both take turns.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from polyface.cli.common import bar
from polyface.errors import PolyfaceError
from polyface.gallery.gallery import Gallery, Precomputed
from polyface.metrics.result import Row
from polyface.report.results import write_results

Floats = NDArray[np.float32]
TOP, EACH, CHUNK = 10, 10, 2000  # neighbours; faces a person; people drawn at a time


@dataclass(frozen=True)
class People:
    """A generator of faces. mean [D]; between, within [D, D]: what a standard normal vector is multiplied with."""

    mean: Floats
    between: Floats
    within: Floats

    def chunk(self, number: int, people: int, queries: int) -> tuple[Floats, Floats]:
        """EACH faces of every person of this chunk, in the order of people, and one more of the first `queries`."""
        draw, dim = np.random.default_rng([1, number]), len(self.mean)
        centres = self.mean + draw.standard_normal((people, dim), np.float32) @ self.between
        faces = draw.standard_normal((people * EACH, dim), np.float32) @ self.within
        more = draw.standard_normal((queries, dim), np.float32) @ self.within
        return _unit(centres.repeat(EACH, axis=0) + faces), _unit(centres[:queries] + more)


def _unit(vectors: NDArray[Any]) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def measured(embeddings: NDArray[Any], identities: NDArray[Any], dim: int) -> tuple[People, str]:
    """The generator that embeddings [N, E] of people [N] ask for, and a line that says what they are."""
    vectors = _unit(embeddings).astype(np.float64)
    _, who, counts = np.unique(identities, return_inverse=True, return_counts=True)
    keep = counts[who] > 1  # a person's only face says nothing of the variation within
    if len(np.unique(who[keep])) < 2:
        raise PolyfaceError("--embeddings: no two people have two faces each: covariances cannot be measured")
    _, who, counts = np.unique(who[keep], return_inverse=True, return_counts=True)
    mean, vectors = vectors[keep].mean(0), vectors[keep]
    axes = _axes(vectors - mean, dim)
    vectors = (vectors - mean) @ axes
    means = np.stack([np.bincount(who, column) for column in vectors.T], axis=1) / counts[:, None]
    faces, people = len(vectors), len(counts)
    rest = vectors - means[who]
    within = rest.T @ rest / (faces - people)
    usual = (faces - (counts**2).sum() / faces) / (people - 1)  # faces a person, as the analysis counts them
    between = ((means * counts[:, None]).T @ means / (people - 1) - within) / usual
    said = f"{faces:,} embeddings of {people:,} people, {embeddings.shape[1]} numbers each"
    if embeddings.shape[1] != dim:
        said += f", {'projected' if embeddings.shape[1] > dim else 'turned'} to {dim}"
    said += f"; variance between people {np.trace(between) / np.trace(within + between):.2f} of all"
    turned = [np.asarray(_root(matrix), np.float32) for matrix in (between, within)]
    return People((mean @ axes).astype(np.float32), *turned), said


def _axes(centred: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """[E, dim]: the first principal axes where there are more than `dim`, a random rotation where there are fewer."""
    width = centred.shape[1]
    if width > dim:
        return np.asarray(np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :dim])
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0]
    return np.asarray(turn[:width])


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """[D, D] such that standard normal rows times it have this covariance; negative directions are left out."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)


def embedded(model: str, table: str, branch: str | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Embeddings and identities of a face table's labelled faces, found by the detector as in a gallery."""
    from polyface.data.table import FaceTable
    from polyface.gallery.inputs import subject
    from polyface.inference import BundleEmbedder

    faces, engine = FaceTable.open(table), BundleEmbedder(model, branch=branch)
    rows = np.flatnonzero([name is not None for name in faces.column("identity").to_pylist()])
    vectors, names = [], []
    with bar() as progress:
        for done, row in enumerate(rows.tolist(), 1):
            pixels = faces.image(row)
            if found := engine.embed([pixels])[0]:
                vectors.append(subject(found, pixels).embedding)
                names.append(faces.column("identity")[row].as_py())
            progress(done, len(rows), "faces embedded")
    return np.array(vectors), np.array(names)


def chunks(people: People, faces: int, queries: int) -> Iterator[tuple[int, Floats, Floats]]:
    """First face, faces and queries of every chunk; the queries are spread over all of them."""
    total = faces // EACH
    for number, start in enumerate(range(0, total, CHUNK)):
        size = min(CHUNK, total - start)
        share = (start + size) * queries // total - start * queries // total
        yield start * EACH, *people.chunk(number, size, min(share, size))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def ratios(rounds: int, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float, float]:
    """Median seconds of each, and the median of ours over theirs, round by round."""
    pairs = [(timed(ours)[0], timed(theirs)[0]) for _ in range(rounds)]
    mine, other = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(other), statistics.median(a / b for a, b in pairs)


def measure(people: People, folder: Path, faces: int, queries: int, rounds: int, threads: int) -> list[Row]:
    name, dim = f"{faces:,} × {len(people.mean)}", len(people.mean)
    rows: list[Row] = []

    def told(metric: str, value: float, unit: str, note: str = "", n: int | None = None) -> None:
        rows.append(Row(name, metric, value, n=n, unit=unit, note=note))
        print(f"{metric:45} {value:10.4g} {unit}  {note}", flush=True)

    flat, asked, spent = faiss.IndexFlatIP(dim), list[Floats](), 0.0
    with Gallery.create(folder, Precomputed("drawn", dim, "cosine")) as gallery, bar() as progress:
        for first, vectors, some in chunks(people, faces, queries):
            flat.add(vectors)
            asked.append(some)
            who = [f"p{row // EACH}" for row in range(first, first + len(vectors))]
            paths = [str(row) for row in range(first, first + len(vectors))]
            spent += timed(lambda v=vectors, w=who, p=paths: gallery.enrol_embeddings(v, w, paths=p))[0]  # type: ignore[misc]
            progress(first + len(vectors), faces, "faces added")
        told("add", len(gallery) / spent, "faces/s")
        built, _ = timed(lambda: gallery.build_index(progress))
    seconds, gallery = timed(lambda: Gallery.open(folder))
    question = np.concatenate(asked)

    def ours(exact: bool, some: Floats = question, by: str = "image") -> list[tuple[Any, ...]]:
        return gallery.search_embeddings(some, top=TOP, by=by, exact=exact)

    info, note = gallery.info(), f"{threads} thread{'s' if threads > 1 else ''}"
    checked, _ = timed(lambda: ours(True, question[:1]))
    ours(False, question[:1])
    told("build index", built, "s", info.index)
    told("open", seconds, "s")
    told("first exact search", checked, "s", "reads and checks every vector")
    told("size", info.bytes / 1e9, "GB")
    many, alone = f"{len(question):,} queries at once", "one query at a time"
    mine, _, ratio = ratios(rounds, lambda: ours(True), lambda: flat.search(question, TOP))
    told(f"exact search / IndexFlat, {many}", ratio, "×", f"{1e3 * mine / len(question):.3g} ms a query, {note}")
    single = [question[row : row + 1] for row in range(20)]
    mine, _, ratio = ratios(
        rounds, lambda: [ours(True, one) for one in single], lambda: [flat.search(one, TOP) for one in single]
    )
    told(f"exact search / IndexFlat, {alone}", ratio, "×", f"{1e3 * mine / 20:.3g} ms a query, {note}")
    _, person, ratio = ratios(rounds, lambda: ours(True), lambda: ours(True, by="person"))
    told(f"exact search by person / by image, {many}", 1 / ratio, "×", f"{1e3 * person / len(question):.3g} ms a query")
    if not info.indexed:
        return rows
    truth = flat.search(question, TOP)[1]
    found = [{int(match.path) for match in matches} for matches in ours(False)]
    recall = [100 * len(some & set(best)) / TOP for some, best in zip(found, truth.tolist(), strict=True)]
    told("recall@10 of the approximate index", float(np.mean(recall)), "%", n=len(recall))
    for what, fast, slow in (
        (many, lambda: ours(False), lambda: ours(True)),
        (alone, lambda: [ours(False, one) for one in single], lambda: [ours(True, one) for one in single]),
    ):
        mine, _, ratio = ratios(rounds, fast, slow)
        count = len(question) if what == many else len(single)
        told(f"exact / approximate search, {what}", 1 / ratio, "×", f"{1e3 * mine / count:.3g} ms a query, {note}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", type=Path, help="an .npz file with embedding [N, E] and identity [N]")
    parser.add_argument("--model", help="instead: a bundle, or a shipped model's name")
    parser.add_argument("--branch", help="of the model")
    parser.add_argument("--table", help="a face table with identities, for the model to embed")
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the gallery is made and left (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help="results file to write (default: only print)")
    given = parser.parse_args()
    if (given.embeddings is None) == (given.model is None or given.table is None):
        parser.error("give --embeddings FILE.npz, or --model BUNDLE and --table TABLE")
    faiss.omp_set_num_threads(given.threads)
    if given.embeddings:
        with np.load(given.embeddings) as file:
            people, said = measured(file["embedding"], file["identity"], given.dim)
    else:
        people, said = measured(*embedded(given.model, given.table, given.branch), given.dim)
    print(said, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "gallery"
        rows = measure(people, folder, given.faces // EACH * EACH, given.queries, given.rounds, given.threads)
    if given.out:
        command = shlex.join(["python", "benchmarks/gallery.py", *sys.argv[1:]])
        write_results(given.out, rows, command=command, data=f"drawn with the covariances of {said}", merge=False)


if __name__ == "__main__":
    main()
