"""The `polyface` command. Heavy imports wait until a command needs them, so that `--help` answers at once."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyface.errors import PolyfaceError

if TYPE_CHECKING:
    from polyface.data.table import Progress

app = typer.Typer(
    help="One face, many questions: train, compare, explain and run multi-task face networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Face tables: import, look at and check data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder with <name>.parquet face tables or raw data sets <name>/.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key: stage.key.key=value.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, mps, or auto.")]


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on stderr; a new line of it for every new kind of work."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True)) as shown:
        known: dict[tuple[str, int], Any] = {}

        def report(done: int, total: int, what: str) -> None:
            key = (what.split(" · ")[0].split(" epoch ")[0], total)
            if key not in known:
                known[key] = shown.add_task(what, total=total)
            shown.update(known[key], completed=done, description=what)

        yield report


def say(text: str) -> None:
    typer.echo(text)


_HERE = {"out", "results", "report", "device", "workers", "yes", "collect"}  # options that change no figure


def _command(context: typer.Context) -> str:
    """The running command as anyone would type it: without what only says where and how it ran here."""
    words = ["polyface", str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if parameter.name in _HERE or value in (None, [], parameter.default):
            continue
        option = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
        for each in value if isinstance(value, list) else [value]:
            words += [*option, "DIR" if parameter.name == "data" else shlex.quote(str(each))]
    return " ".join(words)


def _settings(texts: list[str] | None, option: str) -> dict[str, Any]:
    """name=value words of an option, the values read as YAML."""
    import yaml

    found = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise PolyfaceError(f"{option} {text}: expected name=value")
        found[key] = yaml.safe_load(value)
    return found


# ------------------------------------------------------------------------------------------------ data


@data_app.command("list")
def data_list() -> None:
    """Known readers: what they read, and whether they were tried on the real files."""
    from polyface.data.readers import reader, reader_names

    for name in reader_names():
        found = reader(name)
        say(f"{name:12} {'verified' if found.verified else 'not verified':13} {found.about}")


@data_app.command("import")
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

    found = reader(name, **_settings(option, "--option"))
    with bar() as progress:
        report = write_table(found.records(source), table, on_bad=on_bad, workers=workers, progress=progress)
    for skipped in report.skipped:
        say(f"skipped {skipped.where}: {skipped.reason}")
    labelled = ", ".join(f"{column} {count:,}" for column, count in report.labelled.items())
    say(f"{table}: {report.rows:,} faces, {len(report.skipped):,} skipped; labelled: {labelled}")


@data_app.command("show")
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
        say(line)
    if picture:
        from polyface.evaluation.pictures import contact_sheet, draw_face, png
        from polyface.files import atomic_path

        column_name = next((c for c in faces.columns if landmark_count(c)), None)
        rows = np.linspace(0, len(faces) - 1, min(count, len(faces))).astype(int)
        points = faces.points(column_name) if column_name else None
        drawn = [draw_face(faces.image(r), truth=None if points is None else points[r], size=160) for r in rows]
        with atomic_path(picture) as aside:
            aside.write_bytes(png(contact_sheet(drawn, [faces.path(r).split("/")[-1] for r in rows])))
        say(f"drawn: {picture}")


@data_app.command("check")
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


# ------------------------------------------------------------------------------------------------ training


@app.command()
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
    if variant:
        chosen = chosen.variant(variant)
    if seed is not None:
        chosen = chosen.model_copy(update={"seed": seed})
    place = out / chosen.name
    with bar() as progress:
        options = stages.RunOptions(
            accelerator=device, devices=devices, strategy=strategy, logger=logger, threads=threads,
            checkpoint_steps=checkpoint_steps, fresh=fresh, progress=progress,
        )  # fmt: skip
        results = stages.run(chosen, place, data, options)
    for name, result in results.items():
        say(f"{name}: {result.bundle} ({result.seconds:.0f} s)")


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    tables: Annotated[list[str], typer.Argument(help="Data sets or face tables to measure on.")],
    data: DataOption = None,
    part: Annotated[str, typer.Option(help="Which split: test, val or train.")] = "test",
    average: Annotated[int, typer.Option(help="Average over so many small translations.")] = 1,
    device: DeviceOption = "cpu",
    report: Annotated[Path | None, typer.Option(help="Write an HTML report.")] = None,
) -> None:
    """Measure a model on labelled faces: every task with its own metric, and an HTML report."""
    from polyface.evaluation.landmarks import LandmarkResult
    from polyface.evaluation.measure import measure_tables
    from polyface.inference.models import find
    from polyface.networks.bundle import load_bundle

    model = load_bundle(find(bundle))
    with bar() as progress:
        found = measure_tables(model, tables, data, part, average=average, device=_device(device), progress=progress)
    for name, result in found.results.items():
        if isinstance(result, LandmarkResult):
            figures = f"mean error {result.mean_error:.2f} %, failure rate {result.failure_rate:.2f} %"
        else:
            figures = f"accuracy {result.accuracy:.2f} %, balanced {result.balanced_accuracy:.2f} %"
        say(f"{name}: {figures}, n {result.n:,}")
    if report:
        from polyface.reproduce import evaluation_report

        title = f"{bundle} on {', '.join(tables)} ({part})"
        say(f"report: {evaluation_report(report, found, model, title)}")


@app.command()
def reproduce(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe's name or YAML file.")],
    data: DataOption = None,
    out: Annotated[Path, typer.Option(help="Where the runs are kept; the same command resumes them.")] = Path("runs"),
    only: Annotated[list[str] | None, typer.Option(help="Only variants that match (wildcards).")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds a variant, instead of the recipe's.")] = None,
    results: Annotated[Path | None, typer.Option(help="Results file to write (default: in --out).")] = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(help="Runs at a time, each in its own process.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a run of hours.")] = False,
    collect: Annotated[bool, typer.Option(help="Only gather what is finished.")] = False,
) -> None:
    """Train and measure the rows of a paper's table over seeds, and print them beside the published figures."""
    from polyface import reproduce as rows
    from polyface.training.recipe import load
    from polyface.training.stages import RunOptions

    chosen = load(recipe, set_ or ())
    todo = rows.jobs(chosen, only or (), seeds)
    place = out / chosen.name
    left = [job for job in todo if not rows.finished(chosen, place, job)]
    hours = rows.hours(chosen, left) / workers
    say(f"{len(todo)} runs, {len(todo) - len(left)} finished; the rest takes about {hours:.1f} hours here")
    if not collect:
        if hours > 1 and not yes and sys.stdin.isatty():
            typer.confirm("Go on?", abort=True)
        with bar() as progress:
            options = RunOptions(accelerator=device, progress=progress if workers == 1 else None, logger="none")
            rows.run_jobs(chosen, todo, data, place, options, workers, progress)
    file = results or place / "results.json"
    command = _command(context)
    runs = rows.Runs(chosen, data, place)
    rows.collect(runs, file, command, ", ".join(rows.sources(chosen)))
    page = rows.table_report(place / "report.html", runs, file)
    say(rows.printed(chosen, file))
    say(f"results: {file}\nreport: {page}")


@app.command("compare-weightings")
def compare_weightings(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe's name or YAML file.")],
    data: DataOption = None,
    out: Annotated[Path, typer.Option(help="Where the runs are kept; the same command resumes them.")] = Path("runs"),
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
    results: Annotated[Path | None, typer.Option(help="Results file to write (default: in --out).")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write (default: in --out).")] = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(help="Runs at a time, each in its own process.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a run of hours.")] = False,
    collect: Annotated[bool, typer.Option(help="Only gather what is finished.")] = False,
) -> None:
    """Train a recipe under many weightings, with equal budgets, and compare main task, side tasks, weights and cost.

    Beside the weightings stand a plain sum (uniform), the recipe's own weights, and the main task alone. The finals are
    chosen on the validation faces, never on the test faces.
    """
    from polyface.reproduce import weighting_pages as pages
    from polyface.reproduce.weightings import Budget, Comparison, read_options
    from polyface.training.recipe import load
    from polyface.training.stages import RunOptions

    chosen = load(recipe, set_ or ())
    budget = Budget(seeds, finals, final_seeds, tuple(always or ()), _settings(screening_set, "--screening-set"))
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
    command = _command(context)
    rows = pages.collect(compared, file, command)
    page = pages.report(report or compared.place / "weightings.html", compared, rows, command)
    say(pages.printed(compared, file))
    say(f"results: {file}\nreport: {page}")
    for job, why in compared.failed.items():
        typer.echo(f"failed: {job}: {why}", err=True)
    if compared.failed:
        raise typer.Exit(1)


# ------------------------------------------------------------------------------------------------ inference


@app.command()
def analyze(
    images: Annotated[list[str], typer.Argument(help="Photos or folders.")],
    model: Annotated[list[str] | None, typer.Option(help="Bundles or shipped names (default: all shipped).")] = None,
    out: Annotated[Path | None, typer.Option(help="A .jsonl or .parquet file, or a folder for drawn pictures.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Folder for pictures with what was found drawn in.")] = None,
    average: Annotated[int, typer.Option(help="Average over so many small translations.")] = 1,
    device: DeviceOption = "cpu",
    batch: Annotated[int, typer.Option(help="Faces a forward pass takes.")] = 64,
) -> None:
    """Find the faces of photos and answer all questions of the models about them, in original pixels."""
    from polyface.inference import Analyzer, to_json_lines, to_parquet
    from polyface.inference.analyzer import image_files

    analyzer = Analyzer(*(model or []), device=_device(device), batch=batch, average=average)
    files = [file for source in images for file in image_files(source)]
    single = len(files) == 1
    with bar() as progress:
        found = analyzer(files[0] if single else files, progress=progress)
    for result in found:
        if result.error:
            typer.echo(f"{result.path}: {result.error}", err=True)
        elif not result.faces:
            typer.echo(f"{result.path}: no face found", err=True)
    if out and out.suffix == ".parquet":
        to_parquet(found, out)
    elif out and out.suffix in (".jsonl", ".json"):
        from polyface.files import atomic_path

        with atomic_path(out) as aside:
            aside.write_text(to_json_lines(found))
    elif out:
        raise PolyfaceError(f"--out {out}: expected a .jsonl or .parquet file (pictures go to --draw FOLDER)")
    else:
        say(to_json_lines(found).rstrip())
    if draw:
        from polyface.inference import draw_all

        for path in draw_all(found, draw):
            typer.echo(f"drawn: {path}", err=True)


@app.command()
def models() -> None:
    """The models that are shipped: tasks, size, terms."""
    from polyface.inference.models import models as shipped

    for info in shipped():
        say(f"{info.name:20} {info.size_mb:5.2f} MB  {', '.join(info.tasks)}\n{'':20} {info.terms}")


@app.command()
def export(
    bundle: Annotated[str, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    path: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
) -> None:
    """Export a bundle's network to ONNX, normalisation included, and check that it answers the same."""
    from polyface.inference.export import export_onnx
    from polyface.inference.models import find
    from polyface.networks.bundle import load_bundle

    difference = export_onnx(load_bundle(find(bundle)), path)
    say(f"{path}: largest difference from PyTorch {difference:.1e}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the run and its report go.")] = Path("demo"),
    photo: Annotated[Path | None, typer.Option(help="A photo to analyze (default: one that matplotlib ships).")] = None,
    set_: SetOption = None,
) -> None:
    """The main job in about a minute: train on synthetic faces, evaluate, analyze a photo, write one HTML report."""
    from polyface.reproduce import demonstrate

    with bar() as progress:
        page = demonstrate(out, photo, set_ or (), progress)
    say(f"report: {page}")


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        say(installed("polyface"))
        raise typer.Exit


def main() -> None:
    """Run the command; a PolyfaceError is one line on stderr and exit status 1."""
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    try:
        app()
    except PolyfaceError as error:
        typer.echo(f"polyface: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"polyface: {where}{error.strerror or error}; free space or mend the path, then run again", err=True)
        sys.exit(1)
    except SystemExit as leaving:
        if leaving.code == 130:  # what typer makes of an interrupt, without a word
            typer.echo("polyface: interrupted; the same command goes on where it was", err=True)
        raise


if __name__ == "__main__":
    main()
