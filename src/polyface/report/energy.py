"""What the weights of linear heads show of the vector that they read: a page's sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from polyface.explain.energy import (
    SIDE,
    TOP,
    CommonHeads,
    blocks,
    dims_for,
    effective_number,
    held_by,
    overlap,
    rank_dims,
    share_of,
    side_energy,
)
from polyface.explain.probes import chance
from polyface.metrics.classification import ClassificationResult
from polyface.metrics.resampling import Floats
from polyface.metrics.sections import Curves, Table, Text, cell
from polyface.report.page import Block, Figure, Figures, Section
from polyface.report.plots import plot_rows


def energy_table(common: CommonHeads, energies: Mapping[str, Floats]) -> Table:
    """A line a task, and one of all tasks but the main one together."""
    main, width = common.main, len(energies[common.main])
    k = share_of(TOP, width)
    own = rank_dims(energies[main])[:k]
    body = []
    for task, energy in [*energies.items(), (SIDE, side_energy(energies, main))]:
        outputs = str(len(common.heads[task].weight)) if task in common.heads else ""
        shared = "" if task == main else cell(100 * overlap(rank_dims(energy)[:k], own), 1)
        some = [str(dims_for(energy, share)) if energy.any() else "–" for share in (0.5, 0.9)]
        spread = [cell(100 * held_by(energy), 1), cell(effective_number(energy), 1)]
        body.append([task, outputs, *some, *spread, shared])
    header = [
        "task", ">outputs", ">dims for 50 %", ">dims for 90 %", f">in top {k}, %", ">effective dims",
        f">top {k} also {main}'s, %",
    ]  # fmt: skip
    caption = (
        f"Energy of {width} dimensions. By chance {100 * k / width:.1f} % of two tasks' top {k} dimensions are the "
        f"same; evenly spread energy has {100 * k / width:.1f} % in the top {k}, and {width} effective dimensions."
    )
    return Table(header, body, caption)


def weights_figure(common: CommonHeads, energies: Mapping[str, Floats]) -> Figure:
    """|W| of each task with the dimensions in the order of the tasks that use them (Fig. 5b)."""
    order = blocks(energies, common.main)
    columns = np.concatenate(list(order.values()))
    sizes = {task: len(dims) for task, dims in order.items()}
    picture = plot_rows(
        {task: np.abs(head.weight[:, columns]) for task, head in common.heads.items()},
        sizes,
        x_label="dimensions of x, in the order of the tasks that use them",
        value="|W|, of a task's largest",
    )
    told = "; ".join(f"{task}: {size}" for task, size in sizes.items())
    about = (
        f"|W|, a row an output. Each side task has a block of its top dimensions, {common.main} all others ({told})."
    )
    return Figure(picture, "weights of each task, dimensions grouped by task", about)


def energy_section(common: CommonHeads, energies: Mapping[str, Floats]) -> Section:
    """The table, energies sorted (Fig. 5a), and |W| with dimensions in the order of the tasks that use them (5b)."""
    width = len(energies[common.main])
    places = np.arange(1, width + 1)
    curves = {
        task: (places, np.sort(energy)[::-1] / energy.mean()) for task, energy in energies.items() if energy.any()
    }
    shown: list[Block] = [energy_table(common, energies)]
    if common.left_out:
        shown.append(Text("Left out: " + "; ".join(f"{task} ({why})" for task, why in common.left_out.items()) + "."))
    shown += [
        Curves(curves, "dimensions by decreasing energy", "energy, over the mean", "Each task's energies, sorted."),
        Figures([weights_figure(common, energies)], wide=True),
    ]
    return Section("Energy of the heads' weights", shown)


def reduced_section(
    title: str, found: Mapping[str, Mapping[str, Floats]], shares: Sequence[float], width: int, about: str
) -> Section:
    """Figures where dimensions are taken out, as `figures_without` gives them: a plot a metric, over how many are kept,
    and a table. Several draws: their mean and standard deviation."""
    kept = [width - share_of(share, width) for share in shares]
    shown: list[Block] = []
    body = []
    for metric, kinds in found.items():
        curves = {f"without {kind}": (kept, drawn.mean(0)) for kind, drawn in kinds.items()}
        shown.append(Curves(curves, "dimensions kept", f"{metric}, %", about))
        for kind, drawn in kinds.items():
            spread = drawn.std(0, ddof=1) if len(drawn) > 1 else np.full(len(shares), np.nan)
            cells = [
                f"{mean:.2f}" + (f" ± {sd:.2f}" if sd == sd else "")
                for mean, sd in zip(drawn.mean(0), spread, strict=True)
            ]
            body.append([metric, kind, *cells])
    header = [
        "figure",
        "without",
        *(f">{100 * share:.0f} % ({left} kept)" for share, left in zip(shares, kept, strict=True)),
    ]
    return Section(title, [Table(header, body, about), *shown])


def probe_section(
    found: Mapping[str, Mapping[str, ClassificationResult]], left: Mapping[str, str] | None = None
) -> Section:
    """Balanced accuracies of linear probes, {label: {what they read: result}}, and why others are not there."""
    kinds = list(dict.fromkeys(kind for results in found.values() for kind in results))
    body = []
    for label, results in found.items():
        one = next(iter(results.values()))
        read = [cell(results[kind].balanced_accuracy, 1) for kind in kinds]
        body.append([label, f"{one.labelled.sum():,}", cell(chance(one), 1), *read])
    caption = (
        "Balanced accuracy, in percent, of logistic regression on these dimensions, learnt from half of the people and "
        "asked of the other half, in turn. An extra, not of the paper."
    )
    shown: list[Block] = [Text(f"Not probed: {label}: {why}") for label, why in (left or {}).items()]
    if found:
        shown.insert(0, Table(["label", ">n", ">chance", *(f">{kind}" for kind in kinds)], body, caption))
    return Section("What linear probes read", shown)
