"""`polyface train`, `extend` and `evaluate`: one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyface.cli import common

if TYPE_CHECKING:
    from polyface.metrics.result import Row


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (`synthetic`, or a paper's) or YAML file.")],
    data: common.DataOption = None,
    out: Annotated[Path, typer.Option(help="Where the run is kept; the same command resumes it.")] = Path("runs"),
    set_: common.SetOption = None,
    variant: Annotated[str | None, typer.Option(help="Train a variant (a row of the paper's table).")] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.")] = None,
    device: common.DeviceOption = "auto",
    devices: Annotated[int, typer.Option(help="How many devices (processes, with strategy ddp).")] = 1,
    strategy: Annotated[str, typer.Option(help="Lightning's strategy: auto, ddp, fsdp, …")] = "auto",
    logger: Annotated[str, typer.Option(help="csv, tensorboard or none.")] = "csv",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option(help="Save every so many batches (default: 2 minutes).")
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Start over instead of resuming.")] = False,
) -> None:
    """Train all stages of a recipe. A stopped run goes on where it was when the command is given again. What a variant
    starts from is trained first, where `polyface reproduce` keeps it too."""
    from polyface.reproduce.jobs import started
    from polyface.training import stages
    from polyface.training.recipe import load

    chosen = load(recipe, set_ or ())
    seed = chosen.seed if seed is None else seed
    own = chosen.variant(variant, seed) if variant else chosen.at(seed)
    place = out / chosen.place
    with common.bar() as progress:
        options = stages.RunOptions(
            accelerator=device, devices=devices, strategy=strategy, logger=logger, threads=threads,
            checkpoint_steps=checkpoint_steps, fresh=fresh, progress=progress,
        )  # fmt: skip
        earlier = started(chosen, variant, data, place, replace(options, fresh=False), seed) if variant else None
        results = stages.run(own, place, data, options, earlier)
    for name, result in results.items():
        common.say(f"{name}: {result.bundle} ({result.seconds:.0f} s)")


def extend(
    model: Annotated[str, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    added: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE|TASK...", help="A recipe; or tasks, name=kind: emotion=classification."),
    ],
    table: Annotated[list[str] | None, typer.Option(help="A data set or face table with the tasks' labels.")] = None,
    data: common.DataOption = None,
    reads: Annotated[str, typer.Option(help="Columns of the model that the new ones also read: age,gender.")] = "",
    out: Annotated[Path, typer.Option(help="Where the run is kept; the same command resumes it.")] = Path("runs"),
    set_: common.SetOption = None,
    device: common.DeviceOption = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    fresh: Annotated[bool, typer.Option(help="Start over instead of resuming.")] = False,
) -> None:
    """Add tasks to a trained model without changing a bit of what it answers: each learns a column of its own."""
    from polyface.models import find
    from polyface.training import stages
    from polyface.training.extending import extension

    columns = [name.strip() for name in reads.split(",") if name.strip()]
    recipe = extension(model, added, table or (), columns, set_ or ())
    with common.bar() as progress:
        options = stages.RunOptions(accelerator=device, threads=threads, fresh=fresh, progress=progress)
        results = stages.run(recipe, out / recipe.place, data, options, {model: find(model)})
    for name, result in results.items():
        common.say(f"{name}: {result.bundle} ({result.seconds:.0f} s)")


def evaluate(
    context: typer.Context,
    bundle: Annotated[str, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    tables: Annotated[list[str], typer.Argument(help="Data sets or face tables to evaluate it on.")],
    data: common.DataOption = None,
    split: Annotated[str, typer.Option("--split", "--part", help="Which faces: test, val, train or all.")] = "test",
    protocol: Annotated[
        str | None, typer.Option(help="By what: a protocol (`polyface parts protocol`), or a data set's own.")
    ] = None,
    protocol_option: Annotated[list[str] | None, typer.Option(help="An option of the protocol: name=value.")] = None,
    by: Annotated[str, typer.Option(help="Every figure also by the words of these columns: gender,age_group.")] = "",
    average: common.AverageOption = 1,
    mirror: common.MirrorOption = False,
    name: common.NameOption = "",
    device: common.DeviceOption = "cpu",
    report: Annotated[Path | None, typer.Option(help="Write an HTML report.")] = None,
    results: Annotated[Path | None, typer.Option(help="Write the figures into a results file.")] = None,
) -> None:
    """Evaluate a model on labelled faces: each task, or how well people are told apart, by a protocol."""
    from polyface import protocols
    from polyface.models import find, model_info
    from polyface.models.bundle import load_bundle
    from polyface.models.predict import TTA
    from polyface.protocols.evaluation import evaluate_tables
    from polyface.training.recipe import assignments

    held = [data / f"{table}.parquet" for table in tables] if data else []
    common.check_outputs(results, report, [bundle, *tables, *held])
    options = assignments(protocol_option or (), "--protocol-option")
    settings = protocols.settings(protocol) if protocol or options else None
    model, name = load_bundle(find(bundle)), name or model_info(bundle).name
    with common.bar() as progress:
        tta = TTA(average, mirror=mirror)
        found = evaluate_tables(
            model, tables, data, split, settings and settings | options,
            tta=tta, device=common.device_of(device), progress=progress,
        )  # fmt: skip
    columns = [column.strip() for column in by.split(",") if column.strip()]
    whole, groups = found.rows(name), [row for column in columns for row in found.by(column, name)]
    common.say(_table([row for row in whole if row.row == name] + groups, name))
    title = f"{bundle} on {', '.join(tables)} ({split})"
    if results:
        from polyface.report.results import write_results

        write_results(results, whole + groups, command=common.command_of(context), data=", ".join(tables))
        common.say(f"results: {results}")
    if report:
        from polyface.reproduce import evaluation_report

        common.say(f"report: {evaluation_report(report, found, title, columns)}")


def _table(rows: Sequence[Row], name: str) -> str:
    """Figures as aligned columns: of which faces, what, how much with its 95 % interval, of how many."""
    from polyface.report.results import format_row

    cells = []
    for row in rows:
        faces = row.row.removeprefix(name).removeprefix(": ") or "all"
        n = "" if row.n is None else f"{row.n:,}"
        cells.append((faces, row.metric, f"{format_row(row)} {row.unit}".strip(), n))
    return common.aligned(("faces", "figure", "", "n"), cells)
