"""When weights and thresholds follow a validation: the P of Mao et al. 2020."""

from __future__ import annotations

import math

from polyface.training.specs import OptimisationSpec


class Period:
    """The validations that weights and thresholds follow, in a run of `batches` batches an epoch: before the first step
    (Algorithm 1 has one at loop 0), then every `validate_steps` steps, or `validate_times` times an epoch, or at the
    end of every `validate_every`-th epoch and of the last."""

    def __init__(self, optimisation: OptimisationSpec, batches: int) -> None:
        self.optimisation, self.batches = optimisation, batches

    @property
    def by_epoch(self) -> bool:
        """Whether it is at the ends of epochs alone."""
        return not (self.optimisation.validate_steps or self.optimisation.validate_times)

    @property
    def steps(self) -> int:
        """Steps of the optimiser in the whole run."""
        return self.step(self.optimisation.epochs * self.batches)

    def step(self, done: int) -> int:
        """Steps of the optimiser that so many batches are."""
        return math.ceil(done / self.optimisation.accumulate)

    @property
    def first(self) -> int:
        """Steps before the first validation but the one that is before them all; those of the run where it has none."""
        batches = self.optimisation.epochs * self.batches
        return self.step(next(filter(self.due, range(1, batches)), batches))

    def due(self, done: int) -> bool:
        """Whether a validation is due after so many batches of the run."""
        o = self.optimisation
        if o.validate_steps:
            return done % (o.validate_steps * o.accumulate) == 0
        if o.validate_times:
            place = (done - 1) % self.batches + 1  # within the epoch
            return place * o.validate_times // self.batches > (place - 1) * o.validate_times // self.batches
        epoch, rest = divmod(done, self.batches)
        return rest == 0 and (epoch % o.validate_every == 0 or epoch == o.epochs)
