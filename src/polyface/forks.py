"""What holds in a process that was forked from one that has used Polyface: a web server's or a process pool's worker.

A fork copies the memory and, of all threads, the one that forked. What waits for the others waits for ever. Therefore,
in a forked process,

- torch and FAISS compute on one thread: their OpenMP would hand work to threads that are not there;
- sessions of ONNX Runtime are opened anew, and those of the parent never ended, since that waits for their threads;
- a gallery that the parent has open for writing can be searched but not changed: the lock stays the parent's;
- an accelerator that the parent has used is refused: its driver works in the process that started it alone.

Whoever keeps threads, locks or open files that matter after a fork says so here, by `after_fork`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from polyface.errors import PolyfaceError

if TYPE_CHECKING:
    import torch

# ONNX Runtime (1.29 and later) starts a thread that reports to its maker whatever process loads it, unless this is set
# before; a forked process waits for that thread when it ends. Nothing of a program about faces is to be reported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_born = os.getpid()


def forked() -> bool:
    """Whether this process was forked after Polyface had been imported."""
    return os.getpid() != _born


def after_fork(call: Callable[[], None]) -> Callable[[], None]:
    """Have `call` called in every process that is forked from this one, before anything else."""
    if hasattr(os, "register_at_fork"):  # no system without it can fork
        os.register_at_fork(after_in_child=call)
    return call


def keep_for_ever(things: Iterable[object]) -> None:
    """Never end these, not even when the process ends."""
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def check_device(device: torch.device) -> None:
    """Raise where a device cannot be used, because this process was forked after its parent had used it."""
    in_bad_fork = getattr(getattr(sys.modules["torch"], device.type, None), "_is_in_bad_fork", None)
    if in_bad_fork is not None and in_bad_fork():
        raise PolyfaceError(
            f"device '{device}' was used before this process was forked: start workers by "
            'multiprocessing.get_context("spawn"), or load the model in the worker alone'
        )


@after_fork
def _one_thread() -> None:
    for name, setter in (("torch", "set_num_threads"), ("faiss", "omp_set_num_threads")):
        set_threads = getattr(sys.modules.get(name), setter, None)  # None too where it is just being imported
        if set_threads is not None:
            set_threads(1)
