"""`polyface reproduce` and `polyface compare-weightings`: many networks, side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyface.cli.common import (
    CollectOption,
    DataOption,
    DeviceOption,
    OutOption,
    ResultsOption,
    SetOption,
    WorkersOption,
    YesOption,
    bar,
    command_of,
    say,
)
from polyface.errors import NoDataError

if TYPE_CHECKING:
    from polyface.reproduce import Job


def reproduce(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe's name or YAML file.")],
    data: DataOption = None,
    out: OutOption = Path("runs"),
    only: Annotated[list[str] | None, typer.Option(help="Only variants that match (wildcards).")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds a variant, instead of the recipe's.")] = None,
    results: ResultsOption = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = 1,
    yes: YesOption = False,
    collect: CollectOption = False,
) -> None:
    """Train and measure the rows of a paper's table over seeds, and print them beside the published figures."""
    from polyface import reproduce as rows
    from polyface.training.recipe import load
    from polyface.training.stages import RunOptions

    chosen = load(recipe, set_ or ())
    todo = rows.jobs(chosen, only or (), seeds)
    place = out / chosen.place
    left = [job for job in todo if not rows.finished(chosen, place, job)]
    hours = rows.hours(chosen, left) / workers
    say(f"{len(todo)} runs, {len(todo) - len(left)} finished; the rest takes about {hours:.1f} hours here")
    failed: dict[rows.Job, Exception] = {}
    if not collect:
        if hours > 1 and not yes and sys.stdin.isatty():
            typer.confirm("Go on?", abort=True)
        with bar() as progress:
            options = RunOptions(accelerator=device, progress=progress if workers == 1 else None, logger="none")
            rows.run_jobs(chosen, todo, data, place, options, workers, progress, failed=failed)
    if failed and len(failed) == len(todo):
        raise next(iter(failed.values()))
    file = results or place / "results.json"
    command = command_of(context)
    runs = rows.Runs(chosen, data, place)
    rows.collect(runs, file, command, ", ".join(rows.sources(chosen)))
    page = rows.table_report(place / "report.html", runs, file)
    say(rows.printed(chosen, file))
    say(f"results: {file}\nreport: {page}")
    _tell(failed)


def compare_weightings(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe's name or YAML file.")],
    data: DataOption = None,
    out: OutOption = Path("runs"),
    variant: Annotated[str | None, typer.Option(help="A row of the recipe's table (default: its own stages).")] = None,
    weighting: Annotated[
        list[str] | None,
        typer.Option(help="Only these (default: all); mgda:shared takes gradients of all shared parameters."),
    ] = None,
    options: Annotated[
        Path | None, typer.Option(help="Options of weightings, a YAML file {weighting: {option: value}}.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds a row in the screening.", min=1)] = 1,
    finals: Annotated[int, typer.Option(help="How many of the best by validation go on to the finals.", min=0)] = 0,
    final_seeds: Annotated[int, typer.Option(help="Seeds a row in the finals.", min=1)] = 5,
    always: Annotated[list[str] | None, typer.Option(help="Weightings that are in the finals anyway.")] = None,
    screening_set: Annotated[
        list[str] | None,
        typer.Option(help="Change a key in the screening only: stage.optimisation.epochs=8; the finals start anew."),
    ] = None,
    results: ResultsOption = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write (default: in --out).")] = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = 1,
    yes: YesOption = False,
    collect: CollectOption = False,
) -> None:
    """Train a recipe under many weightings, with equal budgets, and compare main task, side tasks, weights and cost.

    Beside the weightings stand a plain sum (uniform), the recipe's own weights, and the main task alone. The finals are
    chosen on the validation faces, never on the test faces.
    """
    from polyface.reproduce import weighting_pages as pages
    from polyface.reproduce.weightings import Budget, Comparison, read_options
    from polyface.training.recipe import assignments, load
    from polyface.training.stages import RunOptions

    chosen = load(recipe, set_ or ())
    changes = assignments(screening_set or (), "--screening-set")
    budget = Budget(seeds, finals, final_seeds, tuple(always or ()), changes)
    compared = Comparison(
        chosen, data, out, budget, variant=variant, weightings=weighting or (), options=read_options(options)
    )
    say(compared.estimate(workers))
    if not collect:
        if (compared.hours() or 0) / workers > 1 and not yes and sys.stdin.isatty():
            typer.confirm("Go on?", abort=True)
        with bar() as progress:
            run = RunOptions(accelerator=device, progress=progress if workers == 1 else None, logger="none")
            compared.run(run, workers, progress, lambda text: typer.echo(text, err=True))
    file = results or compared.place / "results.json"
    command = command_of(context)
    rows = pages.collect(compared, file, command)
    page = pages.report(report or compared.place / "weightings.html", compared, rows, command)
    say(pages.printed(compared, file))
    say(f"results: {file}\nreport: {page}")
    _tell(compared.failed)


def _tell(failed: Mapping[Job, Exception]) -> None:
    """Say what could not be run; only what should have been makes the command fail."""
    broken = [job for job, why in failed.items() if not isinstance(why, NoDataError)]
    for job, why in failed.items():
        typer.echo(f"{'failed' if job in broken else 'no data'}: {job}: {why}", err=True)
    if broken:
        raise typer.Exit(1)
