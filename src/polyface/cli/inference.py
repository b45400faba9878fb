"""`polyface analyze`, `models`, `export` and `demo`: trained networks at work."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyface.cli.common import (
    AverageOption,
    DeviceOption,
    MaxSideOption,
    MirrorOption,
    SetOption,
    ThresholdOption,
    bar,
    device_of,
    say,
    tell,
    to_terminal,
)
from polyface.errors import Interrupted, PolyfaceError, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from polyface.inference import Drawings, ImageResult
    from polyface.models.bundle import Bundle


def analyze(
    images: Annotated[list[str], typer.Argument(help="Photos or folders.")],
    model: Annotated[list[str] | None, typer.Option(help="Bundles or shipped names (default: all shipped).")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A .jsonl or .parquet file; the same command goes on with what is in it.")
    ] = None,
    draw: Annotated[Path | None, typer.Option(help="Folder for pictures with what was found drawn in.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an --out that is not this command's.")
    ] = False,
    top: Annotated[
        str, typer.Option(help="Of many people or words, how many of a face's best are told, or all.")
    ] = "5",
    average: AverageOption = 1,
    mirror: MirrorOption = False,
    device: DeviceOption = "cpu",
    batch: Annotated[int, typer.Option(help="Faces a forward pass takes.")] = 64,
    threshold: ThresholdOption = 0.5,
    max_side: MaxSideOption = 4096,
) -> None:
    """Find the faces of photos and answer all questions of the models about them, in original pixels.

    Every answer is written as soon as it is found. A photo that cannot be analyzed is told as an error in its line and
    on stderr, and the others go on; the exit status is 1 if none could be.
    """
    from polyface.inference import Analyzer, Drawings
    from polyface.inference.journal import analyze_into, check_out
    from polyface.inference.results import json_line

    files = [file for source in images for file in _photos(source, draw)]
    if not files:
        raise PolyfaceError(f"{images[0]}: holds only what was drawn there; name photos or another folder")
    kept = check_out(out, files, overwrite)[1] if out else None
    drawings = Drawings(draw, files) if draw else None
    done, read = 0, 0
    try:
        analyzer = Analyzer(
            *(model or []),
            threshold=threshold,
            max_side=max_side,
            device=device_of(device),
            batch=batch,
            average=average,
            mirror=mirror,
            top=_top(top),
        )
        found: Iterable[tuple[ImageResult, bool]] = zip(analyzer.stream(files), repeat(True))
        if out:
            done_too = drawings.has if drawings else None
            found = analyze_into(analyzer, files, out, overwrite=overwrite, done=done_too)
        with bar(shown=bool(out) or not to_terminal()) as progress:
            for result, new in found:
                done, read = done + 1, read + (result.error is None)
                if not out:
                    say(json_line(result.to_dict()).rstrip())
                if not result.error:
                    _tell(result, drawings, new)
                elif len(files) > 1:
                    tell(f"polyface: {result.error}")
                progress(done, len(files), "images analyzed")
    except KeyboardInterrupt as error:
        went = f"{kept} holds what was found, and the same command goes on with it"
        went = went if kept and kept.exists() else "the same command begins again"
        raise Interrupted(f"interrupted after {done:,} of {len(files):,} images; {went}") from error
    if out and not done:
        tell(f"{out}: is whole; there is nothing left to analyze")
    elif not read:
        raise PolyfaceError(f"{'' if done == 1 else f'none of {done:,} images could be analyzed: '}{result.error}")


def _photos(source: str, draw: Path | None) -> list[Path]:
    """The photos of a folder, without what an earlier run drew there; a file is itself."""
    from polyface.inference.drawing import without_drawings
    from polyface.inference.inputs import image_files

    found = image_files(source)
    return without_drawings(found, draw) if draw and Path(source).is_dir() else found


def _top(given: str) -> int | None:
    if given == "all":
        return None
    if not given.isdecimal() or int(given) < 1:
        raise PolyfaceError(f"--top is '{short(given)}': give a number of at least 1, or all")
    return int(given)


def _tell(result: ImageResult, drawings: Drawings | None, new: bool) -> None:
    """Say what no answer tells, and draw what is not drawn yet."""
    path = str(result.path)
    if not result.faces:
        tell(f"{path}: no face found")
    if drawings and (new or not drawings.has(path)):
        try:
            tell(f"drawn: {drawings.add(path, result)}")
        except (PolyfaceError, MemoryError) as error:  # of this picture alone, unlike a full disk
            tell(f"polyface: {path}: was not drawn ({short(error)})")


def models(
    bundles: Annotated[list[str] | None, typer.Argument(help="Bundles (default: all models that are shipped).")] = None,
) -> None:
    """What models answer, their size, their terms, and what was added to them since."""
    from polyface.models import model_info
    from polyface.models import models as shipped

    for info in map(model_info, bundles) if bundles else shipped():
        answers = ", ".join(info.tasks) or "an embedding, for polyface gallery"
        say(f"{info.name:20} {info.size_mb:5.2f} MB  {answers}")
        quicker = f"in the place of {larger}, when it is named" if (larger := info.stands_in_for) else ""
        for line in filter(None, [quicker, info.terms, *info.added]):
            say(f"{'':20} {line}")


def export(
    bundle: Annotated[str, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    path: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
    branch: Annotated[str | None, typer.Option(help="Only this branch's embedding, without the tasks.")] = None,
    int8: Annotated[
        Path | None, typer.Option(help="In 8-bit integers: a folder of a hundred photos or more to calibrate by.")
    ] = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set, 13 to 23; older engines want an older one.")] = 18,
    precision: Annotated[str, typer.Option(help="float32, or float16 for half the file.")] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is not Polyface's.")] = False,
) -> None:
    """Export a bundle's network to ONNX, normalisation included, and check that it answers the same."""
    from polyface.export.onnx import export_onnx
    from polyface.files import check_output
    from polyface.models import find
    from polyface.models.bundle import load_bundle

    check_output(path, overwrite)
    loaded = load_bundle(find(bundle))
    difference = export_onnx(
        loaded,
        path,
        opset=opset,
        precision=precision,  # type: ignore[arg-type]  # it says which there are
        branch=branch,
        int8=None if int8 is None else _faces(loaded, branch, int8),
        overwrite=overwrite,
    )
    say(f"{path}: largest difference from PyTorch {difference:.1e}")


def _faces(bundle: Bundle, branch: str | None, folder: Path) -> NDArray[np.float32]:
    """What an embedding's network sees of the faces of up to 500 photos, spread over a folder's."""
    import numpy as np

    from polyface.data.images import decode
    from polyface.inference.embedder import BundleEmbedder
    from polyface.inference.inputs import image_files

    embedder, found = BundleEmbedder(bundle, branch=branch), image_files(folder)
    files = found[:: -(-len(found) // 500)]
    faces = []
    with bar() as progress:
        for done, file in enumerate(files, 1):
            faces.append(embedder.inputs([decode(file)]))
            progress(done, len(files), "photos to calibrate by")
    seen = np.concatenate(faces)
    if not len(seen):
        raise PolyfaceError(f"{folder}: no face was found in its {len(files)} photos; give photos of faces")
    return seen


def demo(
    out: Annotated[Path, typer.Option(help="Where the run and its report go.")] = Path("demo"),
    photo: Annotated[
        Path | None, typer.Option(help="A photo of your own to begin with (default: one that matplotlib ships).")
    ] = None,
    set_: SetOption = None,
) -> None:
    """What Polyface does, in two minutes: analyze photos, train a network, search a gallery; one HTML report."""
    from polyface.demo import demonstrate

    with bar() as progress:
        page = demonstrate(out, photo, set_ or (), progress)
    say(f"report: {page}")
