"""`polyface gallery`: known faces in a folder, searched by photo or caricature."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyface.cli.common import DeviceOption, MaxSideOption, ThresholdOption, bar, device_of, say, tell
from polyface.errors import PolyfaceError, one_line
from polyface.models import EMBEDDER

if TYPE_CHECKING:
    from polyface.gallery.gallery import Gallery, QueryImage
    from polyface.inference import BundleEmbedder

app = typer.Typer(help="Known faces: enrol people, search by photo or caricature.", no_args_is_help=True)

GalleryArgument = Annotated[Path, typer.Argument(help="The gallery's folder.")]
ModelOption = Annotated[
    str, typer.Option(help="A network with an embedding, a bundle or a shipped one; the same for add and search.")
]
BranchOption = Annotated[
    str | None, typer.Option(help="Which of the network's embeddings (default: its only one, or verification).")
]
PictureOption = Annotated[
    list[str] | None,
    typer.Option(help="A picture's id, as `info --pictures` lists it, or the path it was enrolled from; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("add")
def gallery_add(
    gallery: Annotated[Path, typer.Argument(help="The gallery's folder; made if there is none.")],
    photos: Annotated[list[Path], typer.Argument(help="Folders with a folder of photos for each person.")],
    model: ModelOption = EMBEDDER,
    person: Annotated[
        str | None, typer.Option(help="All are photos, or folders of photos, of this one person.")
    ] = None,
    branch: BranchOption = None,
    index: Annotated[
        str | None, typer.Option(help="Of a new gallery: auto (approximate from 50,000 faces on), exact, approximate.")
    ] = None,
    device: DeviceOption = "cpu",
    threshold: ThresholdOption = 0.5,
    max_side: MaxSideOption = 4096,
) -> None:
    """Enrol people. What was stored survives a crash, and the same command goes on with the other photos."""
    if missing := [photo for photo in photos if not photo.exists()]:
        raise PolyfaceError(f"{missing[0]}: there is no such file or folder; nothing was enrolled")
    embedder = _embedder(model, branch, device, threshold, max_side)
    with _opened(gallery, embedder, True, index) as known, bar() as progress:
        added = 0
        for folder in photos:
            report = known.enrol_folder(folder, person, progress=progress)
            added += report.faces
            for note in (*report.skipped, *report.remarks):
                kind = "skipped " if note in report.skipped else ""
                tell(f"{kind}{note.where}: {note.reason}")
        known.build_index(progress)
        _notes(known)
        say(f"{gallery}: {added:,} faces added; now {_size(known)}")


@app.command("search")
def gallery_search(
    gallery: GalleryArgument,
    images: Annotated[list[str], typer.Argument(help="Photos or caricatures, or folders of them.")],
    model: ModelOption = EMBEDDER,
    top: Annotated[int, typer.Option(help="Matches a face.")] = 5,
    by: Annotated[
        str, typer.Option(help="person (each with the nearest picture) or image (every picture).")
    ] = "person",
    exact: Annotated[bool, typer.Option("--exact", help="Pass over an approximate index.")] = False,
    json_: JsonOption = False,
    branch: BranchOption = None,
    device: DeviceOption = "cpu",
    threshold: ThresholdOption = 0.5,
    max_side: MaxSideOption = 4096,
) -> None:
    """Find who is on pictures: for every face the nearest people of the gallery, or with --json a line a picture."""
    from polyface.inference.inputs import image_files

    files = [file for image in images for file in image_files(image)]
    embedder = _embedder(model, branch, device, threshold, max_side)
    with _opened(gallery, embedder, False) as known, bar() as progress:
        given = files[0] if len(files) == 1 else files
        found = known.search(given, top=top, by=by, exact=exact, progress=progress)
        _notes(known)
    for result in found:
        if result.error or not result.faces:
            tell(result.error or f"{result.path}: no face found")
        say(json.dumps(result.to_dict(), ensure_ascii=False)) if json_ else _print(result)


@app.command("remove")
def gallery_remove(
    gallery: GalleryArgument,
    people: Annotated[list[str] | None, typer.Argument(help="Their names, as `info --people` lists them.")] = None,
    picture: PictureOption = None,
) -> None:
    """Forget people, or single pictures, and erase their faces from all files of the gallery."""
    if not people and not picture:
        raise PolyfaceError("nothing to remove: name people, or pictures by --picture")
    _change(gallery, lambda known: known.remove(*people or (), pictures=picture or ()), "removed")


@app.command("rename")
def gallery_rename(
    gallery: GalleryArgument,
    old: Annotated[str, typer.Argument(help="The person's name, as `info --people` lists it.")],
    new: Annotated[str, typer.Argument(help="The name that it is to have, and nobody has.")],
) -> None:
    """Give a person another name."""
    _change(gallery, lambda known: known.rename(old, new), "renamed")


@app.command("merge")
def gallery_merge(
    gallery: GalleryArgument,
    people: Annotated[list[str], typer.Argument(help="Two names or more; the last is that of them all from now on.")],
) -> None:
    """Make one person of several. Of equal pictures one is kept."""
    if len(people) < 2:
        raise PolyfaceError(f"'{people[0]}' alone cannot be merged: name two people or more; the last name stays")
    _change(gallery, lambda known: known.merge(*people[:-1], into=people[-1]), "moved")


@app.command("move")
def gallery_move(
    gallery: GalleryArgument,
    person: Annotated[str, typer.Argument(help="Whose pictures they are; nobody need have this name yet.")],
    picture: PictureOption = None,
) -> None:
    """Give single pictures to another person."""
    if not picture:
        raise PolyfaceError("nothing to move: name pictures by --picture")
    _change(gallery, lambda known: known.move(*picture, person=person), "moved")


@app.command("info")
def gallery_info(
    gallery: GalleryArgument,
    people: Annotated[bool, typer.Option("--people", help="List everybody, with the number of their faces.")] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="List every face: its id, its person, the file it came from.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """What a gallery holds: faces, people, embedder, index, size on disk."""
    from polyface.gallery.gallery import Gallery

    with Gallery.open(gallery) as known:
        told = dataclasses.asdict(known.info())
        everybody = known.people() if people else {}
        faces = [picture.to_dict() for picture in known.pictures()] if pictures else []
        _notes(known)
    if json_:
        told |= ({"names": everybody} if people else {}) | ({"pictures": faces} if pictures else {})
        say(json.dumps(told, ensure_ascii=False))
        return
    for name, value in told.items():
        text = f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)
        say(f"{name:12} {text}".rstrip())
    for name, count in everybody.items():
        say(f"{count:12,} {name}")
    for face in faces:
        say(f"{face['id']:12} {face['person']}  {face['path'] or ''}".rstrip())


def _change(gallery: Path, do: Callable[[Gallery], int], done: str) -> None:
    """Change a gallery, erase what the change removed, and say what was done to how many faces."""
    from polyface.gallery.gallery import Gallery

    with Gallery.open(gallery, write=True) as known, bar() as progress:
        faces = do(known)
        known.compact(progress)
        _notes(known)
        say(f"{gallery}: {faces:,} faces {done}; now {_size(known)}")


def _size(known: Gallery) -> str:
    return f"{len(known):,} of {len(known.people()):,} people"


def _embedder(model: str, branch: str | None, device: str, threshold: float, max_side: int) -> BundleEmbedder:
    from polyface.inference import BundleEmbedder

    return BundleEmbedder(model, branch=branch, threshold=threshold, max_side=max_side, device=device_of(device))


def _opened(folder: Path, embedder: BundleEmbedder, write: bool, index: str | None = None) -> Gallery:
    """A gallery with its embedder; to be written to, it is made where there is none."""
    from polyface.gallery import Gallery
    from polyface.gallery.format import MANIFEST

    if write and not (folder / MANIFEST).exists():
        return Gallery.create(folder, embedder, index or "auto")
    if index is not None:
        raise PolyfaceError(f"{folder}: --index {index} is for a new gallery, and this one is there already")
    return Gallery.open(folder, embedder, write=write)


def _notes(known: Gallery) -> None:
    for note in known.notes():
        tell(note)


def _print(result: QueryImage) -> None:
    told = result.to_dict()
    for face in told["faces"]:
        x0, y0, x1, y1 = (f"{value:.0f}" for value in face["box"])
        say(f"{one_line(told['path'])}: face at {x0}, {y0} – {x1}, {y1}")
        wide = max(len(match["person"]) for match in face["matches"])
        for place, match in enumerate(face["matches"], 1):
            nearness = f"{match['similarity']:.3f}" if "similarity" in match else f"{match['distance']:.4g} away"
            say(f"{place:4}  {match['person']:{wide}}  {nearness}  {one_line(match['path'] or '')}".rstrip())
