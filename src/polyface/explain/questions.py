"""What an explanation is of: one number of what a network says of a face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from polyface.errors import PolyfaceError, check_names
from polyface.networks.graph import AnyNode
from polyface.networks.network import FaceNetwork, FaceOutput
from polyface.tasks import Task

SIMILARITY = "similarity"


@dataclass(frozen=True)
class Question:
    """numbers: what a network says of B faces → [B, K], before any softmax; names: of these K. node: the head or
    embedding they come from. place: the one that is asked for, of all faces or of each (int64 [B]); None: the largest
    of each face, which is what is answered.
    """

    task: str
    names: Sequence[str]
    numbers: Callable[[FaceOutput], Tensor]
    node: AnyNode
    place: int | Tensor | None = None

    def places(self, numbers: Tensor) -> Tensor:
        """Which of the numbers [B, K] is meant for each face, int64 [B]."""
        if self.place is None:
            return numbers.argmax(1)
        return torch.as_tensor(self.place, device=numbers.device).expand(len(numbers))

    def settled(self, numbers: Tensor) -> Question:
        """The same question whatever another network answers: of these faces, of which this one says the numbers."""
        return replace(self, place=self.places(numbers))

    @property
    def named(self) -> str:
        """The question in a word: "glasses", or "glasses: yes" where a number was named."""
        return self.told(self.place) if isinstance(self.place, int) and len(self.names) > 1 else self.task

    def told(self, place: int) -> str:
        """The number of a place as a caption: "glasses: yes"."""
        return f"{self.task}: {self.names[place]}"


def question(
    network: FaceNetwork, tasks: Mapping[str, Task], asked: str, like: Mapping[str, Tensor] | None = None
) -> Question:
    """What is asked by a task's name, or by the task and one of its numbers: "glasses", "glasses=yes",
    "landmarks=30.x" (a point's coordinate), "attributes=Smiling", "identity=Ann".

    Without a number the largest is explained: the class, person or attribute that is answered (of landmarks the
    coordinate that is farthest to the right or down: name one). like: the embeddings [1, E] of another face, by name;
    then a task that has one, or an embedding's own name, is asked how similar the two faces are.

    Raises:
        PolyfaceError: an unknown task or number, or an embedding and no other face.
    """
    name, equals, part = asked.partition("=")
    embedding = network.embedding_of(name) if name in network.heads else name
    if embedding in network.embeddings and like is not None and not equals:
        return _similarity(network, name, embedding, like[embedding])
    if name not in tasks and name in network.embeddings:
        raise PolyfaceError(f"'{name}' is an embedding, which two faces are compared by: give another photo (--like)")
    check_names([name], [*tasks, *network.own_embeddings], "task")
    task = tasks[name]
    if equals:
        check_names([part], task.score_names, f"task {name}")
    place = task.score_names.index(part) if equals else 0 if len(task.score_names) == 1 else None
    return Question(
        name, task.score_names, lambda said: task.scores(said.outputs[name]), network.graph.heads[name], place
    )


def _similarity(network: FaceNetwork, name: str, embedding: str, like: Tensor) -> Question:
    """The cosine or product of two faces' embeddings; of a Euclidean one minus half their squared distance."""
    apart, other = network.embeddings[embedding].similarity == "euclidean", like.detach()

    def numbers(said: FaceOutput) -> Tensor:
        own = said.embeddings[embedding]
        return -(own - other).square().sum(1, keepdim=True) / 2 if apart else own @ other.T

    return Question(name, [SIMILARITY], numbers, network.graph.embeddings[embedding], 0)
