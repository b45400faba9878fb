"""How a stage's network is built, and what it starts from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from polyface import networks
from polyface.data.augment import AugmentSpec
from polyface.data.features import Features
from polyface.data.loader import FaceLoader, FacePool, assemble
from polyface.data.table import Progress
from polyface.errors import PolyfaceError, check_names, nearest
from polyface.models import find
from polyface.models.bundle import Bundle, load_bundle
from polyface.networks import FaceNetwork
from polyface.networks.growing import grown
from polyface.networks.heads import set_bias
from polyface.networks.parts import PARTS
from polyface.networks.pretrained import PRETRAINED, PublishedWeights, published
from polyface.tasks import Task
from polyface.training.specs import BaseStage, InitSpec, StageSpec, with_defaults


def network_config(
    stage: StageSpec, tasks: dict[str, Task], old: Bundle | None = None, seed: int = 0
) -> dict[str, Any]:
    """What `networks.build` makes the stage's network from: its `network`, with outputs and classes as numbers. old:
    what the stage extends. seed: by which a head's terms are drawn, where the recipe says only how many."""
    chosen = stage.network
    check_names(chosen.heads, tasks, f"stage {stage.name}: network.heads")
    heads = {name: _head(stage.name, task, chosen.heads.get(name), seed) for name, task in tasks.items()}
    config: dict[str, Any] = {"trunk": chosen.trunk, "heads": heads, "normalise": chosen.normalise}
    cosine = [name for name, task in tasks.items() if task.head == "cosine"]
    check_names(chosen.defaults, PARTS.names(), f"stage {stage.name}: network.defaults")
    branches, whole = (with_defaults(given, chosen.defaults) for given in (chosen.branches, chosen.parts))
    parts = {name: _part(stage.name, name, part, tasks) for name, part in whole.items()}
    given = {"cosine": cosine, "branches": branches, "parts": parts, "embeddings": chosen.embeddings}
    config |= {key: value for key, value in given.items() if value}
    return config if old is None else grown(old.network.config, config)


def _head(stage: str, task: Task, given: str | dict[str, Any] | None, seed: int) -> int | dict[str, Any]:
    """A head on the trunk's vector; the places of its outputs by part; or what it reads as one vector."""
    if given is None or given == "trunk":
        return task.output_dim
    if isinstance(given, str):
        return {given: list(range(task.output_dim))}
    if "reads" in given or "of" in given:
        return {**given, "outputs": task.output_dim}
    frozen = {key: value for key, value in given.items() if key == "frozen"}
    words = [term.partition("/")[2] or term for term in task.terms]
    groups = _drawn({part: group for part, group in given.items() if part not in frozen}, words, seed)
    if wrong := [part for part, group in groups.items() if not isinstance(group, list)]:
        key = f"network.heads.{task.name}.{wrong[0]}"
        expected = f"a list of the task's terms, or in all groups how many of its {len(words)}"
        raise PolyfaceError(f"stage {stage}: {key} is {groups[wrong[0]]!r}; expected {expected}")
    named = [word for group in groups.values() for word in group]
    if len(words) != task.output_dim or sorted(named) != sorted(words):
        bad = [*(w for w in named if w not in words), *(w for w in words if w not in named), *named][0]
        raise PolyfaceError(
            f"stage {stage}: network.heads.{task.name} must name each of the task's {len(words)} terms once; "
            f"'{bad}' is not so; {nearest(bad, words)}"
        )
    return {part: [words.index(word) for word in group] for part, group in groups.items()} | frozen


def _drawn(groups: dict[str, Any], words: Sequence[str], seed: int) -> dict[str, Any]:
    """Groups of a head's terms; numbers that are as many together as there are terms, as so many of these, drawn by the
    seed."""
    sizes = [size for size in groups.values() if isinstance(size, int)]
    if len(sizes) < len(groups) or sum(sizes) != len(words):
        return groups
    order = np.random.default_rng(seed).permutation(words).tolist()
    ends = np.cumsum(sizes).tolist()
    return {part: order[end - size : end] for part, size, end in zip(groups, sizes, ends, strict=True)}


def _part(stage: str, name: str, given: dict[str, Any], tasks: dict[str, Task]) -> dict[str, Any]:
    """A part, with a width that names a task as the number of its outputs, and the classes that it is routed by as
    places in their task's vocabulary."""
    if isinstance(width := given.get("width"), str):
        check_names([width], tasks, f"stage {stage}: network.parts.{name}.width")
        given = given | {"width": tasks[width].output_dim}
    rows = given.get("rows")
    if not isinstance(rows, dict) or rows.get("task") not in tasks or not isinstance(rows.get("classes"), list):
        return given  # not routed; or refused where the network is built
    vocabulary: list[str] = getattr(tasks[rows["task"]], "vocabulary", [])
    if unknown := [word for word in rows["classes"] if isinstance(word, str) and word not in vocabulary]:
        key, hint = f"network.parts.{name}.rows.classes", nearest(unknown[0], vocabulary)
        raise PolyfaceError(f"stage {stage}: {key} names '{unknown[0]}', no class of {rows['task']}; {hint}")
    if vocabulary and len(vocabulary) != tasks[rows["task"]].output_dim:
        key, what = f"network.parts.{name}.rows.task", f"'{rows['task']}', whose outputs are not its classes"
        raise PolyfaceError(f"stage {stage}: {key} is {what}: choose another task, such as a classification")
    places = [vocabulary.index(one) if isinstance(one, str) else one for one in rows["classes"]]
    return given | {"rows": rows | {"classes": places}}


def build_network(stage: StageSpec, tasks: dict[str, Task], seed: int, earlier: Mapping[str, Path]) -> FaceNetwork:
    """The stage's network: random by seed, then what `init` names copied over it, then what it `extends`."""
    old = extended(stage, earlier)
    torch.manual_seed(seed)
    try:
        network = networks.build(network_config(stage, tasks, old, seed))
    except PolyfaceError as error:
        raise PolyfaceError(f"stage {stage.name}{f', {stage.extends}' if old else ''}: {error}") from error
    check_input(network, stage)
    for name, task in tasks.items() if stage.network.biases == "prior" else ():
        if task.prior is not None and task.column not in stage.data.balance:
            set_bias(network.heads[name], torch.tensor(task.prior))
    started: dict[str, tuple[str, dict[str, str]]] = {}
    for init in stage.init:
        if weights := _published(init, earlier):
            try:
                weights.start(network, init.parts)
            except PolyfaceError as error:
                raise PolyfaceError(f"stage {stage.name}: {error}") from error
        else:
            started |= _start(network, stage.name, init, earlier)
    if old:
        network.load_state_dict(network.state_dict() | old.network.state_dict())
    for name, (source, grounds) in started.items():
        if old is None or name not in old.network.branches:
            _check_grounds(network, stage, name, source, grounds)
    return network


def check_input(network: FaceNetwork, stage: BaseStage) -> None:
    """Refuse a network that does not take the stage's crops, or whose parts do not fit each other: empty faces are run
    through it, so that this is told before any picture is read."""
    if (network.size, network.channels) != (stage.data.crop.size, stage.data.crop.channels):
        raise PolyfaceError(
            f"stage {stage.name}: the trunk takes {network.channels}×{network.size}² pixels but data.crop gives "
            f"{stage.data.crop.channels}×{stage.data.crop.size}²: set data.crop.size and channels to match"
        )
    if stage.data.sizes and not network.any_size:
        raise PolyfaceError(
            f"stage {stage.name}: data.sizes: this network takes pictures of {network.size} pixels alone: choose "
            "another network.trunk, or leave sizes out"
        )
    with evaluating(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for side in (network.size, *stage.data.sizes):
            try:
                network(torch.zeros(2, network.channels, side, side))
            except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise PolyfaceError(
                    f"stage {stage.name}: network: pictures of {side} pixels do not pass through it "
                    f"({str(error).splitlines()[0]}): check the options of its parts"
                ) from error


def adapt(
    network: FaceNetwork,
    stage: StageSpec,
    tasks: Mapping[str, Task],
    pool: FacePool,
    seed: int,
    earlier: Mapping[str, Path],
) -> None:
    """Show training faces to a network that began with published weights which need to see some."""
    for weights in filter(None, (_published(init, earlier) for init in stage.init)):
        if weights.faces:
            loader = FaceLoader(pool, stage.data.batch, seed=seed, shuffle=False)
            raw = loader.some(0, min(weights.faces, len(pool)))
            weights.adapt(network, assemble(raw, stage.data.crop, tasks, stage.data.augment).images)


def use_cached(
    network: FaceNetwork, augment: AugmentSpec, loaders: Iterable[FaceLoader], progress: Progress | None
) -> None:
    """Let loaders give what the network's frozen trunk makes of their faces, which is computed now or was before."""
    for loader in loaders:
        seen = augment if loader.shuffle else AugmentSpec()
        loader.features = Features(network, loader.pool, seen, progress)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards every module as it was."""
    was = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in was.items():
            module.training = training


def _published(init: InitSpec, earlier: Mapping[str, Path]) -> PublishedWeights | None:
    """The published weights that `init` names; None where it names a stage or a bundle."""
    return None if init.source in earlier else published(init.source)


def extended(stage: StageSpec, earlier: Mapping[str, Path]) -> Bundle | None:
    """What the stage extends; None where it extends nothing.

    Raises:
        PolyfaceError: there is no such model, or it sees other crops than the stage gives.
    """
    if not stage.extends:
        return None
    old = load_bundle(_folder(f"stage {stage.name}: extends", stage.extends, earlier, ()), quiet=True)
    for key in ("crop", "boxes"):
        if (own := getattr(stage.data, key)) != (wanted := getattr(old, key)):
            told = ", ".join(f"{name}: {value}" for name, value in wanted if value != getattr(own, name))
            raise PolyfaceError(
                f"stage {stage.name}: data.{key} is not that of {stage.extends}, whose network goes on answering: set "
                f"{told}"
            )
    return old


def _folder(where: str, source: str, earlier: Mapping[str, Path], others: Iterable[str]) -> Path:
    """The bundle of an earlier stage, of a shipped model's name or of a folder. others: what else may be named."""
    try:
        return earlier.get(source) or find(source)
    except PolyfaceError as error:
        known = ", ".join([*earlier, *others])
        raise PolyfaceError(f"{where}: {error}{f'; or name one of {known}' if known else ''}") from error


def _start(
    network: FaceNetwork, stage: str, init: InitSpec, earlier: Mapping[str, Path]
) -> dict[str, tuple[str, dict[str, str]]]:
    """Copy over a network the parts of another stage's or bundle's that `init` names. Returns for each of its
    `branches` that is frozen whence it comes, and what it stood on there."""
    source = init.source
    folder = _folder(f"stage {stage}: init.source", source, earlier, PRETRAINED.names())
    start = load_bundle(folder, quiet=True).network
    sources = init.branches if isinstance(init.branches, dict) else dict.fromkeys(network.branches, init.branches)
    check_names(sources, network.branches, f"stage {stage}: init.branches")
    check_names(sources.values(), start.branches, f"stage {stage}: init.branches of {source}")
    for part in init.parts:
        own, given = getattr(network, part).state_dict(), getattr(start, part).state_dict()
        if part == "branches":
            given = _copied(given, list(network.branches), sources)
        shared = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
        if (own and not shared) or (part == "trunk" and len(shared) < len(own)):
            raise PolyfaceError(
                f"stage {stage}: init.source {source} fits {len(shared)} of {len(own)} {part} "
                "tensors: both stages need the same network.trunk"
            )
        getattr(network, part).load_state_dict(own | shared)
    if "branches" not in init.parts:
        return {}
    frozen = {name: sources.get(name, name) for name, part in network.graph.parts.items() if part.frozen}
    return {name: (source, start.grounds(given)) for name, given in frozen.items() if given in start.branches}


def _check_grounds(network: FaceNetwork, stage: StageSpec, name: str, source: str, there: Mapping[str, str]) -> None:
    """Refuse a frozen part that was trained over another trunk than the network's, or over other parts than it reads
    here, or that was not taken over whole: its maps would mean nothing. there: what it stood on where it comes from."""
    for (read, here), then in zip(network.grounds(name).items(), there.values(), strict=False):
        if here != then and read == name:
            what = f"stage {stage.name}: network.parts.{name} is frozen, and in {source} it has other layers"
            raise PolyfaceError(f"{what}: give it the options that it has there, or let it learn")
        if here != then:
            trunk, others = stage.extends, [init.source for init in stage.init if "trunk" in init.parts]
            whence = f"that of {trunk or others[-1]}" if trunk or others else "random by its seed"
            what, own = ("trunk", f"the trunk here, {whence}") if read == "trunk" else ("part", f"the '{read}' here")
            raise PolyfaceError(
                f"stage {stage.name}: network.parts.{name} is frozen, and in {source} it was trained over another "
                f"{what} ({then[:12]}) than {own} ({here[:12]}): start both from one source, or let it learn"
            )


def _copied(given: Mapping[str, Any], branches: Sequence[str], sources: Mapping[str, str]) -> dict[str, Any]:
    """A state of branches under the names that start from them."""
    state: dict[str, Any] = {}
    for name in branches:
        prefix = f"{sources.get(name, name)}."
        state |= {
            name + "." + key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)
        }
    return state
