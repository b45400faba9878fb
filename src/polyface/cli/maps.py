"""`polyface explain cam`, `gradients`, `occlusion`, `check` and `regions`: where in a face a network looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyface.cli import common

if TYPE_CHECKING:
    from polyface.inference.explainer import ExplainedPhoto

PhotosArgument = Annotated[list[str], typer.Argument(help="Photos or folders.")]
TaskOption = Annotated[
    list[str] | None,
    typer.Option(
        "--task", help="What to explain: glasses, glasses=yes, landmarks=30.x; may be repeated (default: every task)."
    ),
]
LayerOption = Annotated[
    str, typer.Option("--layer", help="Whose map Grad-CAM is of: trunk.stage3, a part's (default: the last one).")
]
LikeOption = Annotated[
    str | None, typer.Option("--like", help="Another photo: explain how similar its face is, by a model that embeds.")
]


def explains(methods: Sequence[str], about: str) -> Callable[..., None]:
    """A command that draws what these methods show of photos."""

    def command(
        photos: PhotosArgument,
        model: Annotated[str, typer.Option(help="A model bundle's folder, or a shipped model's name.")],
        task: TaskOption = None,
        layer: LayerOption = "",
        like: LikeOption = None,
        also: Annotated[
            list[str] | None,
            typer.Option(help="Another method beside: cam, gradients, guided-cam, occlusion; may be repeated."),
        ] = None,
        out: Annotated[Path, typer.Option(help="The folder of the sheets, a PNG a face.")] = Path("explained"),
        in_photo: Annotated[bool, typer.Option("--in-photo", help="Draw on the whole photo, not on the crop.")] = False,
        threshold: common.ThresholdOption = 0.5,
        max_side: common.MaxSideOption = 4096,
        device: common.DeviceOption = "cpu",
        overwrite: common.OverwriteOption = False,
    ) -> None:
        from polyface.inference.explainer import Explainer
        from polyface.inference.inputs import image_files

        files = [file for photo in photos for file in image_files(photo)]
        explainer = Explainer(model, threshold=threshold, max_side=max_side, device=common.device_of(device))
        chosen = list(dict.fromkeys([*methods, *(also or ())]))
        found = explainer(files, tasks=task or (), methods=chosen, layer=layer, like=like)
        _write_sheets(found, files, out, in_photo, overwrite)

    command.__doc__ = about
    return command


cam = explains(["cam"], "Grad-CAM: which places of an inner map speak for an answer.")
gradients = explains(
    ["gradients", "guided-cam"],
    "Guided backprop and guided Grad-CAM: which pixels speak for an answer; sharp, but see `polyface explain check`.",
)
occlusion = explains(
    ["occlusion"],
    "Occlusion: what an answer loses where the face is covered. Needs no gradient, but polyface[explain].",
)


def _write_sheets(
    found: Iterable[ExplainedPhoto], files: Sequence[Path], out: Path, in_photo: bool, overwrite: bool
) -> None:
    from polyface.errors import PolyfaceError
    from polyface.explain.maps import TITLES
    from polyface.files import atomic_path, check_output
    from polyface.report.faces import png
    from polyface.report.heat import heat_sheet

    check_output(out / ".polyface")
    written: set[Path] = set()
    errors: list[str] = []
    with common.bar(shown=len(files) > 1) as progress:
        for done, photo in enumerate(found, 1):
            if photo.error:
                errors.append(photo.error)
                if len(files) > 1:
                    common.tell(f"polyface: {photo.error}")
            elif not photo.faces:
                common.tell(f"{photo.path}: no face found")
            for face in photo.faces:
                place = _free(out, Path(str(photo.path)).stem, written)
                check_output(place, overwrite, files)
                picture, maps = face.face.picture, face.maps
                if in_photo:
                    picture, (height, width) = photo.pixels, photo.pixels.shape[:2]
                    maps = {key: face.in_photo(heat, width, height) for key, heat in maps.items()}
                sheet = heat_sheet(picture, maps, TITLES)
                with atomic_path(place) as aside:
                    aside.write_bytes(png(sheet))
                told = ", ".join(dict.fromkeys(asked for asked, _ in face.maps))
                common.say(f"{place}: {told}")
            progress(done, len(files), "photos explained")
    if len(errors) == len(files):
        several = f"none of {len(files):,} photos could be read: " if len(files) > 1 else ""
        raise PolyfaceError(f"{several}{errors[-1]}")


def _free(out: Path, stem: str, written: set[Path]) -> Path:
    """The sheet of a face of a photo: its name, with a number where this command wrote one of that name already."""
    number = 1
    while (place := out / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")) in written:
        number += 1
    written.add(place)
    return place


def check(
    model: Annotated[str, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    photos: PhotosArgument,
    task: TaskOption = None,
    method: Annotated[
        list[str] | None, typer.Option(help="cam, gradients, guided-cam, occlusion; may be repeated (default: all).")
    ] = None,
    layer: LayerOption = "",
    like: LikeOption = None,
    draws: Annotated[int, typer.Option(help="How many times weights are drawn, to average over.", min=1)] = 3,
    device: common.DeviceOption = "cpu",
) -> None:
    """Whether the maps depend on what was learnt: weights are randomised from the answer down (Adebayo et al. 2018).

    Told is the mean rank correlation with the trained network's maps, which must fall. A few photos are enough.
    """
    from polyface.explain.maps import METHODS
    from polyface.explain.sanity import LIMIT, SHARES, passes
    from polyface.inference.explainer import Explainer
    from polyface.inference.inputs import image_files

    files = [file for photo in photos for file in image_files(photo)]
    explainer = Explainer(model, device=common.device_of(device))
    rows: list[Sequence[str]] = []
    with common.bar() as progress:
        found = explainer.checked(
            files,
            tasks=task or (),
            methods=method or list(METHODS),
            layer=layer,
            like=like,
            draws=draws,
            progress=progress,
        )
        for (told, name), correlations in found.items():
            means = [f"{mean:.2f}" for mean in correlations.mean(1)]
            rows.append([told, name, *means, "passes" if passes(correlations) else "FAILS"])
    header = ["task", "method", ">answer's layer", *(f">{100 * share:.0f} %" for share in SHARES[1:]), "check"]
    common.say(common.aligned(header, rows))
    common.say(f"Rank correlation by the share of layers that are random; it must be below {LIMIT} from 50 % on.")


def regions(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    table: Annotated[str, typer.Argument(help="A data set or face table.")],
    data: common.DataOption = None,
    split: Annotated[str, typer.Option(help="Which faces of the table: test, val, train or all.")] = "test",
    task: TaskOption = None,
    method: Annotated[str, typer.Option(help="cam, gradients, guided-cam or occlusion.")] = "cam",
    layer: LayerOption = "",
    name: common.NameOption = "",
    device: common.DeviceOption = "cpu",
    results: Annotated[Path | None, typer.Option(help="Write the figures into a results file.")] = None,
) -> None:
    """How much of the maps' mass lies on eyes, nose, mouth and cheeks, over the faces of a table.

    Regions are told by 68 points: the table's own, or those that the shipped model face68 finds.
    """
    from polyface.errors import check_names
    from polyface.explain.maps import METHODS
    from polyface.explain.questions import question
    from polyface.explain.regions import points_of, shares_by_region
    from polyface.metrics.result import Row, rows
    from polyface.models import find, model_info
    from polyface.models.bundle import load_bundle
    from polyface.protocols.evaluation import pool_of_tables
    from polyface.report.results import format_row, write_results

    check_names([method], METHODS, "--method")
    common.check_outputs(results, None)
    bundle, name = load_bundle(find(model)), name or model_info(model).name
    asked = [question(bundle.network, bundle.tasks, one) for one in task or bundle.tasks]
    made: list[Row] = []
    with common.bar() as progress:
        pool = pool_of_tables(bundle, [table], data, split, progress)
        points = points_of(pool.table, progress)
        options: dict[str, Any] = {"points": points, "device": common.device_of(device), "progress": progress}
        for one in asked:
            found = shares_by_region(bundle, pool, one, method=method, layer=layer, **options)
            made += rows(f"{name} {one.named}", {0: found})
    cells = [(row.row, row.metric, f"{format_row(row)} %", f"{row.n:,}") for row in made]
    common.say(common.aligned(("of", "figure", "", ">n"), cells))
    if results:
        write_results(results, made, command=common.command_of(context), data=f"{table} ({split})")
        common.say(f"results: {results}")
