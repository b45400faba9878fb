"""The `polyface` command. Heavy imports wait until a command needs them, so that `--help` answers at once."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from typing import Annotated

import typer

from polyface.cli import data, explain, gallery, maps
from polyface.cli.common import say, tell
from polyface.cli.compare import compare_weightings
from polyface.cli.inference import analyze, demo, export, models
from polyface.cli.parts import parts
from polyface.cli.reproduce import reproduce
from polyface.cli.training import evaluate, extend, train
from polyface.cli.tune import tune
from polyface.errors import Interrupted, PolyfaceError, utf8

__all__ = ["app", "main"]

app = typer.Typer(
    help="One face, many questions: train, compare, explain and run multi-task face networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.add_typer(gallery.app, name="gallery")
app.add_typer(explain.app, name="explain")
for _name in ("cam", "gradients", "occlusion", "check", "regions"):
    explain.app.command(_name)(getattr(maps, _name))
for _command in (
    train, extend, evaluate, reproduce, tune, compare_weightings, analyze, models, export, demo, parts,
):  # fmt: skip
    app.command()(_command)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        say(installed("polyface"))
        raise typer.Exit


def main() -> None:
    """Run the command; a PolyfaceError is one line on stderr and exit status 1."""
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    _print_utf8()
    try:
        app()
    except PolyfaceError as error:
        tell(f"polyface: {error}")
        sys.exit(130 if isinstance(error, Interrupted) else 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        tell(f"polyface: {where}{error.strerror or error}; free space or mend the path, then run again")
        sys.exit(1)
    except SystemExit as leaving:
        if leaving.code == 130:  # what typer makes of an interrupt, without a word
            tell("polyface: interrupted; the same command goes on where it was")
        raise


def _print_utf8() -> None:
    """Print in UTF-8 whatever the locale is, as JSON has no other encoding, unless PYTHONIOENCODING names one.

    What an encoding cannot hold is told as \\u2013: no character of a name ends a command.
    """
    codecs.register_error("polyface", _as_it_can_be_told)
    named = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a program puts in its place may be anything
            stream.reconfigure(encoding=named or "utf-8", errors="polyface")


def _as_it_can_be_told(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    told = utf8(error.object[error.start : error.end])
    try:
        return told.encode(error.encoding), error.end
    except UnicodeEncodeError:
        return json.dumps(told)[1:-1].encode("ascii"), error.end  # so that JSON stays JSON
