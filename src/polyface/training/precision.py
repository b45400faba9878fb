"""Which precision a training takes where its recipe leaves that to the device."""

from __future__ import annotations

import torch

from polyface.training.specs import AUTO


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
