"""What the commands share: options, the progress bar, how a command is told in a results file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyface.errors import NoDataError, PolyfaceError, one_line

if TYPE_CHECKING:
    from polyface.data.table import Progress
    from polyface.reproduce import Job
    from polyface.training.stages import RunOptions

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder with <name>.parquet face tables or raw data sets <name>/.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key: stage.key.key=value.")]
OutOption = Annotated[Path, typer.Option("--out", help="Where the runs are kept; the same command resumes them.")]
ResultsOption = Annotated[Path | None, typer.Option("--results", help="Results file to write (default: in --out).")]
WorkersOption = Annotated[int, typer.Option("--workers", help="Runs at a time, each in its own process.", min=1)]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before a run of hours.")]
CollectOption = Annotated[bool, typer.Option(help="Only gather what is finished.")]
AverageOption = Annotated[int, typer.Option("--average", help="Average over so many small translations.")]
MirrorOption = Annotated[bool, typer.Option("--mirror", help="Average over the mirrored face as well.")]
ThresholdOption = Annotated[float, typer.Option("--threshold", help="The lowest score of a face that is kept, 0 … 1.")]
MaxSideOption = Annotated[
    int,
    typer.Option("--max-side", help="Search larger pictures at so many pixels; with 640, quickly and for large faces."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, mps, or auto.")]
NameOption = Annotated[str, typer.Option("--name", help="What rows call the model (default: its own name).")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a file that Polyface did not make.")]


def check_outputs(results: Path | None, report: Path | None, inputs: Iterable[Path | str] = ()) -> None:
    """Refuse before any work what could not be written after it: a results file that is none, a page that would replace
    a file of somebody else's. inputs: files that are read."""
    from polyface.files import check_output
    from polyface.report.results import check_results

    if results and report and results.absolute() == report.absolute():
        raise PolyfaceError(f"{report}: cannot hold both results and report; name two files")
    if results:
        check_results(results)
    if report:
        check_output(report, inputs=inputs)


@contextmanager
def running(hours: float, yes: bool, device: str, workers: int) -> Iterator[tuple[RunOptions, Progress]]:
    """What many runs need, with a progress bar, after asking whether to go on where they take more than an hour."""
    from polyface.training.stages import RunOptions

    if hours > 1 and not yes and sys.stdin.isatty():
        typer.confirm("Go on?", abort=True)
    with bar() as progress:
        yield RunOptions(accelerator=device, progress=progress if workers == 1 else None, logger="none"), progress


@contextmanager
def bar(shown: bool = True) -> Iterator[Progress]:
    """A progress bar on stderr; a new line of it for every new kind of work. What goes to stdout never becomes part of
    it, unless both are one terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with RichProgress(*columns, console=console, redirect_stdout=to_terminal(), disable=not shown) as drawn:
        known: dict[tuple[str, int], Any] = {}

        def report(done: int, total: int, what: str) -> None:
            key = (what.split(" · ")[0].split(" epoch ")[0], total)
            if key not in known:
                known[key] = drawn.add_task(what, total=total)
            drawn.update(known[key], completed=done, description=what)

        yield report


def to_terminal() -> bool:
    """Whether stdout is a terminal; it may be closed."""
    return bool(sys.stdout and sys.stdout.isatty())


def say(text: str) -> None:
    typer.echo(text)


def tell(line: object) -> None:
    """A line on stderr; names in it break it in no two."""
    typer.echo(one_line(line), err=True)


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as aligned columns; those whose header starts with `>` hold numbers and are set right-aligned."""
    lines = [[name.removeprefix(">") for name in header], *rows]
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    set_ = [str.rjust if name.startswith(">") else str.ljust for name in header]
    return "\n".join(
        "  ".join(place(cell, size) for place, cell, size in zip(set_, line, wide, strict=True)).rstrip()
        for line in lines
    )


HERE = {"out", "results", "report", "device", "workers", "yes", "collect"}  # options that change no figure


def command_of(context: typer.Context) -> str:
    """The running command as anyone would type it: without what only says where and how it ran here."""
    called = context.find_root().command_path  # "polyface", or as a test or `python -m` calls it
    words = ["polyface", *context.command_path.removeprefix(called).split()]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if parameter.name in HERE or value in (None, (), [], parameter.default):
            continue
        option = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
        for each in value if isinstance(value, list | tuple) else [value]:
            words += [*option, "DIR" if parameter.name == "data" else shlex.quote(str(each))]
    return " ".join(words)


def device_of(name: str) -> str:
    """The device of a name, which can be used; of "auto", the quickest that is there."""
    if name == "cpu":
        return name
    import torch

    from polyface.inference.inputs import usable_device

    if name != "auto":
        return str(usable_device(name))
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def tell_failed(failed: Mapping[Job, Exception]) -> None:
    """Say what could not be run; only what should have been makes the command fail."""
    broken = [job for job, why in failed.items() if not isinstance(why, NoDataError)]
    for job, why in failed.items():
        tell(f"{'failed' if job in broken else 'no data'}: {job}: {why}")
    if broken:
        raise typer.Exit(1)
