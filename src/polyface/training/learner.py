"""The learner of tasks: losses under masks, weighting, validation and the moments of extras."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import EllipsisType, NoneType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from polyface.data.loader import FaceBatch, FaceLoader, RawBatch, assemble
from polyface.data.table import Progress
from polyface.files import rounded
from polyface.networks import FaceNetwork, FaceOutput
from polyface.tasks import Task, as_classes, masked_sums, term_means
from polyface.training.course import Course
from polyface.training.extras import EXTRAS
from polyface.training.extras.base import Extra, Setup
from polyface.training.following import Period
from polyface.training.inert import check_period
from polyface.training.module import StageModule
from polyface.training.optimiser import optimiser_of
from polyface.training.progress import learning_rate
from polyface.training.specs import StageSpec
from polyface.training.start import evaluating
from polyface.training.terms import LossTerms
from polyface.weighting import Context, Weighting
from polyface.weighting.base import sum_over_ranks, world_size


class Learner(StageModule):
    """Trains one stage on its tasks. State: network, weighting, extras, loss sums, history, position.

    earlier, progress: for the extras that it builds (`Setup`).
    """

    KEPT: ClassVar[dict[str, Any]] = StageModule.KEPT | {
        "validation_seconds": (int, float),
        "weight_sums": dict,
        "best": (list, NoneType),
        "validations": list,
        "weights": dict,
        "course": (list, NoneType, EllipsisType),  # older checkpoints have none
    }
    spec: StageSpec
    loss_sums: Tensor
    loss_counts: Tensor

    def __init__(
        self,
        spec: StageSpec,
        seed: int,
        network: FaceNetwork,
        tasks: dict[str, Task],
        weighting: Weighting,
        train: FaceLoader,
        validation: FaceLoader | None,
        earlier: Mapping[str, Path] | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(spec, spec.optimisation, seed, train)
        self.tasks, self.weighting = tasks, weighting
        self.network = network
        self.nodes = network.nodes_for(tasks)
        """What is computed of the network: what it answers beside these tasks, as one that is extended does, rests."""
        self.terms = LossTerms(tasks, spec.weighting.terms)
        self.period = Period(spec.optimisation, len(train))
        self.weights: dict[str, float] = {}
        """The last weight of every weighted loss that had labelled faces."""
        self.course = Course(spec.optimisation.epochs * len(train))
        setup = Setup(
            spec, network, tasks, self.terms, train.pool, earlier or {}, progress,
            period=self.period, losses=self.plain_losses, weights=lambda: self.weights,
        )  # fmt: skip
        self.extras = nn.ModuleDict({name: EXTRAS.get(name)(own, setup) for name, own in spec.extras.items()})
        check_period(spec, self.period, weighting, dict(zip(self.extras, self._extras(), strict=True)))
        self.register_buffer("loss_sums", torch.zeros(self.terms.count, dtype=torch.float64))
        self.register_buffer("loss_counts", torch.zeros(self.terms.count, dtype=torch.float64))
        self.validations: list[dict[str, Any]] = []
        """One entry a validation that weights and thresholds followed: "step"; "losses", mean losses; "weights", those
        of the next step; and what extras add. Losses and weights are by weighted loss."""
        self.weight_sums: dict[str, tuple[float, int]] = {}
        self._last: FaceBatch | None = None
        self._validation = validation
        self.best: tuple[float, dict[str, Tensor], dict[str, Any]] | None = None
        """Its validation loss, the network's state, what extras keep with it."""
        self._validated: tuple[int, FaceNetwork, Tensor] | None = None
        self.validation_seconds = 0.0

    def _extras(self) -> list[Extra]:
        """In the order in which they act."""
        return list(self.extras.values())  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------------------------ steps

    def _losses(self, batch: FaceBatch, network: nn.Module) -> tuple[FaceOutput, Tensor, Tensor]:
        """(output, mean loss of every term, sums and counts [2, terms] of the global batch). A mean is over the
        labelled faces of the global batch; under DDP local sum × world size / reduced count, since DDP averages."""
        given = batch.maps or batch.images.contiguous(memory_format=torch.channels_last)
        with self.mixed():
            output: FaceOutput = network(given, self._routes(batch) if network.training else None, self.nodes)
        losses = {name: task.loss(output.outputs[name], batch.targets[name]) for name, task in self.tasks.items()}
        for extra in self._extras():
            extra.add_losses(losses, output, batch, network.training)
        pairs = [masked_sums(each, batch.labelled[name]) for name, each in losses.items()]
        sums = torch.cat([s for s, _ in pairs])
        totals = torch.stack([sums.detach(), torch.cat([c for _, c in pairs]).to(sums.dtype)])
        totals = sum_over_ranks(totals)
        return output, term_means(world_size() * sums, totals[1]), totals

    def _routes(self, batch: FaceBatch) -> dict[str, Tensor]:
        """The labels [B] by which the network routes faces in training; −1: by its own answer."""
        labels = {name: as_classes(batch.targets[name]) for name in self.network.routed_by if name in batch.targets}
        return {name: torch.where(batch.labelled[name][:, 0], label, -1) for name, label in labels.items()}

    def step(self, raw: RawBatch) -> Tensor:
        batch = assemble(raw, self.crop, self.tasks, self.spec.data.augment, self.side)
        if self.weighting.validation_faces and self._validation is not None:
            self._validate_few(self._validation, self.weighting.validation_faces)
        output, means, totals = self._losses(batch, self.network)
        losses = self.terms.losses(means)
        context = Context(output.shared, self.network.shared_parameters(), self._counts(totals))
        combined = self.weighting.combine(losses, context)
        added = [extra.add_total(output, batch) for extra in self._extras()]
        total = sum((loss for loss in added if loss is not None), combined.total)
        self._check_finite(total, means, batch)
        self.loss_sums += totals[0]  # of all ranks: DDP copies buffers from rank 0, and so does a resumed run
        self.loss_counts += totals[1]
        present = {name: combined.weights[name] for name, count in (context.counts or {}).items() if count}
        for name, weight in present.items():
            weight_sum, steps = self.weight_sums.get(name, (0.0, 0))
            self.weight_sums[name] = (weight_sum + weight, steps + 1)
        self.weights |= present
        found = self.terms.means(totals, self.terms.weighted)
        self.course.add(self.batches_done, {name: found[name] for name in present}, present)
        if self.weighting.second_forward:
            self._last = batch
        return total

    def _counts(self, totals: Tensor) -> dict[str, int]:
        """Labelled faces of each weighted loss, as extras let the weighting see them."""
        counts = self.terms.counts(totals[1])
        for extra in self._extras():
            counts = extra.counts(counts)
        return counts

    @torch.no_grad()
    def _validate_few(self, loader: FaceLoader, faces: int) -> None:
        """Tell the weighting the losses of the next few validation faces."""
        raw = loader.some(self.batches_done, max(faces, loader.world))
        batch = assemble(self.transfer_batch_to_device(raw, self.device, 0), self.crop, self.tasks, None)
        with evaluating(network := self._looked_at):
            totals = self._losses(batch, network)[2]
        self.weighting.on_validation_batch(self.terms.means(totals, self.terms.weighted), self._counts(totals))

    @torch.no_grad()
    def _after_step(self, batch: FaceBatch) -> None:
        """Tell the weighting the losses of the same batch after the optimiser's step."""
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        output, means, totals = self._losses(batch, self.network)
        for name, buffer in self.network.named_buffers():
            buffer.copy_(buffers[name])  # batch-norm saw this batch once already
        self.weighting.after_step(self.terms.losses(means), Context(output.shared, counts=self._counts(totals)))

    def _check_finite(self, loss: Tensor, means: Tensor, batch: FaceBatch) -> None:
        if bool(torch.isfinite(loss)):
            return
        bad = [name for name, part in self.terms.tasks.items() if not bool(means[part].isfinite().all())]
        bad = bad or list(self.tasks)
        given = list(batch.maps.values()) or [batch.images]
        finite = torch.stack([each.isfinite().flatten(1).all(1) for each in given]).all(0)
        for name in bad:
            each = self.tasks[name].loss
            output = self.network(batch.maps or batch.images).outputs[name]
            wrong = ~each(output, batch.targets[name]).isfinite() & batch.labelled[name]
            finite &= ~wrong.any(1)
        raise self.not_finite(f"the loss of {', '.join(bad)}", batch.rows, finite)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for extra in self._extras():
            extra.before_step(self.network)

    def clipped(self) -> Iterable[nn.Module]:
        return self.network, self.weighting, self.extras

    def end_batch(self) -> None:
        if self._validation is not None and not self.period.by_epoch and self.period.due(self.batches_done):
            self._follow_validation((self.batches_done - 1) // len(self._train) + 1)

    def after_step(self) -> None:
        for extra in self._extras():
            extra.after_step(self.network, self.period.step(self.batches_done))
        if self._last is not None:
            self._after_step(self._last)

    # ------------------------------------------------------------------------------------------------ epochs

    @property
    def evaluated(self) -> FaceNetwork:
        """The network that is validated and saved."""
        network = self.network
        for extra in self._extras():
            network = extra.evaluated(network)
        return network

    def end_epoch(self, epoch: int) -> None:
        sums = torch.stack([self.loss_sums, self.loss_counts])
        train = self.terms.means(sums, self.terms.tasks)
        self.weighting.on_epoch_end(self.terms.means(sums, self.terms.weighted))
        self.loss_sums.zero_()
        self.loss_counts.zero_()
        weights = {name: total / steps for name, (total, steps) in self.weight_sums.items()}
        self.weight_sums = {}
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": self.period.step(self.batches_done),
            "train": train,
            "weights": weights,
            "lr": self.rate,
        }
        optimisation = self.spec.optimisation
        if self._validation is not None and (epoch % optimisation.validate_every == 0 or epoch == optimisation.epochs):
            if self.period.by_epoch and self._followed:
                self._follow_validation(epoch)
            validation = self.terms.means(self.validation_totals(self.evaluated), self.terms.tasks)
            row["validation"] = validation
            value = validation[self.spec.main]
            if self.spec.evaluation.select == "best" and (self.best is None or value < self.best[0]):
                state = {k: v.detach().cpu().clone() for k, v in self.evaluated.state_dict().items()}
                self.best = (value, state, {name: extra.best() for name, extra in self.extras.items()})  # type: ignore[operator]
        for extra in self._extras():
            extra.end_epoch(row)
        self.add_epoch(row)

    @property
    def _followed(self) -> bool:
        """Whether weights or thresholds act on validations."""
        return self.weighting.follows_passes or any(extra.follows for extra in self._extras())

    @property
    def _looked_at(self) -> FaceNetwork:
        """The network that weights, thresholds and stopping look at."""
        return self.evaluated if self.spec.optimisation.follow == "mean" else self.network

    def _follow_validation(self, epoch: int) -> None:
        """What follows from a validation: first extras, such as thresholds, then weights (Mao et al. 2020, Alg. 1)."""
        totals = self.validation_totals(self._looked_at)
        counts = totals[1].cpu()
        losses = self.terms.means(totals, self.terms.weighted)
        for extra in self._extras():
            extra.after_validation(counts, epoch)
        self.weighting.on_validation(losses, self.terms.counts(counts))
        row = {"step": self.period.step(self.batches_done), "losses": losses}
        row["weights"] = self.weighting.in_force() or dict(self.weights)
        for extra in self._extras():
            extra.validated(row)
        self.validations.append(rounded(row))

    def validation_totals(self, network: FaceNetwork) -> Tensor:
        """Sums and counts [2, terms] of the losses that a network has over the validation faces."""
        assert self._validation is not None
        if self._validated and self._validated[0] == self.batches_done and self._validated[1] is network:
            return self._validated[2]
        began = time.monotonic()
        for extra in self._extras():
            extra.before_validation()
        totals = self._totals(network, self._validation, validating=True)
        self._validated = (self.batches_done, network, totals)
        self.validation_seconds += time.monotonic() - began
        return totals

    def plain_losses(self, part: str, faces: int) -> dict[str, float]:
        """Mean losses by task of so many fixed faces of "train" or "val", as they are, in evaluation mode."""
        loader = self._train if part == "train" else self._validation
        assert loader is not None
        return self.terms.means(self._totals(self._looked_at, loader.fixed(faces)), self.terms.tasks)

    @torch.no_grad()
    def _totals(self, network: FaceNetwork, faces: Iterable[RawBatch], validating: bool = False) -> Tensor:
        """Sums and counts [2, terms] of the losses over faces as they are; changes nothing in the network. validating:
        extras are shown every batch."""
        totals = torch.zeros(2, self.terms.count, dtype=torch.float64, device=self.device)
        with evaluating(network):
            for raw in faces:
                batch = assemble(self.transfer_batch_to_device(raw, self.device, 0), self.crop, self.tasks, None)
                output, _, of_batch = self._losses(batch, network)
                totals += of_batch.double()
                for extra in self._extras() if validating else ():
                    extra.on_validation_batch(output, batch)
        return totals

    def records(self) -> dict[str, Any]:
        """What history.json keeps beside the epochs."""
        told = {name: extra.record() for name, extra in zip(self.extras, self._extras(), strict=True)}
        told["course"] = self.course.record()
        return {"validations": self.validations} | {name: each for name, each in told.items() if each is not None}

    def finish(self) -> None:
        """Put back what the best epoch had, where the recipe selects it."""
        if self.best is not None:
            self.evaluated.load_state_dict(self.best[1])
            for name, kept in self.best[2].items():
                self.extras[name].restore(kept)  # type: ignore[operator]

    # ------------------------------------------------------------------------------------------------ optimiser

    def configure_optimizers(self) -> Any:
        o = self.spec.optimisation
        optimiser = optimiser_of(o, self.network, self.extras, self.weighting, self.device)
        total = max(1, o.epochs * len(self._train) // o.accumulate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate(self.spec, step / total, self.history)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------------------------------------ checkpoints

    def kept(self) -> dict[str, Any]:
        return {
            "validation_seconds": self.validation_seconds,
            "validations": self.validations,
            "weights": self.weights,
            "weight_sums": {name: list(pair) for name, pair in self.weight_sums.items()},
            "course": self.course.spans,
            "best": None if self.best is None else list(self.best),
        }

    def restore(self, kept: dict[str, Any]) -> None:
        self.weight_sums = {name: (total, steps) for name, (total, steps) in kept["weight_sums"].items()}
        self.validations, self.weights = kept["validations"], kept["weights"]
        self.course.spans = kept.get("course")
        self.best = None if kept["best"] is None else tuple(kept["best"])
        self.validation_seconds = kept["validation_seconds"]

    def begin(self) -> None:
        if not self.batches_done and self._validation is not None and self._followed:
            self._follow_validation(epoch=1)

    @property
    def standing(self) -> str:
        if not self.history or not (validation := self.history[-1].get("validation")):
            return ""
        return f"validation {self.spec.main} {validation[self.spec.main]:.4g}"
