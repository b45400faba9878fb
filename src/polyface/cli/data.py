"""`polyface data`: face tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyface.cli.common import DeviceOption, OverwriteOption, bar, device_of, say
from polyface.errors import PolyfaceError, short

if TYPE_CHECKING:
    from polyface.data.table import FaceTable

app = typer.Typer(help="Face tables: import, look at and check data sets.", no_args_is_help=True)


@app.command("list")
def data_list() -> None:
    """Known readers: what they read, and whether they were tried on the real files."""
    from polyface.data.readers import READERS, reader

    longest = max(map(len, READERS.names()))
    for name in sorted(READERS.names()):
        found = reader(name)
        say(f"{name:{longest}} {'verified' if found.verified else 'not verified':13} {found.about}")


@app.command("import")
def data_import(
    name: Annotated[str, typer.Argument(help="A reader's name; see `polyface data list`.")],
    source: Annotated[Path, typer.Argument(help="The data set's folder or file.")],
    table: Annotated[Path, typer.Argument(help="The face table (.parquet) to write.")],
    on_bad: Annotated[str, typer.Option(help="A face that cannot be taken: error or skip.")] = "error",
    workers: Annotated[int | None, typer.Option(help="Threads that decode images.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="A reader's option: name=value, or name.key=value of one that has keys.")
    ] = None,
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="sex=gender names a column, gender.M=male one of its words.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Bring a data set, or a file of your own labels, into a face table."""
    from polyface.data.readers import reader
    from polyface.data.table import FaceTable
    from polyface.data.writing import import_table
    from polyface.files import check_output
    from polyface.training.recipe import assignments

    options: dict[str, Any] = {}
    for key, value in assignments(option or (), "--option").items():
        _put(options, key.split(".", 2), value, f"--option {key}")
    for text in map_ or ():
        left, equals, right = text.partition("=")
        if not left or not equals:
            raise PolyfaceError(f"--map {text}: expected NAME=COLUMN or COLUMN.WORD=WORD")
        _put(options, ["map", *left.split(".", 1)], right, f"--map {text}")
    found = reader(name, **options)
    check_output(table, overwrite, inputs=found.inputs(source) if hasattr(found, "inputs") else [source])
    with bar() as progress:
        report = import_table(found, source, table, on_bad=on_bad, workers=workers, progress=progress)
    for skipped in report.skipped:
        say(f"skipped {skipped}")
    for column, held in report.plan.columns.items():
        origin, hint = report.plan.origins.get(column, column), report.plan.hints.get(column)
        told = origin if origin == column else f"{origin} → {column}"
        say(f"  {told:24} {report.labelled.get(column, 0):>9,} labelled   {held}{f'   {hint}' if hint else ''}")
    for column, reason in report.plan.left.items():
        say(f"  left out: {short(column) or '(no name)'}: {reason}")
    labelled = ", ".join(f"{column} {count:,}" for column, count in report.labelled.items())
    say(f"{table}: {report.rows:,} faces, {len(report.skipped):,} skipped; labelled: {labelled}")
    if report.left_out and report.left_out.most:
        say(f"note: most of {source} is missing or bad: {report.left_out}")
    _tell_doubts(FaceTable.open(table))


def _files(table: Path) -> list[Path]:
    """The files of a table, or of a folder of them."""
    return [table, *table.glob("*.parquet")] if table.is_dir() else [table]


def _tell_doubts(faces: FaceTable) -> None:
    """A line for boxes that lie elsewhere than the detector's."""
    from polyface.data.boxes import doubts

    if "box" in faces.columns and (doubt := doubts(faces)):
        say(f"note: {doubt}")


def _put(tree: dict[str, Any], keys: list[str], value: Any, where: str) -> None:
    """Put a value under keys of keys: ["columns", "age"] → {"columns": {"age": value}}."""
    *above, last = keys
    for key in above:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise PolyfaceError(f"{where}: '{key}' has a value of its own already")
    tree[last] = value


@app.command("label")
def data_label(
    table: Annotated[Path, typer.Argument(help="A face table, or a folder of them.")],
    model: Annotated[str, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    out: Annotated[Path, typer.Argument(help="The face table (.parquet) to write.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Only these tasks of the model (default: all that the table lacks).")
    ] = None,
    pose: Annotated[
        bool, typer.Option("--pose", help="Also yaw, pitch, roll and pose, measured by 68 points such as face68's.")
    ] = False,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Let a model label faces: its answers become label columns that are marked as pseudo-labels."""
    from polyface.data.table import FaceTable
    from polyface.files import check_output
    from polyface.models.labels import label_table

    check_output(out, overwrite, inputs=_files(table))
    with bar() as progress:
        report = label_table(
            FaceTable.open(table),
            model,
            out,
            tasks=task or (),
            pose=pose,
            device=device_of(device),
            progress=progress,
        )
    faces = FaceTable.open(out)
    told = [f"{name} {count:,}" for name, count in report.labelled.items() if faces.pseudo(name)]
    say(f"{out}: {report.rows:,} faces; labelled by {model}: {', '.join(told) or 'none'}")


@app.command("show")
def data_show(
    table: Annotated[Path, typer.Argument(help="A face table, or a folder of them.")],
    picture: Annotated[
        Path | None, typer.Option(help="Draw some faces with box and points, each beside its crop, into this PNG.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many faces to draw.")] = 24,
    recipe: Annotated[
        str | None, typer.Option(help="Crop as this recipe's last stage does (default: by box or detector).")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """What a face table holds: labels per column and their values; optionally a sheet of its faces and their crops."""
    import numpy as np
    import pyarrow.compute as pc

    from polyface.data.table import FaceTable
    from polyface.files import atomic_path, check_output

    if picture:
        check_output(picture, overwrite, inputs=_files(table))
    faces = FaceTable.open(table)
    say(f"{table}: {len(faces):,} faces")
    for lost in faces.left_out:
        say(f"  when it was made, {lost}")
    for name in faces.columns:
        column, held = faces.column(name), faces.declared(name)
        line = f"  {name:14} {len(column) - column.null_count:>9,} labelled"
        if held.vocabulary:
            classes = faces.classes(name, held.vocabulary)
            counts = np.bincount(classes[classes >= 0], minlength=len(held.vocabulary))
            shown = [f"{word} {n:,}" for word, n in zip(held.vocabulary, counts, strict=True) if n]
            if held.type == "words" and (others := len(column) - column.null_count - int(counts.sum())):
                shown.append(f"{others:,} of other words, which count as not labelled")
            line += f"   {'mostly ' if held.type == 'distribution' else ''}{', '.join(shown)}"
        elif held.type == "words":
            values = {v["values"]: v["counts"] for v in pc.value_counts(column.drop_null()).to_pylist()}
            few = len(values) <= _SHOWN
            line += "   " + (
                ", ".join(f"{w} {values[w]:,}" for w in sorted(values)) if few else f"{len(values):,} different words"
            )
        elif held.type == "number" and not np.isnan(numbers := faces.numbers(name)).all():
            line += f"   {np.nanmin(numbers):g} … {np.nanmax(numbers):g} {held.unit}".rstrip()
        if model := faces.pseudo(name):
            line += f"   (answers of {model}, not labels)"
        say(line)
    if picture:
        with atomic_path(picture) as aside:
            aside.write_bytes(_sheet(faces, count, recipe))
        say(f"drawn: {picture}")


_SHOWN = 12  # words of a column without a vocabulary that are counted one by one


def _sheet(faces: FaceTable, count: int, recipe: str | None) -> bytes:
    """A PNG of some faces with what is labelled of their place, each beside the crop that training sees."""
    import numpy as np

    from polyface.data.boxes import Boxes, BoxSpec, boxes_of
    from polyface.data.crops import CropSpec, cut
    from polyface.report.faces import contact_sheet, draw_face, png
    from polyface.schema import landmark_count

    if not len(faces):
        raise PolyfaceError(f"{faces.name}: holds no face to draw")
    rows = np.linspace(0, len(faces) - 1, min(count, len(faces))).astype(int)
    chosen = faces.take(rows)
    boxes = chosen.numbers("box")
    boxing, crop = BoxSpec(source="detector" if np.isnan(boxes).any() else "table"), CropSpec(size=160, channels=3)
    if recipe:
        from polyface.training.recipe import load

        stage = load(recipe).stages[-1]
        boxing, crop = stage.data.boxes, stage.data.crop
    exact = crop.model_copy(update={"margin": 1.0, "oversample": 1.0})  # what is cut beyond it is for augmentation
    try:
        cropped: Boxes | None = boxes_of(chosen, boxing)
    except PolyfaceError as error:
        cropped = None
        say(f"no crops are drawn: {error}")
    column = next((c for c in faces.columns if landmark_count(c)), None)
    points = chosen.points(column) if column else None
    drawn, names = [], []
    for row in range(len(chosen)):
        image, box = chosen.image(row), None if np.isnan(boxes[row]).any() else boxes[row]
        drawn.append(draw_face(image, box=box, truth=None if points is None else points[row], size=160))
        names.append(chosen.path(row).split("/")[-1])
        if cropped:
            drawn.append(draw_face(cut(image, cropped.xyxy[row], exact).transpose(1, 2, 0), size=160))
            names.append(f"crop by {boxing.source}, {crop.size} pixels")
    return png(contact_sheet(drawn, names))


@app.command("check")
def data_check(table: Annotated[Path, typer.Argument(help="A face table, or a folder of them.")]) -> None:
    """Decode every image and validate every label of a table again; exit status 1 if any is bad."""
    from polyface.data.table import FaceTable
    from polyface.data.writing import check_table

    faces = FaceTable.open(table)
    with bar() as progress:
        bad = check_table(faces, progress)
    for skipped in bad:
        say(str(skipped))
    say(f"{table}: {len(bad):,} bad faces")
    if bad:
        raise typer.Exit(1)
    _tell_doubts(faces)
