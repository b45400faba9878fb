"""The learner: losses under masks, weighting, stopping and validation, as a LightningModule.

Lightning gives devices, precision, DDP, accumulation, clipping and loggers. The order of faces is a pure function of
(seed, stage, epoch, row), so the number of finished batches is all there is to know about where a run stands: a whole
run is one pass over all batches of all epochs, and a resumed run begins that pass later.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from polyface.data.crops import CropSpec
from polyface.data.loader import FaceBatch, FaceLoader, RawBatch, assemble
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork, FaceOutput
from polyface.tasks import Task, masked_sums, term_means, with_thresholds
from polyface.training.centres import Centres, centres_of
from polyface.training.distil import Distillation
from polyface.training.progress import AllEpochs, learning_rate
from polyface.training.recipe import StageSpec, same_settings
from polyface.training.terms import Terms
from polyface.weighting import AdaptiveThresholds, Context, TaskStopping, Weighting
from polyface.weighting.base import sum_over_ranks, world_size


class Learner(L.LightningModule):
    """Trains one stage. State: network, its running mean (EMA), weighting, stopping, loss sums, history, position."""

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
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.seed, self.tasks, self.weighting = spec, seed, tasks, weighting
        self.network = network
        self.stopping = (
            TaskStopping(list(tasks), spec.stopping.main, spec.stopping.window, spec.stopping.threshold)
            if spec.stopping
            else None
        )
        self.average: nn.Module | None = None
        if spec.optimisation.ema:
            self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self.terms = Terms(tasks, spec.weighting.terms)
        self.thresholds = nn.ModuleDict()
        if chosen := spec.thresholds:
            for name in chosen.tasks:
                self.thresholds[name] = AdaptiveThresholds(with_thresholds(tasks, name).thresholds, chosen.rate)
        self.distillation = distillation
        self.centres: Centres | None = None
        if spec.centres:
            self.centres = centres_of(spec.centres, network, tasks)
        self.register_buffer("loss_sums", torch.zeros(self.terms.count, dtype=torch.float64))
        self.register_buffer("loss_counts", torch.zeros(self.terms.count, dtype=torch.float64))
        self.history: list[dict[str, Any]] = []
        self.batches_done = 0
        self.weight_sums: dict[str, tuple[float, int]] = {}
        self._last: FaceBatch | None = None
        self._train, self._validation = train, validation
        self._random: dict[str, Tensor] = {}
        self.best: tuple[float, dict[str, Tensor], dict[str, list[float]]] | None = None
        """Its validation loss, the network's state, thresholds by task."""
        self._validated: tuple[int, Tensor] | None = None
        self._mistakes: dict[str, Tensor] = {}
        self.validation_seconds = 0.0
        self.after_batch: Callable[[int], None] = lambda done: None
        """Called with the number of finished batches, when all that the batch changes has changed."""
        self.seconds: Callable[[], float] = lambda: 0.0

    # ------------------------------------------------------------------------------------------------ data

    @property
    def crop(self) -> CropSpec:
        return self.spec.data.crop

    def train_dataloader(self) -> Any:
        return AllEpochs(self._train, self.spec.optimisation.epochs, self.batches_done)

    def transfer_batch_to_device(self, batch: RawBatch, device: torch.device, dataloader_idx: int) -> RawBatch:
        return batch if batch.cuts.device == device else batch.to(device)

    # ------------------------------------------------------------------------------------------------ steps

    def _losses(self, batch: FaceBatch, network: nn.Module) -> tuple[FaceOutput, Tensor, Tensor]:
        """(output, mean loss of every term, sums and counts [2, terms] of the global batch). A mean is over the
        labelled faces of the global batch; under DDP local sum × world size / reduced count, since DDP averages."""
        images = batch.images.contiguous(memory_format=torch.channels_last)
        output: FaceOutput = network(images)
        losses = {name: task.loss(output.outputs[name], batch.targets[name]) for name, task in self.tasks.items()}
        if self.centres:
            self.centres.add_to(losses, output.embeddings, batch.targets)
        if self.distillation and network.training:  # the teacher was asked of training faces alone
            self.distillation.add_to(losses, output.embeddings, batch.rows)
        pairs = [masked_sums(each, batch.labelled[name]) for name, each in losses.items()]
        sums = torch.cat([s for s, _ in pairs])
        totals = torch.stack([sums.detach(), torch.cat([c for _, c in pairs]).to(sums.dtype)])
        totals = sum_over_ranks(totals)
        return output, term_means(world_size() * sums, totals[1]), totals

    def training_step(self, raw: RawBatch, index: int) -> Tensor:
        batch = assemble(raw, self.crop, self.tasks, self.spec.data.augment)
        if self.weighting.validation_faces and self._validation is not None:
            self._validate_few(self._validation, self.weighting.validation_faces)
        output, means, totals = self._losses(batch, self.network)
        losses = self.terms.losses(means)
        context = Context(output.shared, tuple(self.network.trunk.parameters()), self._counts(totals))
        combined = self.weighting.combine(losses, context)
        self._check_finite(combined.total, means, batch)
        self.loss_sums += totals[0]  # of all ranks: DDP copies buffers from rank 0, and so does a resumed run
        self.loss_counts += totals[1]
        for name, count in (context.counts or {}).items():
            if count:
                weight_sum, steps = self.weight_sums.get(name, (0.0, 0))
                self.weight_sums[name] = (weight_sum + combined.weights[name], steps + 1)
        if self.centres:
            self.centres.follow(output.embeddings, batch.targets, batch.labelled)
        if self.weighting.second_forward:
            self._last = batch
        return combined.total

    def _counts(self, totals: Tensor) -> dict[str, int]:
        """Labelled faces of what the weighting weighs; 0 once its task has stopped."""
        stopped = self.stopping.stopped if self.stopping else {}
        counts = self.terms.counts(totals[1])
        return {name: 0 if self.terms.task_of[name] in stopped else count for name, count in counts.items()}

    @torch.no_grad()
    def _validate_few(self, loader: FaceLoader, faces: int) -> None:
        """Tell the weighting the losses of the next few validation faces."""
        raw = loader.some(self.batches_done, max(faces, loader.world))
        batch = assemble(self.transfer_batch_to_device(raw, self.device, 0), self.crop, self.tasks, None)
        with _evaluating(self.network):
            totals = self._losses(batch, self.network)[2]
        self.weighting.on_validation_batch(self.terms.means(totals, self.terms.weighed), self._counts(totals))

    @torch.no_grad()
    def _after_step(self, batch: FaceBatch) -> None:
        """Tell the weighting the losses of the same batch after the optimiser's step."""
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        with self.trainer.precision_plugin.train_step_context():
            output, means, totals = self._losses(batch, self.network)
        for name, buffer in self.network.named_buffers():
            buffer.copy_(buffers[name])  # batch-norm saw this batch once already
        self.weighting.after_step(self.terms.losses(means), Context(output.shared, counts=self._counts(totals)))

    def _check_finite(self, loss: Tensor, means: Tensor, batch: FaceBatch) -> None:
        if bool(torch.isfinite(loss)):
            return
        bad = [name for name, part in self.terms.tasks.items() if not bool(means[part].isfinite().all())]
        bad = bad or list(self.tasks)
        finite = batch.images.isfinite().flatten(1).all(1)
        for name in bad:
            each = self.tasks[name].loss
            output = self.network(batch.images).outputs[name]
            wrong = ~each(output, batch.targets[name]).isfinite() & batch.labelled[name]
            finite &= ~wrong.any(1)
        rows = batch.rows[~finite][:5].tolist() or batch.rows[:5].tolist()
        places = ", ".join(f"{row} ({self._train.pool.table.path(row)})" for row in rows)
        raise PolyfaceError(
            f"stage {self.spec.name}, step {self.batches_done}: the loss of {', '.join(bad)} is not finite, at rows "
            f"{places}: lower optimisation.lr, set optimisation.clip, or mend these rows"
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # A stopped task's head took part in the step (×0, so that DDP sees every parameter); without a gradient the
        # optimiser leaves it as it is, momentum and weight decay included.
        for task in self.stopping.stopped if self.stopping else ():
            for parameter in self.network.heads[task].parameters():
                parameter.grad = None

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # The weighting's gradients are those of another objective: neither may shorten the other's.
        for parameters in (list(self.network.parameters()), list(self.weighting.parameters())):
            if gradient_clip_val and parameters:
                torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def on_train_batch_end(self, outputs: Any, batch: RawBatch, index: int) -> None:
        self.batches_done += 1
        optimisation = self.spec.optimisation
        every = (optimisation.validate_steps or 0) * optimisation.accumulate
        if every and self._validation is not None and self.batches_done % every == 0:
            self._follow_validation((self.batches_done - 1) // len(self._train) + 1)
        last = self.batches_done == optimisation.epochs * len(self._train)  # steps, however few micro-batches are left
        if self.batches_done % optimisation.accumulate == 0 or last:
            if self.average is not None:
                self._update_average(float(optimisation.ema or 0))
            if self._last is not None:
                self._after_step(self._last)
        epoch, rest = divmod(self.batches_done, len(self._train))
        if rest == 0:
            self._end_epoch(epoch)
        self.after_batch(self.batches_done)

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        assert self.average is not None
        step = math.ceil(self.batches_done / self.spec.optimisation.accumulate)
        decay = min(decay, (1 + step) / (10 + step))  # short runs: do not average the random start in
        for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for kept, current in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(current)

    # ------------------------------------------------------------------------------------------------ epochs

    @property
    def evaluated(self) -> FaceNetwork:
        """The network that is validated and saved: the running mean of the weights where there is one."""
        return self.network if self.average is None else self.average  # type: ignore[return-value]

    def _end_epoch(self, epoch: int) -> None:
        sums = torch.stack([self.loss_sums, self.loss_counts])
        train = self.terms.means(sums, self.terms.tasks)
        self.weighting.on_epoch_end(self.terms.means(sums, self.terms.weighed))
        self.loss_sums.zero_()
        self.loss_counts.zero_()
        weights = {name: total / steps for name, (total, steps) in self.weight_sums.items()}
        self.weight_sums = {}
        row: dict[str, Any] = {
            "epoch": epoch,
            "train": train,
            "weights": weights,
            "lr": self.optimizers().param_groups[0]["lr"],  # type: ignore[union-attr]
        }
        optimisation = self.spec.optimisation
        if self._validation is not None and (epoch % optimisation.validate_every == 0 or epoch == optimisation.epochs):
            if not optimisation.validate_steps:
                self._follow_validation(epoch)
            validation = self.terms.means(self.validation_totals(), self.terms.tasks)
            row["validation"] = validation
            if self.stopping:
                self.stopping.update(train, validation, weights)
                row["criterion"], row["stopped"] = dict(self.stopping.values), dict(self.stopping.stopped)
            value = validation[self.spec.evaluation.main]
            if self.spec.evaluation.select == "best" and (self.best is None or value < self.best[0]):
                state = {k: v.detach().cpu().clone() for k, v in self.evaluated.state_dict().items()}
                self.best = (value, state, self._thresholds())
        if self.thresholds:
            row["thresholds"] = self._thresholds()
        self.history.append(row)
        for logger in self.loggers:
            flat = {f"{part}/{k}": v for part in ("train", "validation") for k, v in row.get(part, {}).items()}
            logger.log_metrics(flat | {"lr": row["lr"]}, step=self.batches_done)

    def _follow_validation(self, epoch: int) -> None:
        """What follows from a validation: first thresholds, then weights (Mao et al. 2020, Algorithm 1)."""
        totals = self.validation_totals()
        counts = totals[1].cpu()
        for name, module in self.thresholds.items():
            assert isinstance(module, AdaptiveThresholds)
            above, below = self._mistakes[name].cpu().numpy()
            with_thresholds(self.tasks, name).thresholds = module.update(
                above, below, counts[self.terms.tasks[name]].numpy(), epoch
            )
        self.weighting.on_validation(self.terms.means(totals, self.terms.weighed), self.terms.counts(counts))

    @torch.no_grad()
    def validation_totals(self) -> Tensor:
        """Sums and counts [2, terms] of the losses over the validation faces; changes nothing in the network."""
        assert self._validation is not None
        if self._validated and self._validated[0] == self.batches_done:
            return self._validated[1]
        began = time.monotonic()
        network = self.evaluated
        totals = torch.zeros(2, self.terms.count, dtype=torch.float64, device=self.device)
        mistakes = {name: torch.zeros_like(totals[:, self.terms.tasks[name]]) for name in self.thresholds}
        with _evaluating(network), self.trainer.precision_plugin.val_step_context():
            for raw in self._validation:
                raw = self.transfer_batch_to_device(raw, self.device, 0)
                batch = assemble(raw, self.crop, self.tasks, None)
                output, _, of_batch = self._losses(batch, network)
                totals += of_batch.double()
                for name, counts in mistakes.items():
                    task = with_thresholds(self.tasks, name)
                    found = task.mistakes(output.outputs[name], batch.targets[name], batch.labelled[name])
                    counts += torch.stack(found)
        self._mistakes = {name: sum_over_ranks(counts) for name, counts in mistakes.items()}
        self._validated = (self.batches_done, totals)
        self.validation_seconds += time.monotonic() - began
        return totals

    def _thresholds(self) -> dict[str, list[float]]:
        return {name: with_thresholds(self.tasks, name).thresholds for name in self.thresholds}

    def finish(self) -> None:
        """Put back what the best epoch had, where the recipe selects it."""
        if self.best is not None:
            self.evaluated.load_state_dict(self.best[1])
            for name, thresholds in self.best[2].items():
                with_thresholds(self.tasks, name).thresholds = thresholds

    # ------------------------------------------------------------------------------------------------ optimiser

    def configure_optimizers(self) -> Any:
        o = self.spec.optimisation
        named = [(name.startswith("heads."), p) for name, p in self.network.named_parameters()]
        apart = o.body_lr != 1  # trunk and branches have a rate of their own
        groups: list[dict[str, Any]] = []
        for heads, lr in ((True, o.lr), (False, o.lr * o.body_lr)):
            own = [p for of_heads, p in named if (apart and of_heads) == heads]
            for matrix, decay in ((True, o.weight_decay), (False, 0.0)):
                if chosen := [p for p in own if (p.ndim > 1) == matrix]:
                    groups.append({"params": chosen, "weight_decay": decay, "lr": lr})
        if weights := list(self.weighting.parameters()):
            groups.append({"params": weights, "weight_decay": 0.0, "lr": self.weighting.lr or o.lr})
        optimiser: torch.optim.Optimizer
        if o.optimiser == "sgd":
            optimiser = torch.optim.SGD(groups, lr=o.lr, momentum=o.momentum)
        elif o.optimiser == "rmsprop":
            optimiser = torch.optim.RMSprop(groups, lr=o.lr, momentum=o.momentum, alpha=0.9, eps=o.epsilon)
        else:
            fused = self.device.type in ("cpu", "cuda")  # one pass over the parameters instead of ten
            optimiser = torch.optim.AdamW(groups, lr=o.lr, fused=fused)
        total = max(1, o.epochs * len(self._train) // o.accumulate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate(self.spec, step / total, self.history)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.pop("loops", None)  # where the run stands is `batches_done` alone
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        checkpoint["polyface"] = {
            "stage": self.spec.model_dump_json(),
            "seed": self.seed,
            "data": self._train.pool.table.fingerprint,
            "batches_done": self.batches_done,
            "seconds": self.seconds(),
            "validation_seconds": self.validation_seconds,
            "history": self.history,
            "weight_sums": {name: list(pair) for name, pair in self.weight_sums.items()},
            "random": random,
            "best": None if self.best is None else list(self.best),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = checkpoint["polyface"]
        for what, have, want in (
            ("settings", True, same_settings(self.spec, self.seed, json.loads(own["stage"]) | {"seed": self.seed})),
            ("seed", self.seed, own["seed"]),
            ("data", self._train.pool.table.fingerprint, own["data"]),
        ):
            if have != want:
                raise PolyfaceError(
                    f"stage {self.spec.name}: the checkpoint was made with other {what}: give another --out, or pass "
                    "--fresh to start over"
                )
        self.batches_done, self.history, self._random = own["batches_done"], own["history"], own["random"]
        self.weight_sums = {name: (total, steps) for name, (total, steps) in own["weight_sums"].items()}
        self.best = None if own["best"] is None else tuple(own["best"])
        self.validation_seconds = own["validation_seconds"]

    def on_train_start(self) -> None:
        for name, module in self.thresholds.items():
            assert isinstance(module, AdaptiveThresholds)
            with_thresholds(self.tasks, name).thresholds = module.thresholds
        if self._random:
            torch.set_rng_state(self._random["cpu"].cpu())
            if "cuda" in self._random and self.device.type == "cuda":
                torch.cuda.set_rng_state(self._random["cuda"].cpu(), self.device)
            self._random = {}


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards every module as it was."""
    was = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in was.items():
            module.training = training
