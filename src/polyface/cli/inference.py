"""`polyface analyze`, `models`, `export` and `demo`: trained networks at work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyface.cli.common import AverageOption, DeviceOption, MirrorOption, SetOption, bar, device_of, say, tell
from polyface.errors import PolyfaceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from polyface.models.bundle import Bundle


def analyze(
    images: Annotated[list[str], typer.Argument(help="Photos or folders.")],
    model: Annotated[list[str] | None, typer.Option(help="Bundles or shipped names (default: all shipped).")] = None,
    out: Annotated[Path | None, typer.Option(help="A .jsonl or .parquet file, or a folder for drawn pictures.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Folder for pictures with what was found drawn in.")] = None,
    average: AverageOption = 1,
    mirror: MirrorOption = False,
    device: DeviceOption = "cpu",
    batch: Annotated[int, typer.Option(help="Faces a forward pass takes.")] = 64,
) -> None:
    """Find the faces of photos and answer all questions of the models about them, in original pixels."""
    from polyface.inference import Analyzer, to_json_lines, to_parquet
    from polyface.inference.inputs import image_files

    analyzer = Analyzer(*(model or []), device=device_of(device), batch=batch, average=average, mirror=mirror)
    files = [file for source in images for file in image_files(source)]
    single = len(files) == 1
    with bar() as progress:
        found = analyzer(files[0] if single else files, progress=progress)
    for result in found:
        if result.error:
            tell(f"{result.path}: {result.error}")
        elif not result.faces:
            tell(f"{result.path}: no face found")
    if out and out.suffix == ".parquet":
        to_parquet(found, out)
    elif out and out.suffix in (".jsonl", ".json"):
        from polyface.files import atomic_path

        with atomic_path(out) as aside:
            aside.write_text(to_json_lines(found), encoding="utf-8")
    elif out:
        raise PolyfaceError(f"--out {out}: expected a .jsonl or .parquet file (pictures go to --draw FOLDER)")
    else:
        say(to_json_lines(found).rstrip())
    if draw:
        from polyface.inference import draw_all

        for path in draw_all(found, draw):
            tell(f"drawn: {path}")


def models() -> None:
    """The models that are shipped: tasks, size, terms."""
    from polyface.models import models as shipped

    for info in shipped():
        answers = ", ".join(info.tasks) or "an embedding, for polyface gallery"
        say(f"{info.name:20} {info.size_mb:5.2f} MB  {answers}\n{'':20} {info.terms}")


def export(
    bundle: Annotated[str, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    path: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
    branch: Annotated[str | None, typer.Option(help="Only this branch's embedding, without the tasks.")] = None,
    int8: Annotated[
        Path | None, typer.Option(help="In 8-bit integers: a folder of a hundred photos or more to calibrate by.")
    ] = None,
) -> None:
    """Export a bundle's network to ONNX, normalisation included, and check that it answers the same."""
    from polyface.export.onnx import export_onnx
    from polyface.models import find
    from polyface.models.bundle import load_bundle

    loaded = load_bundle(find(bundle))
    difference = export_onnx(loaded, path, branch=branch, int8=None if int8 is None else _faces(loaded, branch, int8))
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
