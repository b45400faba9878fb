"""What an encoder and a decoder are trained for: to reconstruct faces, and (BEGAN) to do so worse with generated ones.

Berthelot et al. 2017, https://arxiv.org/abs/1703.10717. Barros et al. 2019 print L_G = −L_D in place of L_G = L(G(z));
its gradient is k ∂L(G(z)), exactly zero at the start, where k is 0, so that the generator would never learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from polyface.networks import FaceNetwork


class AutoEncoder(nn.Module):
    """A network's trunk, the layer to its latent vector h, and its decoder, which are one function of a picture: D."""

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self.trunk, self.latent, self.decoder = network.trunk, network.branches["latent"], network.branches["decoder"]

    def forward(self, pictures: Tensor) -> Tensor:
        """Normalised pictures [B, C, S, S] → their reconstructions."""
        return self.decode(self.encode(pictures))

    def encode(self, pictures: Tensor) -> Tensor:
        """→ h [B, latent]."""
        maps = self.trunk(pictures.contiguous(memory_format=torch.channels_last))
        return self.latent([maps["shared"]])  # type: ignore[no-any-return]

    def decode(self, latent: Tensor) -> Tensor:
        return picture(self.decoder, latent)


def picture(part: nn.Module, latent: Tensor) -> Tensor:
    """What a decoder or generator makes of vectors [B, latent]: normalised pictures [B, C, S, S], at least float32."""
    given = part([latent])
    made: Tensor = given if isinstance(given, Tensor) else given[""]
    return made.to(torch.promote_types(made.dtype, torch.float32))


def distance(pictures: Tensor, reconstructions: Tensor) -> Tensor:
    """L(v) = |v − D(v)| of each picture [B]: the mean over its pixels."""
    return (pictures - reconstructions).abs().flatten(1).mean(1)


class Reconstruction(nn.Module):
    """L(x) alone: an auto-encoder of faces. spec: a `ReconstructionSpec`."""

    losses: tuple[str, ...] = ("real",)
    """The names of what `forward` gives."""

    def __init__(self, spec: Any) -> None:
        super().__init__()

    def forward(self, model: AutoEncoder, generator: nn.Module | None, real: Tensor, z: Tensor) -> dict[str, Tensor]:
        """The losses of each face and each generated picture, {name: [B]}. The gradient of the sum of their means is
        the direction in which both networks learn. real: normalised faces [B, C, S, S]. z: [B, latent], for the
        generator."""
        return {"real": distance(real, model(real))}

    def follow(self, losses: Mapping[str, float]) -> float:
        """After a step, by its mean losses over all processes: M, which falls while training goes well."""
        return losses["real"]

    @property
    def state(self) -> dict[str, float]:
        """Numbers that `follow` changes, by name."""
        return {}


class Began(Reconstruction):
    """L_D = L(x) − k L(G(z)), L_G = L(G(z)); k ← clip(k + λ_k (γ L(x) − L(G(z))), 0, 1), from 0.

    M = L(x) + |γ L(x) − L(G(z))|. spec: a `BeganSpec`.
    """

    losses = ("real", "generated")
    k: Tensor

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self.gamma, self.rate = float(spec.gamma), float(spec.lambda_k)
        self.register_buffer("k", torch.zeros((), dtype=torch.float64))

    def forward(self, model: AutoEncoder, generator: nn.Module | None, real: Tensor, z: Tensor) -> dict[str, Tensor]:
        assert generator is not None
        generated = picture(generator, z)
        # One backward pass for both: what the generated pictures' loss says to D's parameters is scaled by −k, while
        # what it says to the pictures, and so to G, passes as it is.
        weights = {name: scaled(value, -self.k) for name, value in model.named_parameters()}
        reconstructed = functional_call(model, weights, (generated,))
        return super().forward(model, generator, real, z) | {"generated": distance(generated, reconstructed)}

    def follow(self, losses: Mapping[str, float]) -> float:
        balance = self.gamma * losses["real"] - losses["generated"]
        self.k.add_(self.rate * balance).clamp_(0, 1)
        return losses["real"] + abs(balance)

    @property
    def state(self) -> dict[str, float]:
        return {"k": float(self.k)}


def scaled(parameter: Tensor, factor: Tensor) -> Tensor:
    """A parameter as it is, whose gradient through here is multiplied by a factor."""
    if not parameter.requires_grad:
        return parameter
    same = parameter.view_as(parameter)
    same.register_hook(lambda gradient: gradient * factor.to(gradient))  # type: ignore[no-untyped-call]
    return same


OBJECTIVES: dict[str, type[Reconstruction]] = {"began": Began, "reconstruction": Reconstruction}
"""By the name in a stage's `objective`."""
