"""Faces without labels: the learner `adversarial` trains an encoder with a decoder, and against a generator (BEGAN)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from polyface import networks
from polyface.data.crops import CropSpec
from polyface.data.loader import FaceLoader
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork
from polyface.networks.parts import PARTS
from polyface.registry import options_of
from polyface.training.adversarial.module import AdversarialModule
from polyface.training.adversarial.objectives import picture
from polyface.training.adversarial.sheets import write_sheets
from polyface.training.adversarial.specs import AdversarialSpec
from polyface.training.records import SHEETS
from polyface.training.stages import RunContext, StageResult, stage_pool
from polyface.training.start import check_input, evaluating
from polyface.training.trainer import fit, loaders_of, trainer_of


class Adversarial:
    """Trains an encoder and a decoder without labels: as the discriminator of a BEGAN against a generator, or alone."""

    Spec = AdversarialSpec

    @staticmethod
    def run(stage: AdversarialSpec, context: RunContext) -> StageResult:
        """Train the stage, from where it stands. Its model answers no task: it is encoder, decoder and generator, and
        later stages start from its trunk."""
        seed, data, options = context.recipe.seed, context.data, context.options
        network = build_pair(stage, seed)
        train = stage_pool(stage, "train", data, {}, options.progress, context.earlier)
        if train is None:
            raise PolyfaceError(f"stage {stage.name}: no training faces (split 'train') in its tables")
        val = stage_pool(stage, "val", data, {}, options.progress, context.earlier)
        trainer, saver = trainer_of(stage.name, stage.optimisation, options, context.folder)
        faces, validation = loaders_of(trainer, stage, seed, train, val)
        looked = FaceLoader(val or train, stage.data.batch, seed=seed, shuffle=False)
        module = AdversarialModule(stage, seed, network, faces, validation, looked, context.folder)
        fit(trainer, module, saver, seed)
        if trainer.is_global_zero:
            with evaluating(network):
                shown = write_sheets(context.folder / SHEETS, network, module.looked)
            record = {"history": module.history, "seconds": module.seconds(), "sheets": shown}
            context.finish(stage, network, {}, record, precision=", ".join(module.precisions))
        trainer.strategy.barrier()
        return StageResult(context.folder / "model", module.history, module.seconds())


def build_pair(stage: AdversarialSpec, seed: int) -> FaceNetwork:
    """The stage's network, random by seed: the trunk, and as parts `latent`, `decoder` and, for BEGAN, `generator`."""
    own = stage.network
    plain = {"trunk": own.trunk, "heads": {}, "normalise": own.normalise}
    try:
        shape = networks.build(plain).shared_shape()
        latent: dict[str, Any] = {"kind": "linear", "width": own.latent, "similarity": "euclidean"}
        latent |= {"side": shape[1]} if len(shape) == 3 else {}
        made = {"decoder": own.decoder, "generator": own.generator or own.decoder}
        if stage.objective.name == "reconstruction":
            del made["generator"]
        parts = {"latent": latent} | {name: _part(name, given, stage.data.crop) for name, given in made.items()}
        torch.manual_seed(seed)
        network = networks.build(plain | {"parts": parts})
    except PolyfaceError as error:  # in the model's terms, in which decoder and generator are parts
        raise PolyfaceError(f"stage {stage.name}: {str(error).replace('network.parts.', 'network.')}") from error
    check_input(network, stage)
    for name in made:
        _check_picture(network, stage, name)
    # In the model nothing learns from what these make, as its config says; here they learn.
    decoders = [network.branches[name].requires_grad_(True).train() for name in made]
    network.frozen = [module for module in network.frozen if module not in decoders]
    return network


def _part(name: str, given: Mapping[str, Any], crop: CropSpec) -> dict[str, Any]:
    """A decoder or generator as a part that reads the latent vector and makes pictures like the crop's."""
    options = options_of(PARTS.get(str(given.get("kind", "decoder")), f"network.{name}.kind"), given=1)
    fitting = {key: value for key, value in (("size", crop.size), ("channels", crop.channels)) if key in options}
    return {"kind": "decoder", **fitting, **given, "reads": ["latent"], "frozen": True}


def _check_picture(network: FaceNetwork, stage: AdversarialSpec, name: str) -> None:
    """Refuse a decoder or generator that makes no pictures like those that the network takes."""
    with torch.no_grad():
        made = list(picture(network.branches[name], torch.zeros(2, stage.network.latent)).shape[1:])
    if made != [network.channels, network.size, network.size]:
        raise PolyfaceError(
            f"stage {stage.name}: network.{name} makes {made}, and the crop is {network.channels}×{network.size}²: "
            "choose options of it that make such pictures"
        )
