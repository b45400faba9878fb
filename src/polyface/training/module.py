"""What all trainings have in common: where a run stands, what its checkpoint holds, what its network is run in.

Lightning gives devices, precision, DDP, accumulation, clipping and loggers. The order of faces is a pure function of
(seed, stage, epoch, row), so the number of finished batches is all there is to know about where a run stands: a whole
run is one pass over all batches of all epochs, and a resumed run begins that pass later.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

import lightning as L
import torch
from torch import Tensor, nn

from polyface.data.crops import CropSpec
from polyface.data.loader import FaceLoader, RawBatch
from polyface.errors import PolyfaceError
from polyface.training.progress import AllEpochs
from polyface.training.specs import BaseStage, same_settings

LAYOUT = 3
"""Of checkpoints; 1 had a place of its own for each of five extras, 2 no validations but those of epochs."""


class Pace(Protocol):
    """What the trainer reads of a stage's `optimisation`."""

    @property
    def epochs(self) -> int: ...
    @property
    def clip(self) -> float | None: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def precision(self) -> str: ...


class StageModule(L.LightningModule):
    """Trains one stage; a learner's own module says what a step is (`step`), and what follows it (`after_step`,
    `end_epoch`).

    State: modules, history, position, and what `kept` gives.
    """

    KEPT: ClassVar[dict[str, Any]] = {
        "stage": str,
        "seed": int,
        "data": str,
        "batches_done": int,
        "seconds": (int, float),
        "history": list,
        "random": dict,
        "precisions": list,
    }
    """What its checkpoints say of where the run stands, and of which type."""

    def __init__(self, spec: BaseStage, pace: Pace, seed: int, train: FaceLoader) -> None:
        super().__init__()
        self.spec, self.pace, self.seed = spec, pace, seed
        self.history: list[dict[str, Any]] = []
        self.batches_done = 0
        self._train = train
        self._random: dict[str, Tensor] = {}
        self.after_batch: Callable[[int], None] = lambda done: None
        """Called with the number of finished batches, when all that the batch changes has changed."""
        self.save: Callable[[], None] = lambda: None
        """Write the checkpoint now; on all processes together."""
        self.seconds: Callable[[], float] = lambda: 0.0
        self.mixed: Callable[[], AbstractContextManager[Any]] = nullcontext
        """In which the network is run, and nothing else: geometry and losses want float32."""
        self.precisions: list[str] = []
        """What the run was made in; more than one where it was carried on by another device."""
        self.started = False
        """Whether the run was brought to where it stood, and goes on."""

    # ------------------------------------------------------------------------------------------------ a learner's own

    @abstractmethod
    def step(self, raw: RawBatch) -> Tensor:
        """The loss of a batch, from which one backward pass trains everything."""

    def end_batch(self) -> None:
        """After each batch, before what follows a step."""

    @abstractmethod
    def after_step(self) -> None:
        """After each step of the optimiser."""

    @abstractmethod
    def end_epoch(self, epoch: int) -> None:
        """After each epoch, counted from 1: adds its entry to the history."""

    def begin(self) -> None:
        """Before the first step of this process."""

    @abstractmethod
    def clipped(self) -> Iterable[nn.Module]:
        """Modules whose gradients are clipped apart: those of another objective may not shorten these."""

    def kept(self) -> dict[str, Any]:
        """What a checkpoint holds beside the modules' state and `KEPT` of all: tensors and plain values."""
        return {}

    def restore(self, kept: dict[str, Any]) -> None:
        """Take back what `kept` gave."""

    @property
    def standing(self) -> str:
        """A few words on how the run goes, for the progress bar."""
        return ""

    # ------------------------------------------------------------------------------------------------ data

    @property
    def epochs(self) -> int:
        return self.pace.epochs

    @property
    def epoch_batches(self) -> int:
        return len(self._train)

    @property
    def crop(self) -> CropSpec:
        return self.spec.data.crop

    @property
    def side(self) -> int:
        """Of the pictures in the present step of training, in pixels: a pure function of the step."""
        sizes = self.spec.data.sizes or [self.crop.size]
        return sizes[self.batches_done // self.pace.accumulate % len(sizes)]

    def train_dataloader(self) -> Any:
        return AllEpochs(self._train, self.epochs, self.batches_done)

    def transfer_batch_to_device(self, batch: RawBatch, device: torch.device, dataloader_idx: int) -> RawBatch:
        return batch if batch.cuts.device == device else batch.to(device)

    # ------------------------------------------------------------------------------------------------ steps

    def training_step(self, raw: RawBatch, index: int) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):  # Lightning has switched it on for the whole step
            return self.step(raw)

    def not_finite(self, what: str, rows: Tensor, finite: Tensor) -> PolyfaceError:
        """The error of a loss of a batch. rows: of its faces [B]; finite [B]: where nothing is wrong with them."""
        named = rows[~finite][:5].tolist() or rows[:5].tolist()
        places = ", ".join(f"{row} ({self._train.pool.table.path(row)})" for row in named)
        return PolyfaceError(
            f"stage {self.spec.name}, step {self.batches_done}: {what} is not finite, at rows "
            f"{places}: lower optimisation.lr, set optimisation.clip, or mend these rows"
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        for module in self.clipped():
            parameters = list(module.parameters())
            if gradient_clip_val and parameters:
                torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def on_train_batch_end(self, outputs: Any, batch: RawBatch, index: int) -> None:
        self.batches_done += 1
        self.end_batch()
        last = self.batches_done == self.epochs * len(self._train)  # steps, however few micro-batches are left
        if self.batches_done % self.pace.accumulate == 0 or last:
            self.after_step()
        epoch, rest = divmod(self.batches_done, len(self._train))
        if rest == 0:
            self.end_epoch(epoch)
        self.after_batch(self.batches_done)

    def add_epoch(self, row: dict[str, Any]) -> None:
        """Add an epoch's entry to the history, and tell loggers its numbers; of lists, such as thresholds, they know
        nothing."""
        self.history.append(row)
        by_task = {part: told for part, told in row.items() if isinstance(told, dict)}
        numbers = {
            f"{part}/{name}": value
            for part, told in by_task.items()
            for name, value in told.items()
            if isinstance(value, (int, float))
        }
        for logger in self.loggers:
            logger.log_metrics(numbers | {"lr": row["lr"]}, step=self.batches_done)

    @property
    def rate(self) -> float:
        """The present learning rate."""
        return float(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]

    # ------------------------------------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.pop("loops", None)  # where the run stands is `batches_done` alone
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        checkpoint["polyface"] = {
            "layout": LAYOUT,
            "stage": self.spec.model_dump_json(),
            "seed": self.seed,
            "data": self._train.pool.table.fingerprint,
            "batches_done": self.batches_done,
            "processes": self._train.world,
            "seconds": self.seconds(),
            "history": self.history,
            "precisions": self.precisions,
            "random": random,
            **self.kept(),
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
        world, then = self._train.world, own.get("processes")  # older checkpoints do not say it
        epochs = own["batches_done"] // len(self._train)
        if then not in (None, world) or epochs != len(own["history"]):
            raise PolyfaceError(
                f"stage {self.spec.name}: the checkpoint was made by {then or 'another number of'} processes, and here "
                f"are {world}, whose batches have other faces: go on with as many --devices, give another --out, or "
                "pass --fresh to start over"
            )
        self.batches_done, self.history, self._random = own["batches_done"], own["history"], own["random"]
        self.precisions = own["precisions"]
        self.restore(own)

    def setup(self, stage: str) -> None:
        self.mixed = self.trainer.precision_plugin.forward_context

    def on_train_start(self) -> None:
        if self._random:
            torch.set_rng_state(self._random["cpu"].cpu())
            if "cuda" in self._random and self.device.type == "cuda":
                torch.cuda.set_rng_state(self._random["cuda"].cpu(), self.device)
            self._random = {}
        if (precision := str(self.trainer.precision)) not in self.precisions:
            self.precisions.append(precision)
        self.begin()
        self.started = True
