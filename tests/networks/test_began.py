"""The encoder of Barros et al. 2019, against its printed sizes."""

from __future__ import annotations

import pytest
import torch

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks.trunks.began import Began


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_papers_encoder_has_its_parameters_and_maps() -> None:
    """Table I: 128 → 64 → 32 → 16, and 2,509,184 parameters of convolutions."""
    trunk = Began()
    assert parameters(trunk) == 2_509_184
    with torch.no_grad():
        maps = trunk(torch.zeros(1, 1, 128, 128))
    assert {name: list(values.shape[1:]) for name, values in maps.items()} == {
        "block1": [64, 64, 64],
        "block2": [128, 32, 32],
        "block3": [128, 16, 16],
        "shared": [256, 16, 16],
    }


@pytest.mark.parametrize(
    "size, widths, channels", [(128, (4, 6, 6, 8), 1), (48, (32, 64, 64, 128), 3), (50, (3,) * 4, 1)]
)
def test_maps_are_as_declared(size: int, widths: tuple[int, ...], channels: int) -> None:
    trunk = Began(size, widths, channels)
    with torch.no_grad():
        maps = trunk(torch.zeros(2, channels, size, size))
    assert maps.keys() == trunk.maps.keys()
    for name, shape in trunk.maps.items():
        side = -(-size // shape.stride)
        assert list(maps[name].shape) == [2, shape.channels, side, side]


def test_it_has_elu_after_every_convolution_and_three_strides() -> None:
    layers = [layer for layer in Began().modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.ELU)]
    assert [isinstance(layer, torch.nn.ELU) for layer in layers] == [False, True] * 13
    strides = [layer.stride[0] for layer in layers[::2]]  # type: ignore[union-attr]
    assert strides == [1, 1, 2, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1]


@pytest.mark.parametrize("options", [{"size": 7}, {"widths": [8, 8, 8]}, {"widths": [8, 8, 8, 0]}])
def test_what_it_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(PolyfaceError, match="network.trunk.*expected a size of 8 or more, and 4 widths"):
        networks.build({"trunk": {"name": "began", **options}, "heads": {}})
