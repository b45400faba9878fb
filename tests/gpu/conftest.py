"""What runs on an accelerator: skipped where there is none, unless POLYFACE_TEST_DEVICE names the device to take."""

from __future__ import annotations

import os

import pytest
import torch

from ..toys import five, make, picture, saved, sixty_eight, told
from ..training.conftest import toy

__all__ = ["device", "five", "make", "picture", "saved", "sixty_eight", "told", "toy"]


@pytest.fixture(scope="session")
def device() -> str:
    """The accelerator's name, as PyTorch and Lightning call it."""
    asked = os.environ.get("POLYFACE_TEST_DEVICE")
    if not asked and not torch.cuda.is_available():
        pytest.skip("no CUDA device here; POLYFACE_TEST_DEVICE=cpu tries these tests on the CPU")
    return asked or "cuda"
