"""After any sequence of changes a gallery answers as a plain list of faces would."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from polyface.gallery import index as neighbours
from polyface.gallery.gallery import Gallery
from polyface.gallery.types import Precomputed

DIM = 8
PEOPLE = st.sampled_from([f"p{number}" for number in range(6)])


class States(RuleBasedStateMachine):
    """`known` is the oracle: id → person and embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.gallery = Gallery.create(self.folder / "g", Precomputed("net", DIM, "euclidean"), "approximate")
        self.known: dict[int, tuple[str, np.ndarray]] = {}
        self.next = 0

    def teardown(self) -> None:
        self.gallery.close()
        shutil.rmtree(self.folder)

    def pick(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.known)))

    def person(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted({name for name, _ in self.known.values()})))

    @initialize()
    def many(self) -> None:
        for number in range(6):
            self.add(f"p{number}", 9)
        self.build()

    @rule(name=PEOPLE, count=st.integers(1, 3))
    def add(self, name: str, count: int) -> None:
        vectors = np.random.default_rng(self.next).standard_normal((count, DIM)).astype(np.float32)
        assert self.gallery.enrol_embeddings(vectors, name).faces == count
        for vector in vectors:
            self.known[self.next] = name, vector
            self.next += 1

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name, picture = self.person(data), self.pick(data)
        gone = {picture} | {id for id, (person, _) in self.known.items() if person == name}
        assert self.gallery.remove(name, pictures=[picture]) == len(gone)
        self.known = {id: face for id, face in self.known.items() if id not in gone}

    @precondition(lambda self: self.known)
    @rule(data=st.data(), name=PEOPLE)
    def move(self, data: st.DataObject, name: str) -> None:
        picture = self.pick(data)
        self.gallery.move(picture, person=name)
        self.known[picture] = name, self.known[picture][1]

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        name, into = self.person(data), self.person(data)
        self.gallery.merge(name, into=into)
        self.known = {id: (into if person == name else person, v) for id, (person, v) in self.known.items()}

    @rule()
    def build(self) -> None:
        self.gallery.build_index()

    @rule()
    def compact(self) -> None:
        self.gallery.compact()

    @rule()
    def reopen(self) -> None:
        self.gallery.close()
        self.gallery = Gallery.open(self.folder / "g", write=True)

    @invariant()
    def answers_as_the_list(self) -> None:
        people = [name for name, _ in self.known.values()]
        assert self.gallery.people() == {name: people.count(name) for name in sorted(set(people))}
        assert [(p.id, p.person) for p in self.gallery.pictures()] == list(zip(self.known, people, strict=True))
        if self.known:
            vectors = np.stack([vector for _, vector in self.known.values()])
            for exact in (False, True):
                images, nearest = (
                    self.gallery.search_embeddings(vectors, top=2, by=by, exact=exact) for by in ("image", "person")
                )
                for row in range(len(vectors)):
                    order = np.argsort(np.square(vectors - vectors[row]).sum(1), kind="stable")
                    names = [people[place] for place in order]
                    assert [match.person for match in images[row]] == names[:2]
                    assert [match.person for match in nearest[row]] == list(dict.fromkeys(names))[:2]
        assert self.gallery.notes() == []


def test_any_sequence_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")

    def everything(finder: neighbours.Neighbours, index: object, *_: object) -> tuple[float, int]:
        ivf = finder._ivf(index)
        ivf.nprobe = ivf.nlist  # how much the index finds is no matter here, but what it holds
        return 1.0, 1000

    monkeypatch.setattr(neighbours.Neighbours, "_tuned", everything)
    monkeypatch.setattr(neighbours, "LEAST", 32)
    States.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
    States.TestCase("runTest").runTest()
