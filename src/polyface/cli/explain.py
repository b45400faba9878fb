"""`polyface explain`: why a network answers as it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyface.cli import common

if TYPE_CHECKING:
    from polyface.data.table import Progress
    from polyface.explain.energy import CommonHeads
    from polyface.metrics.resampling import Floats
    from polyface.models.bundle import Bundle
    from polyface.report.page import Section

app = typer.Typer(help="Why a network answers as it does.", no_args_is_help=True)

_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)  # of the dimensions that are taken out


@app.command("energy")
def explain_energy(
    model: Annotated[str, typer.Argument(help="A model bundle's folder, or a shipped model's name.")],
    table: Annotated[
        str | None, typer.Argument(help="A data set or face table with people: recognition and probes as well.")
    ] = None,
    data: common.DataOption = None,
    split: Annotated[str, typer.Option(help="Which faces of the table: test, val, train or all.")] = "test",
    main: Annotated[
        str | None, typer.Option(help="The task that others are compared with (default: who it is, or the first).")
    ] = None,
    p: Annotated[float, typer.Option(help="Power of the weights: 1, their sum; 2, their squares.")] = 1.0,
    normalise: Annotated[bool, typer.Option("--normalise", help="Weights of every output at length 1 first.")] = False,
    protocol: Annotated[str, typer.Option(help="How people are told apart: gallery-probe, listed-pairs, …")] = (
        "gallery-probe"
    ),
    protocol_option: Annotated[list[str] | None, typer.Option(help="An option of the protocol: name=value.")] = None,
    device: common.DeviceOption = "cpu",
    out: Annotated[Path | None, typer.Option(help="Write an HTML page with pictures.")] = None,
    overwrite: common.OverwriteOption = False,
) -> None:
    """Which dimensions of the shared vector each task's linear head uses, and what is lost without them.

    Of the weights alone: how many dimensions hold a task's energy, and how many of them are the main task's too. With a
    table: how well people are told apart without side-task, main-task or random dimensions, and what linear probes read
    from what is left (needs polyface[explain]).
    """
    from polyface.errors import PolyfaceError
    from polyface.explain.energy import common_heads
    from polyface.files import check_output
    from polyface.metrics.sections import Table, Text
    from polyface.models import find
    from polyface.models.bundle import load_bundle
    from polyface.report.energy import energy_section
    from polyface.report.page import write_report

    if out:
        check_output(out, overwrite, [model, *([table] if table else [])])
    bundle = load_bundle(find(model))
    people = [name for name, task in bundle.tasks.items() if task.people is not None]
    try:
        heads = common_heads(bundle.network, main or "", people)
    except PolyfaceError as error:
        raise PolyfaceError(f"{model}: {error}") from None
    energies = heads.energies(p, normalise)
    sections = [energy_section(heads, energies)]
    if table:
        with common.bar() as progress:
            asked = (protocol, protocol_option or [])
            sections += _on_faces(
                bundle, heads, energies, table, data, split, asked, common.device_of(device), progress
            )
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Table):
                common.say(f"{section.title}\n{common.aligned(block.header, block.rows)}\n{block.caption}\n")
            elif isinstance(block, Text):
                common.say(f"{block.text}\n")
    if out:
        title = f"Energy of the weights of {model}" + (f", on {table} ({split})" if table else "")
        common.say(f"page: {write_report(out, title, sections)}")


def _on_faces(
    bundle: Bundle,
    heads: CommonHeads,
    energies: dict[str, Floats],
    table: str,
    data: Path | None,
    split: str,
    asked: tuple[str, list[str]],
    device: str,
    progress: Progress,
) -> list[Section]:
    """Recognition by what is left of x, and of the main task's outputs, and what probes read from it."""
    from polyface import protocols
    from polyface.errors import PolyfaceError
    from polyface.explain import probes
    from polyface.explain.energy import kept_dims, removal_orders, share_of
    from polyface.explain.reduced import figures_without, vectors
    from polyface.metrics.sections import Text
    from polyface.protocols.base import EvaluationSet
    from polyface.protocols.evaluation import pool_of_tables
    from polyface.report.energy import probe_section, reduced_section
    from polyface.report.page import Section
    from polyface.training.recipe import assignments

    name, options = asked
    if name == protocols.DEFAULT:
        others = ", ".join(one for one in protocols.PROTOCOLS.names() if one != name)
        raise PolyfaceError(f"--protocol {name} compares no faces: name one that does ({others})")
    chosen = protocols.build(protocols.settings(name) | assignments(options, "--protocol-option"))
    pool = pool_of_tables(bundle, [table], data, split, progress)
    cases = chosen.cases(EvaluationSet(pool.table, split, data, {table: {}}, bundle.tasks))
    x = vectors(bundle, heads.first, pool, device=device, progress=progress)
    orders, main = removal_orders(energies, heads.main), heads.main
    shares = [share for share in _SHARES if share_of(share, x.shape[1]) < x.shape[1]]
    sections = []
    for what, head in (("x", None), (f"the outputs of {main}", heads.first)):
        found = figures_without(x, orders, shares, chosen, cases, head, progress)
        about = f"Faces are compared by the cosine of {what}."
        sections.append(
            reduced_section(f"Recognition by {what} without some dimensions", found, shares, x.shape[1], about)
        )
    if not probes.can_probe():
        return [*sections, Section("What linear probes read", [Text(f"Not measured: {probes.NEEDS}.")])]
    side = {name: task for name, task in bundle.tasks.items() if name != main}
    return [*sections, probe_section(*probes.probe_tasks(x, kept_dims(orders, main), side, pool.table, progress))]
