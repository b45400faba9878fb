"""`polyface compare-weightings`: one recipe under many weightings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyface.cli import common


def compare_weightings(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe's name or YAML file.")],
    data: common.DataOption = None,
    out: common.OutOption = Path("runs"),
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
    results: common.ResultsOption = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write (default: in --out).")] = None,
    set_: common.SetOption = None,
    device: common.DeviceOption = "auto",
    workers: common.WorkersOption = 1,
    yes: common.YesOption = False,
    collect: common.CollectOption = False,
) -> None:
    """Train a recipe under many weightings, with equal budgets, and compare main task, side tasks, weights and cost.

    Beside the weightings stand a plain sum (uniform), the recipe's own weights, and the main task alone. The finals are
    chosen on the validation faces, never on the test faces.
    """
    from polyface.compare import page as pages
    from polyface.compare.weightings import Budget, Comparison, read_options
    from polyface.training.recipe import assignments, load

    chosen = load(recipe, set_ or ())
    changes = assignments(screening_set or (), "--screening-set")
    budget = Budget(seeds, finals, final_seeds, tuple(always or ()), changes)
    compared = Comparison(
        chosen, data, out, budget, variant=variant, weightings=weighting or (), options=read_options(options)
    )
    file, page = results or compared.place / "results.json", report or compared.place / "weightings.html"
    common.check_outputs(file, page, [recipe, *([options] if options else [])])
    common.say(compared.estimate(workers))
    if not collect:
        with common.running((compared.hours() or 0) / workers, yes, device, workers) as (run, progress):
            compared.run(run, workers, progress, common.tell)
    command = common.command_of(context)
    rows = pages.collect(compared, file, command)
    pages.report(page, compared, rows, command)
    common.say(pages.printed(compared, file))
    common.say(f"results: {file}\nreport: {page}")
    common.tell_failed(compared.failed)
