"""The settings of a stage that trains an encoder and a decoder, with a generator or without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from polyface.training.precision import AUTO, check_precision
from polyface.training.specs import BaseStage, Strict, told


class PairSpec(Strict):
    """trunk: the encoder, its name and options. latent: how many numbers it ends in, after a fully connected layer that
    belongs to this stage alone; the generator takes as many. decoder: {kind, its options}, a part that makes a picture
    of these; a `size` and `channels` that it has are the crop's. generator: the same, by default built as the decoder.
    normalise: mean and std of pixel values 0..255."""

    trunk: dict[str, Any]
    latent: int = Field(128, ge=1)
    decoder: dict[str, Any] = Field(default={"kind": "decoder"})
    generator: dict[str, Any] | None = None
    normalise: dict[str, float | list[float]] = Field(default={"mean": 127.5, "std": 128.0})


class BeganSpec(Strict):
    """gamma: how far the loss of generated pictures should be below that of faces; lower gives clearer pictures that
    differ less. lambda_k: the rate at which k follows; short runs want more than the published value given here."""

    name: Literal["began"] = "began"
    gamma: float = Field(0.5, ge=0, le=1)
    lambda_k: float = Field(0.001, ge=0)


class ReconstructionSpec(Strict):
    """No generator: an auto-encoder."""

    name: Literal["reconstruction"]


def _named(given: Any) -> Any:
    """An objective that is not named is BEGAN's."""
    return {"name": "began", **given} if isinstance(given, Mapping) else given


_Either = Annotated[BeganSpec | ReconstructionSpec, Field(discriminator="name")]
Objective = Annotated[_Either, BeforeValidator(_named)]


class AdamSpec(Strict):
    """Adam at the rate `lr`, which is halved, down to `lowest`, when M has not fallen for `patience` epochs. beta1: how
    much of a step comes from earlier gradients. clip: the largest norm of the gradients of encoder and decoder, and of
    those of the generator. precision: as of other stages."""

    lr: float = Field(1e-4, gt=0)
    lowest: float = Field(2e-5, ge=0)
    patience: int = Field(2, ge=1)
    beta1: float = Field(0.9, ge=0, lt=1)
    epochs: int = Field(30, ge=1)
    clip: float | None = Field(None, gt=0)
    accumulate: int = Field(1, ge=1)
    precision: Annotated[str, AfterValidator(told(check_precision))] = AUTO


class CollapseSpec(Strict):
    """When a run is called collapsed. stalled: M has not fallen for so many epochs. spread: reconstructed or generated
    pictures differ, for two epochs, by less than this share of how much faces differ."""

    stalled: int = Field(10, ge=1)
    spread: float = Field(0.02, ge=0, lt=1)


class AdversarialSpec(BaseStage):
    """A stage without tasks. objective: began, or reconstruction. on_collapse: whether a run that has collapsed goes on
    ("warn") or ends with an error ("stop"). sheets: epochs between pictures of samples; 0: at the end alone."""

    network: PairSpec
    objective: Objective = BeganSpec()
    optimisation: AdamSpec = AdamSpec()
    collapse: CollapseSpec = CollapseSpec()
    on_collapse: Literal["warn", "stop"] = "warn"
    sheets: int = Field(1, ge=0)

    def learnt(self) -> BaseStage:
        plain: dict[str, Any] = {"collapse": CollapseSpec(), "on_collapse": "warn", "sheets": 1}
        return super().learnt().model_copy(update=plain)
