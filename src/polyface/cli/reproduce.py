"""`polyface reproduce`: the rows of a paper's table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

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
    tell_failed,
)


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
    from polyface.papers import paper
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
    of = paper(chosen.name)
    rows.collect(runs, file, command, ", ".join(rows.sources(chosen)), of.figures)
    page = rows.table_report(place / "report.html", runs, file, of.figures, of.statements, of.sections(runs))
    say(rows.printed(chosen, file))
    say(f"results: {file}\nreport: {page}")
    tell_failed(failed)
