"""Training of an encoder, a decoder and a generator: the steps, their equilibrium, and what is looked at by epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from polyface.data.augment import random_of
from polyface.data.loader import FaceLoader, RawBatch, assemble
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork
from polyface.training.adversarial.collapse import collapsed
from polyface.training.adversarial.objectives import OBJECTIVES, AutoEncoder, distance
from polyface.training.adversarial.sheets import Looked, pictures, sheets, spread, write_sheet
from polyface.training.adversarial.specs import AdversarialSpec
from polyface.training.module import StageModule
from polyface.training.progress import plateaus
from polyface.training.records import SHEETS
from polyface.training.start import evaluating
from polyface.weighting.base import sum_over_ranks, world_size

LOOKED_AT = 64
"""Faces, and samples, of the sheets and of the spread."""
_log = logging.getLogger(__name__)


class AdversarialModule(StageModule):
    """Trains encoder, decoder and generator by one objective. State: network, objective (k), sums over the epoch.

    looked: the faces that sheets show, all on every process. folder: of the stage, for the sheets.
    """

    KEPT: ClassVar[dict[str, Any]] = StageModule.KEPT | {"equilibrium": dict, "sums": dict}
    spec: AdversarialSpec

    def __init__(
        self,
        spec: AdversarialSpec,
        seed: int,
        network: FaceNetwork,
        train: FaceLoader,
        validation: FaceLoader | None,
        looked: FaceLoader,
        folder: Path,
    ) -> None:
        super().__init__(spec, spec.optimisation, seed, train)
        self.network = network
        self.objective = OBJECTIVES[spec.objective.name](spec.objective)
        self.equilibrium: dict[str, float] = {}
        """Of the last step: its losses, M, and k where there is a generator."""
        self.sums: dict[str, list[float]] = {}
        """Of losses and M in the present epoch: [sum, steps]."""
        self._validation, self._folder = validation, folder
        faces = [self._normalised(raw) for raw in looked.fixed(LOOKED_AT)]
        self.looked = Looked(torch.cat(faces), torch.from_numpy(self._uniform(LOOKED_AT)))
        self._pending: list[Tensor] = []
        """The losses of the micro-batches of a step."""

    @property
    def model(self) -> AutoEncoder:
        return AutoEncoder(self.network)

    @property
    def generator(self) -> nn.Module | None:
        return dict(self.network.branches.named_children()).get("generator")

    # ------------------------------------------------------------------------------------------------ steps

    def _normalised(self, raw: RawBatch, training: bool = False) -> Tensor:
        augment = self.spec.data.augment if training else None
        images = assemble(raw, self.crop, {}, augment).images
        return (images - self.network.mean) / self.network.std

    def noise(self) -> Tensor:
        """This process's z [B, latent] of the present batch: uniform in −1…1, by seed, stage, epoch and batch alone."""
        place = divmod(self.batches_done, len(self._train))
        every = self._uniform(self._train.batch * self._train.world, *place)
        return torch.from_numpy(every[self._train.rank :: self._train.world]).to(self.device)

    def _uniform(self, count: int, *place: int) -> Any:
        shape = (count, self.spec.network.latent)
        return random_of(self.seed, self.spec.name, *place, 1).uniform(-1, 1, shape).astype("float32")

    def step(self, raw: RawBatch) -> Tensor:
        real = self._normalised(raw, training=True)
        with self.mixed():
            losses = self.objective(self.model, self.generator, real, self.noise())
        means = torch.stack([losses[name].mean() for name in self.objective.losses])
        if not bool(means.isfinite().all()):
            raise self.not_finite("the loss", raw.rows, losses["real"].isfinite())
        self._pending.append(sum_over_ranks(means.detach().double()) / world_size())
        return means.sum()

    def after_step(self) -> None:
        means = torch.stack(self._pending).mean(0).tolist()
        self._pending = []
        losses = dict(zip(self.objective.losses, means, strict=True))
        followed = losses | {"M": self.objective.follow(losses)}
        self.equilibrium = followed | self.objective.state
        for name, value in followed.items():
            total, steps = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + value, steps + 1]

    def clipped(self) -> Iterable[nn.Module]:
        return self.model, *filter(None, [self.generator])

    def configure_optimizers(self) -> Any:
        o = self.spec.optimisation
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        fused = self.device.type in ("cpu", "cuda")
        optimiser = torch.optim.Adam(learning, lr=o.lr, betas=(o.beta1, 0.999), fused=fused)

        def halved(step: int) -> float:
            times = plateaus([row["equilibrium"]["M"] for row in self.history], o.patience)
            return max(0.5**times, min(1.0, o.lowest / o.lr))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, halved)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------------------------------------ epochs

    def end_epoch(self, epoch: int) -> None:
        means = {name: total / steps for name, (total, steps) in self.sums.items()}
        self.sums = {}
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": math.ceil(self.batches_done / self.pace.accumulate),
            "train": {name: means[name] for name in self.objective.losses},
            "equilibrium": self.objective.state | {"M": means["M"]},
            "lr": self.rate,
        }
        with evaluating(self.network):
            faces = spread(self.looked.faces)
            row["spread"] = {
                name: spread(made) / faces for name, made in pictures(self.network, self.looked).items() if faces
            }
            if self._validation is not None:
                row["validation"] = {"real": self._validated(self._validation)}
            every = self.spec.sheets
            if every and epoch % every == 0 and self.trainer.is_global_zero:
                name, shown = next(iter(sheets(self.network, self.looked).items()))
                write_sheet(self._folder / SHEETS / f"{name}-{epoch:04d}.png", self.network, shown)
        if told := collapsed([*self.history, row], self.spec.collapse):
            row["collapse"] = told
        known = any("collapse" in earlier for earlier in self.history[-1:])
        self.add_epoch(row)
        if told and self.spec.on_collapse == "stop":
            self.save()
            raise self._ended(told)
        if told and not known and self.trainer.is_global_zero:
            _log.warning("stage %s, epoch %d: collapsed, and goes on: %s", self.spec.name, epoch, told)

    def _ended(self, told: str) -> PolyfaceError:
        return PolyfaceError(
            f"stage {self.spec.name}, epoch {len(self.history)}: collapsed: {told}; lower optimisation.lr or change "
            "objective.gamma and pass --fresh, or go on from here with on_collapse: warn"
        )

    @torch.no_grad()
    def _validated(self, faces: FaceLoader) -> float:
        """The mean loss of all validation faces."""
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for raw in faces:
            real = self._normalised(self.transfer_batch_to_device(raw, self.device, 0))
            with self.mixed():
                losses = distance(real, self.model(real)).double()
            total += torch.stack([losses.sum(), losses.new_tensor(len(losses))])
        loss, count = sum_over_ranks(total).tolist()
        return float(loss / count)

    # ------------------------------------------------------------------------------------------------ checkpoints

    def kept(self) -> dict[str, Any]:
        return {"equilibrium": self.equilibrium, "sums": self.sums}

    def restore(self, kept: dict[str, Any]) -> None:
        self.equilibrium, self.sums = kept["equilibrium"], kept["sums"]

    def begin(self) -> None:
        if self.history and "collapse" in self.history[-1] and self.spec.on_collapse == "stop":
            raise self._ended(self.history[-1]["collapse"])

    @property
    def standing(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self.equilibrium.items() if name in ("k", "M"))
