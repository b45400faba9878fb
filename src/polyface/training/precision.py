"""Which precision a training takes where its recipe leaves that to the device."""

from __future__ import annotations

from typing import get_args

import torch

from polyface.errors import PolyfaceError, nearest

AUTO = "auto"
"""The precision that is left to the device."""


def check_precision(asked: str) -> str:
    """A precision that a recipe may ask for: "auto", or one of Lightning's."""
    from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS

    known = [AUTO, *get_args(_PRECISION_INPUT_STR), *get_args(_PRECISION_INPUT_STR_ALIAS)]
    if asked not in known:
        raise PolyfaceError(f"no precision is called '{asked}'; {nearest(asked, known)}")
    return asked


def precision(asked: str, accelerator: str = "auto") -> str:
    """Lightning's name of the precision that a recipe asks for; "auto" becomes bf16-mixed where that is quick.

    accelerator: Lightning's ("auto", "cpu", "cuda", "mps", …). A step of the demonstration's network takes four fifths
    of float32's time on a processor with AVX512-BF16, and five times as long on one with AVX2 alone.
    """
    if asked != AUTO:
        return asked
    return "bf16-mixed" if _multiplies_bfloat16(accelerator) else "32-true"


def _multiplies_bfloat16(accelerator: str) -> bool:
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if accelerator not in ("auto", "cpu") or (accelerator == "auto" and torch.backends.mps.is_available()):
        return False
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
