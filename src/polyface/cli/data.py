"""`polyface data`: face tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyface.cli.common import DeviceOption, bar, device_of, say

app = typer.Typer(help="Face tables: import, look at and check data sets.", no_args_is_help=True)


@app.command("list")
def data_list() -> None:
    """Known readers: what they read, and whether they were tried on the real files."""
    from polyface.data.readers import READERS, reader

    for name in sorted(READERS.names()):
        found = reader(name)
        say(f"{name:12} {'verified' if found.verified else 'not verified':13} {found.about}")


@app.command("import")
def data_import(
    name: Annotated[str, typer.Argument(help="A reader's name; see `polyface data list`.")],
    source: Annotated[Path, typer.Argument(help="The data set's folder or file.")],
    table: Annotated[Path, typer.Argument(help="The face table (.parquet) to write.")],
    on_bad: Annotated[str, typer.Option(help="A face that cannot be taken: error or skip.")] = "error",
    workers: Annotated[int | None, typer.Option(help="Threads that decode images.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="A reader's option: name=value.")] = None,
) -> None:
    """Bring a data set, in the layout its authors publish, into a face table."""
    from polyface.data.readers import reader
    from polyface.data.table import write_table
    from polyface.training.recipe import assignments

    found = reader(name, **assignments(option or (), "--option"))
    with bar() as progress:
        report = write_table(found.records(source), table, on_bad=on_bad, workers=workers, progress=progress)
    for skipped in report.skipped:
        say(f"skipped {skipped.where}: {skipped.reason}")
    labelled = ", ".join(f"{column} {count:,}" for column, count in report.labelled.items())
    say(f"{table}: {report.rows:,} faces, {len(report.skipped):,} skipped; labelled: {labelled}")


@app.command("label")
def data_label(
    table: Annotated[Path, typer.Argument(help="A face table, or a folder of them.")],
    model: Annotated[str, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    out: Annotated[Path, typer.Argument(help="The face table (.parquet) to write.")],
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks of the model (default: all).")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Let a model label faces: its answers become label columns that are marked as pseudo-labels."""
    from polyface.data.table import FaceTable
    from polyface.models.labels import label_table

    with bar() as progress:
        report = label_table(
            FaceTable.open(table), model, out, tasks=task or (), device=device_of(device), progress=progress
        )
    faces = FaceTable.open(out)
    told = [f"{name} {count:,}" for name, count in report.labelled.items() if faces.pseudo(name)]
    say(f"{out}: {report.rows:,} faces; labelled by {model}: {', '.join(told) or 'none'}")


@app.command("show")
def data_show(
    table: Annotated[Path, typer.Argument(help="A face table, or a folder of them.")],
    picture: Annotated[Path | None, typer.Option(help="Draw some faces with their points into this PNG.")] = None,
    count: Annotated[int, typer.Option(help="How many faces to draw.")] = 24,
) -> None:
    """What a face table holds: labels per column and their values; optionally a sheet of its faces."""
    import numpy as np
    import pyarrow.compute as pc

    from polyface.data.table import FaceTable
    from polyface.schema import VOCABULARIES, landmark_count

    faces = FaceTable.open(table)
    say(f"{table}: {len(faces):,} faces")
    for name in faces.columns:
        column = faces.column(name)
        line = f"  {name:14} {len(column) - column.null_count:>9,} labelled"
        if name in VOCABULARIES or name == "source":
            counts = {v["values"]: v["counts"] for v in pc.value_counts(column.drop_null()).to_pylist()}
            order = [w for w in VOCABULARIES.get(name, sorted(counts)) if w in counts]
            line += "   " + ", ".join(f"{word} {counts[word]:,}" for word in order)
        elif name == "identity":
            line += f"   {pc.count_distinct(column).as_py():,} people"
        if model := faces.pseudo(name):
            line += f"   (answers of {model}, not labels)"
        say(line)
    if picture:
        from polyface.files import atomic_path
        from polyface.report.faces import contact_sheet, draw_face, png

        column_name = next((c for c in faces.columns if landmark_count(c)), None)
        rows = np.linspace(0, len(faces) - 1, min(count, len(faces))).astype(int)
        points = faces.points(column_name) if column_name else None
        drawn = [draw_face(faces.image(r), truth=None if points is None else points[r], size=160) for r in rows]
        with atomic_path(picture) as aside:
            aside.write_bytes(png(contact_sheet(drawn, [faces.path(r).split("/")[-1] for r in rows])))
        say(f"drawn: {picture}")


@app.command("check")
def data_check(table: Annotated[Path, typer.Argument(help="A face table, or a folder of them.")]) -> None:
    """Decode every image and validate every label of a table again; exit status 1 if any is bad."""
    from polyface.data.table import FaceTable, check_table

    with bar() as progress:
        bad = check_table(FaceTable.open(table), progress)
    for skipped in bad:
        say(f"{skipped.where}: {skipped.reason}")
    say(f"{table}: {len(bad):,} bad faces")
    if bad:
        raise typer.Exit(1)
