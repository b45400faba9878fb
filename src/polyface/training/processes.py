"""What ends a work of several processes when one of them ends, and how a process is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch.distributed as dist

from polyface.errors import PolyfaceError

_EVERY = 5.0  # seconds


def end_with_parent() -> None:
    """End this process, with one line, soon after the process that started it has ended.

    What is written is written aside and renamed, so that nothing is lost that was said to be done.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_EVERY)
        print("polyface: the process that started this one has ended, and so does this", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()


@contextmanager
def ended_together(world: int, local_rank: int) -> Iterator[None]:
    """Where several processes train one network: the end of one ends this one, with one line.

    world: how many there are. local_rank: which of this machine's this is; the first one starts the others.

    Raises:
        PolyfaceError: another process could not be reached any more.
    """
    if world == 1:
        yield
        return
    if local_rank:
        end_with_parent()
    try:
        yield
    except RuntimeError as error:  # gloo's errors are plain ones
        if not isinstance(error, dist.DistError) and not any(name in str(error) for name in ("gloo", "NCCL")):
            raise
        raise PolyfaceError(
            f"another of the {world} processes that train has ended; the same command goes on from the last checkpoint"
        ) from None


@contextmanager
def handling(numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Signals go to a handler while the block runs; in the main thread alone, as no other may set handlers."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in (numbers if here else ())}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def asked_to_stop() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C while the block runs."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handling([signal.SIGTERM], stop):
        yield
