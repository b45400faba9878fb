"""`polyface reproduce`: the rows of a paper's table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyface.cli import common


def reproduce(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe's name or YAML file.")],
    data: common.DataOption = None,
    out: common.OutOption = Path("runs"),
    only: Annotated[
        list[str] | None, typer.Option(help="Train, and write the rows of, only variants that match (wildcards).")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds a variant, instead of the recipe's.")] = None,
    results: common.ResultsOption = None,
    set_: common.SetOption = None,
    device: common.DeviceOption = "auto",
    workers: common.WorkersOption = 1,
    yes: common.YesOption = False,
    collect: common.CollectOption = False,
) -> None:
    """Train and measure the rows of a paper's table over seeds, and print them beside the published figures."""
    from polyface import reproduce as rows
    from polyface.papers import paper
    from polyface.training.recipe import load

    chosen = load(recipe, set_ or ())
    of = paper(chosen.name)
    todo = rows.jobs(chosen, only or (), seeds)
    place = out / chosen.place
    file, page = results or place / "results.json", place / "report.html"
    common.check_outputs(file, page, [recipe])
    left = [job for job in todo if not rows.finished(chosen, place, job, data=data)]
    hours = rows.hours(chosen, left) / workers
    common.say(f"{len(todo)} runs, {len(todo) - len(left)} finished; the rest takes about {hours:.1f} hours here")
    failed: dict[rows.Job, Exception] = {}
    if not collect:
        with common.running(hours, yes, device, workers) as (options, progress):
            rows.run_jobs(chosen, todo, data, place, options, workers, progress, failed=failed)
            asked = [job for job in todo if job.variant in of.validated and job not in failed]
            rows.run_jobs(chosen, asked, data, place, options, workers, progress, ("val",), failed)
    if failed and len(failed) == len(todo):
        raise next(iter(failed.values()))
    command = common.command_of(context)
    runs = rows.Runs(chosen, data, place)
    rows.collect(runs, file, command, ", ".join(rows.sources(chosen)), of.figures, of.rows(runs), only or ())
    rows.table_report(page, runs, file, of.figures, of.statements, of.sections(runs))
    common.say(rows.printed(chosen, file))
    common.say(f"results: {file}\nreport: {page}")
    common.tell_failed(failed)
