"""`polyface tune`: a search for the settings of a recipe."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from polyface.cli import common


def tune(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe's name or YAML file.")],
    space: Annotated[
        Path | None, typer.Option(help="A YAML file with the space to search (default: the recipe's key `space`).")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="Search the settings of a row of the recipe, which may start from what other rows trained."),
    ] = None,
    trials: Annotated[int, typer.Option(help="How many trials the study has in the end.", min=1)] = 20,
    data: common.DataOption = None,
    out: common.OutOption = Path("runs"),
    set_: common.SetOption = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.")] = None,
    device: common.DeviceOption = "auto",
    workers: Annotated[int, typer.Option("--workers", help="Trials at a time, each in its own process.", min=1)] = 1,
    results: Annotated[Path | None, typer.Option(help="Write the trials into a results file.")] = None,
) -> None:
    """Search the settings of a recipe: TPE, by the mean of the tasks' main figures on validation faces.

    A stopped search goes on where it was when the command is given again. Needs polyface[tune].
    """
    from polyface.metrics.result import Row
    from polyface.reproduce.jobs import started
    from polyface.reproduce.tune import Trial
    from polyface.reproduce.tune import tune as search
    from polyface.training.recipe import Recipe, load, slug
    from polyface.training.stages import RunOptions
    from polyface.training.texts import read_yaml_file

    common.check_outputs(results, None)
    chosen: Recipe = load(recipe, set_ or ())
    if space:
        chosen = chosen.searching(read_yaml_file(space), str(space))
    at = chosen.seed if seed is None else seed
    own = chosen.variant(variant, at) if variant else chosen.at(at)
    place = out / "-".join([chosen.place, *([slug(variant)] if variant else []), "tune"])
    with common.bar() as progress:
        options = RunOptions(accelerator=device, logger="none")
        runs = replace(options, progress=progress)
        earlier = started(chosen, variant, data, out / chosen.place, runs, at) if variant else None
        found = search(own, data, place, options, trials, workers, progress, earlier)

    ends = Counter(key.rpartition(".")[2] for key in own.space)

    def told(trial: Trial) -> str:
        """A trial's settings, keys by their last word where no other key has it."""
        words = {key: key.rpartition(".")[2] for key in trial.settings}
        short = {key if ends[word] > 1 else word: trial.settings[key] for key, word in words.items()}
        return " ".join(f"{key}={f'{v:.4g}' if isinstance(v, float) else v}" for key, v in short.items())

    rows = [
        [str(one.number), "" if one.value is None else f"{one.value:.2f}", one.state, told(one), one.why]
        for one in found
    ]
    common.say(common.aligned([">trial", ">mean figure", "state", "settings", ""], rows))
    again = f"polyface reproduce {recipe} --only '{variant}'" if variant else f"polyface train {recipe}"
    common.say(" ".join([f"best: {again}", *(f"--set {key}={value}" for key, value in found[0].settings.items())]))
    if results:
        from polyface.report.results import write_results

        made = [
            Row(f"trial {one.number}", "mean of main figures, validation", one.value, unit="", note=told(one))
            for one in found
            if one.value is not None
        ]
        write_results(results, made, command=common.command_of(context), data="validation faces of the recipe's tables")
        common.say(f"results: {results}")
