"""Workers that are forked from a process that has analysed, embedded and searched answer as it does, and end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image

from polyface.errors import PolyfaceError
from polyface.forks import check_device
from polyface.gallery.gallery import Gallery
from polyface.gallery.types import Precomputed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

WORK = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import polyface
from polyface.data import detector
from polyface.gallery import Gallery, Precomputed
from polyface.inference import BundleEmbedder

photo, folder = sys.argv[1:]
embedder = BundleEmbedder()
vectors = np.random.default_rng(0).standard_normal((1000, 16)).astype(np.float32)
with Gallery.create(folder + "/vectors", Precomputed("n", 16, "euclidean"), "approximate") as known:
    known.enrol_embeddings(vectors, list(map(str, range(1000))))
    known.build_index()
known, friends = Gallery.open(folder + "/vectors"), Gallery.create(folder + "/friends", embedder)
friends.enrol(photo, "Grace")

def answers():
    points = polyface.analyze(photo)[0].faces[0].points["landmarks_68"]
    near = known.search_embeddings(vectors[:200], top=3)
    sure = known.search_embeddings(vectors[:200], top=3, exact=True)
    people = friends.search(photo)[0].faces[0].matches
    return points.round(2).tolist(), near[7][0].person, sure[7][0].person, people[0].person

expected = answers()
detector._opening.acquire()  # as by a thread that is not copied
child = os.fork()
if not child:
    signal.alarm(60)
    found = answers()
    assert found == expected, (found, expected)
    with ThreadPoolExecutor(2) as threads:  # as a server's worker has them
        assert list(threads.map(lambda _: answers(), range(2))) == [expected] * 2
    print("a worker answers", flush=True)
    sys.exit()  # not os._exit: whatever waits at the end must not
print(os.waitpid(child, 0)[1])
"""


def test_forked_workers_answer_and_end(tmp_path: Path) -> None:
    with get_sample_data("grace_hopper.jpg") as file:
        Image.open(file).save(tmp_path / "grace.png")
    command = [sys.executable, "-c", WORK, str(tmp_path / "grace.png"), str(tmp_path)]
    threads = {"OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "passive"}  # of one there is none to lose
    ran = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, timeout=200)
    assert (ran.returncode, ran.stdout.splitlines()) == (0, ["a worker answers", "0"]), ran.stderr[-2000:]


def forked(work: object) -> int:
    """The exit status of a child that does this."""
    child = os.fork()
    if not child:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_gallery_open_for_writing_stays_the_parents(tmp_path: Path) -> None:
    """A child can search it, and neither change it, nor unlock it, nor keep it locked."""
    one = np.eye(1, 8, dtype=np.float32)
    gallery = Gallery.create(tmp_path / "g", Precomputed("net", 8, "cosine"))
    gallery.enrol_embeddings(one, "anna")

    def searches() -> None:
        assert gallery.search_embeddings(one)[0][0].person == "anna"
        for change in (lambda: gallery.remove("anna"), lambda: gallery.enrol_embeddings(one, "bert")):
            with pytest.raises(PolyfaceError, match="by the process that this one was forked from"):
                change()
        gallery.close()
        with pytest.raises(PolyfaceError, match="another process is writing"):
            Gallery.open(tmp_path / "g", write=True)

    assert forked(searches) == 0
    with pytest.raises(PolyfaceError, match="another process is writing"):  # the child did not unlock it
        Gallery.open(tmp_path / "g", write=True)
    said, saying = os.pipe()
    lives = os.fork()
    if not lives:
        os.read(said, 1)
        os._exit(0)
    gallery.close()
    Gallery.open(tmp_path / "g", write=True).close()  # while a child of the writer lives
    os.write(saying, b".")
    assert os.waitpid(lives, 0)[1] == 0


def test_a_child_that_has_done_nothing_yet_keeps_no_gallery_locked(tmp_path: Path) -> None:
    """Between the fork and its first step it holds all of the parent's files open, as a second number of one does."""
    gallery = Gallery.create(tmp_path / "g", Precomputed("net", 8, "cosine"))
    lock = gallery._store._lock
    assert lock is not None
    held = os.dup(lock)
    gallery.close()
    Gallery.open(tmp_path / "g", write=True).close()
    os.close(held)


def test_an_accelerator_that_the_parent_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_device(torch.device("cpu"))
    check_device(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    check_device(torch.device("cpu"))
    with pytest.raises(PolyfaceError, match="spawn"):
        check_device(torch.device("cuda:0"))
