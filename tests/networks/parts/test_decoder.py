"""The decoder and generator of Barros et al. 2019, against its repaired table."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polyface.errors import PolyfaceError
from polyface.networks import build
from polyface.networks.parts.decoder import Decoder
from polyface.networks.shapes import Shape


def test_the_papers_decoder_has_its_parameters_and_sides() -> None:
    decoder = Decoder([Shape(128)])
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 155_441
    sides = []
    for layer in decoder.layers:
        layer.register_forward_hook(lambda layer, given, made: sides.append((made.shape[1], made.shape[2])))
    with torch.no_grad():
        made = decoder([torch.zeros(1, 128)])
    assert made.shape == (1, 1, 128, 128)
    twice, thrice = [2, 2], [3, 3]
    expected = [
        (16, side) for block, count in enumerate(twice + thrice) for side in [8 * 2**block] * count + [16 * 2**block]
    ]
    assert sides == [*expected, (1, 128)]


def test_the_small_decoder_goes_from_3_to_48() -> None:
    decoder = Decoder([Shape(32), Shape(32)], size=48, channels=3)
    assert decoder.side == 3
    with torch.no_grad():
        assert decoder([torch.zeros(2, 32)] * 2).shape == (2, 3, 48, 48)


def test_pictures_may_take_any_value() -> None:
    """The last layer is linear: with a bias of −7 a decoder of zeros says −7."""
    decoder = Decoder([Shape(4)], size=16, width=2, convolutions=[1])
    last = decoder.layers[-1]
    assert isinstance(last, nn.Conv2d)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-7.0)  # type: ignore[union-attr]
        assert (decoder([torch.randn(2, 4)]) == -7).all()


def test_enlarging_repeats_the_nearest_pixel() -> None:
    up = next(
        layer for layer in Decoder([Shape(4)], size=16, convolutions=[1]).layers if isinstance(layer, nn.Upsample)
    )
    assert up(torch.tensor([[[[1.0, 2.0]]]])).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]


@pytest.mark.parametrize("options", [{"size": 50}, {"size": 8}, {"width": 0}, {"convolutions": [2, 0], "size": 8}])
def test_what_it_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(PolyfaceError, match="expected a size that .* divides"):
        Decoder([Shape(4)], **options)  # type: ignore[arg-type]


def test_it_reads_vectors() -> None:
    config = {"trunk": {"name": "began", "size": 16, "widths": [2, 2, 2, 2]}, "heads": {}}
    parts = {"made": {"kind": "decoder", "size": 16, "frozen": True}}
    with pytest.raises(PolyfaceError, match=r"network.parts.made \(decoder\): it reads a map; expected vectors"):
        build(config | {"parts": parts})
