"""Runs `polyface` commands one after the other, each in a process of its own that may be killed on the way.

A script, not a test: it imports what commands import once and forks for each, so that a command costs no start of
torch. It reads a line of JSON, {"words": […], "after": seconds or null, "log": path}, runs `polyface WORDS…`, sends
SIGKILL to it and all its children after so many seconds, writes what it printed to `log`, and answers a line:
{"status": exit status (−9: killed), "seconds": …}. With "--disk FOLDER", a line {"new": bytes} makes an empty
file system of that size there, which only it and what it starts see, and {"grow": bytes} makes it larger.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import onnxscript  # noqa: F401
import timm  # noqa: F401
import torch
import torch.onnx

import polyface.cli
import polyface.export.onnx
import polyface.gallery
import polyface.inference
import polyface.reproduce
import polyface.training.trainer


def mount(folder: str, asked: dict[str, Any]) -> None:
    if "new" in asked:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)
        options = f"size={asked['new']}"
    else:
        options = f"remount,size={asked['grow']}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "polyface", folder], check=True)


def run(words: list[str], log: str) -> int:
    """A fork that runs the command as the leader of a group of processes."""
    if child := os.fork():
        return child
    os.setsid()
    status = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for stream in (1, 2):
            os.dup2(out, stream)
        sys.argv = ["polyface", *words]
        polyface.cli.main()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    child = run(asked["words"], asked["log"])
    kill = threading.Timer(asked["after"] or 0, lambda: os.killpg(child, signal.SIGKILL))
    if asked["after"] is not None:
        kill.start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kill.cancel()
    return {"status": status, "seconds": time.monotonic() - began}


def main() -> None:
    torch.set_num_threads(1)
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "words" not in asked:
            mount(sys.argv[2], asked)
            print("{}", flush=True)
        else:
            print(json.dumps(answer(asked)), flush=True)


if __name__ == "__main__":
    main()
