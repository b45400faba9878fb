"""How a stage's network is built, and what it starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polyface import networks
from polyface.data.loader import FaceLoader, FacePool, assemble
from polyface.errors import PolyfaceError, nearest
from polyface.models import find
from polyface.models.bundle import load_bundle
from polyface.networks import FaceNetwork
from polyface.networks.pretrained import PRETRAINED, PublishedWeights, published
from polyface.tasks import Task
from polyface.training.specs import InitSpec, StageSpec


def network_config(stage: StageSpec, tasks: dict[str, Task]) -> dict[str, Any]:
    """What `networks.build` makes the stage's network from."""
    chosen = stage.network
    if unknown := [name for name in chosen.heads if name not in tasks]:
        raise PolyfaceError(f"stage {stage.name}: network.heads names '{unknown[0]}'; {nearest(unknown[0], tasks)}")
    heads = {name: _head(stage.name, task, chosen.heads.get(name)) for name, task in tasks.items()}
    config: dict[str, Any] = {"trunk": chosen.trunk, "heads": heads, "normalise": chosen.normalise}
    cosine = [name for name, task in tasks.items() if task.head == "cosine"]
    config |= {"cosine": cosine} if cosine else {}
    return config | ({"branches": chosen.branches} if chosen.branches else {})


def _head(stage: str, task: Task, given: str | dict[str, list[str]] | None) -> int | dict[str, list[int]]:
    """A head on the shared features, or the places of its outputs by branch."""
    if given is None:
        return task.output_dim
    if isinstance(given, str):
        return {given: list(range(task.output_dim))}
    words = [term.partition("/")[2] or term for term in task.terms]
    named = [word for group in given.values() for word in group]
    if len(words) != task.output_dim or sorted(named) != sorted(words):
        wrong = next((w for w in named if w not in words), None) or next((w for w in words if w not in named), named[0])
        raise PolyfaceError(
            f"stage {stage}: network.heads.{task.name} must name each of the task's {len(words)} terms once; "
            f"'{wrong}' is not so; {nearest(wrong, words)}"
        )
    return {branch: [words.index(word) for word in group] for branch, group in given.items()}


def build_network(stage: StageSpec, tasks: dict[str, Task], seed: int, earlier: Mapping[str, Path]) -> FaceNetwork:
    """The stage's network: random by seed, then what `init` names copied over it."""
    torch.manual_seed(seed)
    network = networks.build(network_config(stage, tasks))
    if (network.size, network.channels) != (stage.data.crop.size, stage.data.crop.channels):
        raise PolyfaceError(
            f"stage {stage.name}: the trunk takes {network.channels}×{network.size}² pixels but data.crop gives "
            f"{stage.data.crop.channels}×{stage.data.crop.size}²: set data.crop.size and channels to match"
        )
    _run_empty(network, stage, tasks)
    for init in stage.init:
        if weights := _published(init, earlier):
            try:
                weights.start(network, init.parts)
            except PolyfaceError as error:
                raise PolyfaceError(f"stage {stage.name}: {error}") from error
        else:
            _start(network, stage.name, init, earlier)
    return network


def _run_empty(network: FaceNetwork, stage: StageSpec, tasks: Mapping[str, Task]) -> None:
    """Run an empty face through the network, so that parts that do not fit are told of before any picture is read."""
    where = f"stages.{stage.name}.network"
    if stage.data.sizes and not getattr(network, "any_size", getattr(network.trunk, "any_size", False)):
        raise PolyfaceError(
            f"stages.{stage.name}.data.sizes: this network takes pictures of {network.size} pixels alone: choose "
            "another network.trunk, or leave sizes out"
        )
    for side in (network.size, *stage.data.sizes):
        faces = torch.zeros(2, network.channels, side, side)
        shape: list[int] = []
        try:
            with evaluating(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
                shape = list(network.features(faces)["shared"].shape[1:])
                network(faces)
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if len(shape) > 1 and (without := [name for name in tasks if name not in stage.network.heads]):
                raise PolyfaceError(
                    f"{where}.heads: task '{without[0]}' has no line, and the trunk gives a map {shape}: name the part "
                    "of the network that it reads"
                ) from error
            raise PolyfaceError(f"{where}: its parts do not fit together ({str(error).splitlines()[0]})") from error


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


def _start(network: FaceNetwork, stage: str, init: InitSpec, earlier: Mapping[str, Path]) -> None:
    """Copy over a network the parts of another stage's or bundle's that `init` names."""
    source = init.source
    try:
        folder = earlier.get(source) or find(source)
    except PolyfaceError as error:
        others = ", ".join([*earlier, *PRETRAINED.names()])
        raise PolyfaceError(f"stage {stage}: init.source: {error}; or name one of {others}") from error
    start = load_bundle(folder, quiet=True).network
    sources = init.branches if isinstance(init.branches, dict) else dict.fromkeys(network.branches, init.branches)
    if unknown := [name for name in sources if name not in network.branches]:
        raise PolyfaceError(
            f"stage {stage}: init.branches names '{unknown[0]}'; {nearest(unknown[0], network.branches)}"
        )
    if unknown := [name for name in sources.values() if name not in start.branches]:
        raise PolyfaceError(
            f"stage {stage}: init.branches names '{unknown[0]}' of {source}; {nearest(unknown[0], start.branches)}"
        )
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


def _copied(given: Mapping[str, Any], branches: Sequence[str], sources: Mapping[str, str]) -> dict[str, Any]:
    """A state of branches under the names that start from them."""
    found: dict[str, Any] = {}
    for name in branches:
        prefix = f"{sources.get(name, name)}."
        found |= {
            name + "." + key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)
        }
    return found
