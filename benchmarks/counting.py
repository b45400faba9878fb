"""How much work a network does, for the benchmarks."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@torch.inference_mode()
def multiply_adds(network: nn.Module, channels: int, height: int, width: int) -> float:
    """Those of one picture's answer."""
    network.eval()(torch.zeros(1, channels, height, width))  # lazy layers learn their sizes
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, channels, height, width))
    return counter.get_total_flops() / 2
