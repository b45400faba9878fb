"""`polyface train` and `polyface evaluate`: one network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyface.cli.common import AverageOption, DataOption, DeviceOption, MirrorOption, SetOption, bar, device_of, say


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (tcdcn, synthetic, …) or YAML file.")],
    data: DataOption = None,
    out: Annotated[Path, typer.Option(help="Where the run is kept; the same command resumes it.")] = Path("runs"),
    set_: SetOption = None,
    variant: Annotated[str | None, typer.Option(help="Train a variant (a row of the paper's table).")] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.")] = None,
    device: DeviceOption = "auto",
    devices: Annotated[int, typer.Option(help="How many devices (processes, with strategy ddp).")] = 1,
    strategy: Annotated[str, typer.Option(help="Lightning's strategy: auto, ddp, fsdp, …")] = "auto",
    logger: Annotated[str, typer.Option(help="csv, tensorboard or none.")] = "csv",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option(help="Save every so many batches (default: 2 minutes).")
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Start over instead of resuming.")] = False,
) -> None:
    """Train all stages of a recipe. A stopped run goes on where it was when the command is given again."""
    from polyface.training import stages
    from polyface.training.recipe import load

    chosen = load(recipe, set_ or ())
    seed = chosen.seed if seed is None else seed
    chosen = chosen.variant(variant, seed) if variant else chosen.at(seed)
    place = out / chosen.place
    with bar() as progress:
        options = stages.RunOptions(
            accelerator=device, devices=devices, strategy=strategy, logger=logger, threads=threads,
            checkpoint_steps=checkpoint_steps, fresh=fresh, progress=progress,
        )  # fmt: skip
        results = stages.run(chosen, place, data, options)
    for name, result in results.items():
        say(f"{name}: {result.bundle} ({result.seconds:.0f} s)")


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    tables: Annotated[list[str], typer.Argument(help="Data sets or face tables to evaluate it on.")],
    data: DataOption = None,
    part: Annotated[str, typer.Option(help="Which split: test, val or train.")] = "test",
    average: AverageOption = 1,
    mirror: MirrorOption = False,
    device: DeviceOption = "cpu",
    report: Annotated[Path | None, typer.Option(help="Write an HTML report.")] = None,
) -> None:
    """Evaluate a model on labelled faces: every task with its own metric, and an HTML report."""
    from polyface.models import find
    from polyface.models.bundle import load_bundle
    from polyface.models.evaluate import evaluate_tables
    from polyface.models.predict import Views

    model = load_bundle(find(bundle))
    with bar() as progress:
        views = Views(average, mirror=mirror)
        found = evaluate_tables(model, tables, data, part, views=views, device=device_of(device), progress=progress)
    for name, result in found.results.items():
        whole = [metric for metric in result.metrics if not metric.part]
        figures = [f"{metric.name} {result.figure(metric):.2f} {metric.unit}".strip() for metric in whole]
        say(f"{name}: {', '.join(figures)}, n {whole[0].n:,}")
    if report:
        from polyface.reproduce import evaluation_report

        title = f"{bundle} on {', '.join(tables)} ({part})"
        say(f"report: {evaluation_report(report, found, model, title)}")
