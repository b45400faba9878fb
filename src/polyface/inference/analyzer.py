"""Images in, answers out: detector → crops → one forward a model over all faces of a chunk."""

from __future__ import annotations

import copy
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyface.data.boxes import boxes_for
from polyface.data.crops import cut
from polyface.data.detector import Detector, RetinaFace
from polyface.data.table import Progress
from polyface.errors import PolyfaceError
from polyface.forks import check_device
from polyface.inference.inputs import Source, count, given_boxes, is_single, own_boxes, sources, together, usable_device
from polyface.inference.results import FaceResult, ImageResult
from polyface.models import default_models, find
from polyface.models.bundle import Bundle, load_bundle
from polyface.models.predict import TTA, answers
from polyface.networks.network import FaceNetwork
from polyface.tasks import Task

_Crops = list[tuple[np.ndarray, np.ndarray]]
"""A face as each model sees it: its cut, and the matrix from image to input."""
_OTHER_BOXES = {"landmarks": "boxes around landmarks", "image": "whole pictures of faces that are aligned already"}
"""What a model was trained on, by its boxes' source, where a detector's boxes are something else."""


@dataclass
class _Image:
    """An image whose faces wait for answers: boxes [N, 4], scores, what each model crops them by ([N, 4] or [N, 5]),
    and what was found of each face so far."""

    path: str | None
    width: int = 0
    height: int = 0
    error: str | None = None
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: list[float | None] = field(default_factory=list)
    crop_by: list[np.ndarray] = field(default_factory=list)
    found: list[dict[str, dict[str, Any]]] = field(default_factory=list)

    def ready(self) -> bool:
        return len(self.found) == len(self.boxes)

    def result(self) -> ImageResult:
        faces = (
            _face(box, score, found) for box, score, found in zip(self.boxes, self.scores, self.found, strict=True)
        )
        return ImageResult(self.path, self.width, self.height, tuple(faces), self.error)


@dataclass
class _Model:
    """A bundle at work. names: task → the name it answers under."""

    name: str
    bundle: Bundle
    network: FaceNetwork
    names: dict[str, str]


class Analyzer:
    """Finds faces and answers for each of them all questions of one or more models.

    models: bundles, their folders, or names of shipped models; all shipped ones if none is given. Each sees the face in
    its own crop: one whose boxes are of source "points" turned upright by the detector's points, or one's own box as it
    is. A task answers under its own name; where several models have a task of that name, under the label column it was
    trained on (`landmarks_5`, `landmarks_68`), or, if they share that too, under `<model>/<task>`.
    detector: finds faces where no boxes are given (`RetinaFace()` by default, loaded when first needed).
    device: where the networks run. batch: network inputs that are in memory at once. average: how many small
    translations (±`spread` crop sides) of each face are averaged; 1 is plain, 20 is TCDCN-Averaged (Zhang et al. 2014).
    mirror: whether the mirrored face is averaged in too.

    Raises:
        PolyfaceError: an unknown model, a damaged bundle, or a setting out of range.
    """

    def __init__(
        self,
        *models: Bundle | Path | str,
        detector: Detector | None = None,
        device: torch.device | str = "cpu",
        batch: int = 64,
        average: int = 1,
        spread: float = 0.03,
        mirror: bool = False,
    ) -> None:
        if batch < 1:
            raise PolyfaceError(f"batch is {batch}: give at least 1")
        self.batch, self.tta = batch, TTA(average, spread, mirror)
        self._detector, self._device = detector, usable_device(device)
        self._models = _named([self._open(model) for model in models or default_models()])
        self._told = False

    @property
    def tasks(self) -> dict[str, Task]:
        """Every question that is answered, under the name it is answered."""
        return {model.names[name]: task for model in self._models for name, task in model.bundle.tasks.items()}

    def __call__(self, images: Any, boxes: Any = None, *, progress: Progress | None = None) -> list[ImageResult]:
        """Analyse one picture or many.

        images: a path, a folder, encoded bytes, an open file, a row of a face table (its image {"bytes", "path"}), a
        PIL image, a uint8 RGB array [H, W, 3] (or grey [H, W]), a uint8 tensor [3, H, W], or an iterable of these.
        boxes: one's own instead of the detector's: for one picture float [N, 4] (x0, y0, x1, y1 in pixels as
        displayed); for several an iterable with such an array, or one box [4], or None (detect) for each, as is the
        `box` column of a FaceTable. progress: called now and then with (done, total, what).

        Returns one result a picture, in order. In a folder or an iterable, a file that cannot be read gives a result
        with `error` and the rest goes on; a single one raises.

        Raises:
            PolyfaceError: the single picture cannot be read, something is no picture, or boxes do not fit.
        """
        total, results = count(images), []
        for result in self.stream(images, boxes):
            results.append(result)
            if progress:
                progress(len(results), max(total, len(results)), "images analyzed")
        return results

    def stream(self, images: Any, boxes: Any = None) -> Iterator[ImageResult]:
        """The same, each result as soon as it is known; memory stays bounded however many pictures there are."""
        single, step = is_single(images), max(1, self.batch // len(self.tta))
        waiting: deque[_Image] = deque()
        queue: list[tuple[_Image, _Crops]] = []
        for source, own in together(sources(images), "images", boxes=given_boxes(images, boxes)):
            image, pixels = self._look(source, own, raising=single)
            waiting.append(image)
            for face in range(len(image.boxes)):
                assert pixels is not None
                queue.append((image, self._crops(pixels, [boxes[face] for boxes in image.crop_by], source.where)))
                if len(queue) == step:
                    self._answer(queue)
                    queue = []
            if len(waiting) > step:  # a long run without a face must not hold back what is known
                self._answer(queue)
                queue = []
            while waiting and waiting[0].ready():
                yield waiting.popleft().result()
        self._answer(queue)
        yield from (image.result() for image in waiting)

    # ------------------------------------------------------------------------------------------------ parts

    def _open(self, model: Bundle | Path | str) -> _Model:
        folder = None if isinstance(model, Bundle) else find(model)
        bundle = model if isinstance(model, Bundle) else load_bundle(find(model))
        # A copy: whoever gave a bundle may go on training it, or use it on another device.
        network = copy.deepcopy(bundle.network).to(self._device).eval()
        name = str(bundle.about.get("name") or (folder.name if folder else "model"))
        if not bundle.tasks:
            raise PolyfaceError(
                f"{name}: it answers no task, it embeds: use it with `polyface gallery` or BundleEmbedder"
            )
        return _Model(name, bundle, network, {task: task for task in bundle.tasks})

    def _look(self, source: Source, own: Any, raising: bool) -> tuple[_Image, np.ndarray | None]:
        boxes = own_boxes(own, source.where)
        try:
            pixels = source.pixels()
        except PolyfaceError as error:
            if raising or source.path is None:
                raise
            return _Image(source.path, error=str(error)), None
        height, width = pixels.shape[:2]
        if boxes is not None:
            crop_by = [boxes] * len(self._models)
            return _Image(source.path, width, height, None, boxes, [None] * len(boxes), crop_by), pixels
        self._detector = self._detector or RetinaFace()
        self._warn_of_other_boxes()
        found = self._detector(pixels)
        given = np.array([face.box for face in found], dtype=np.float32).reshape(-1, 4)
        crop_by = [boxes_for(found, model.bundle.boxes) for model in self._models]
        return _Image(source.path, width, height, None, given, [float(face.score) for face in found], crop_by), pixels

    def _warn_of_other_boxes(self) -> None:
        for model in self._models:
            source = model.bundle.boxes.source
            if source in _OTHER_BOXES and not self._told:
                warnings.warn(
                    f"{model.name}: trained on {_OTHER_BOXES[source]}; a detector's boxes differ, so expect less",
                    stacklevel=4,
                )
        self._told = True

    def _crops(self, pixels: np.ndarray, boxes: Sequence[np.ndarray], where: str) -> _Crops:
        specs = [model.bundle.crop for model in self._models]
        try:
            return [(cut(pixels, box, spec), spec.crops(box)[0]) for box, spec in zip(boxes, specs, strict=True)]
        except PolyfaceError as error:
            raise PolyfaceError(f"{where}: {error}") from error

    def _answer(self, queue: list[tuple[_Image, _Crops]]) -> None:
        """One forward a model over all faces that wait; what is found is kept with each face's image."""
        if not queue:
            return
        check_device(self._device)
        told: list[dict[str, dict[str, Any]]] = [{} for _ in queue]
        for number, model in enumerate(self._models):
            spec = model.bundle.crop
            cuts, crops = (
                torch.from_numpy(np.stack(parts)).to(self._device)
                for parts in zip(*(faces[number] for _, faces in queue), strict=True)
            )
            found = answers(model.network, model.bundle.tasks, cuts, crops, spec, self.tta)
            for task, answer in found.items():
                words = {"vocabulary": getattr(model.bundle.tasks[task], "vocabulary", None)}
                for face, here in enumerate(told):
                    here[model.names[task]] = words | {key: value[face] for key, value in answer.items()}
        for (image, _), here in zip(queue, told, strict=True):
            image.found.append(here)


def analyze(
    images: Any,
    boxes: Any = None,
    *,
    models: Bundle | Path | str | Iterable[Bundle | Path | str] = (),
    **options: Any,
) -> list[ImageResult]:
    """Analyse pictures with shipped models, or with `models`: `Analyzer(*models, **options)(images, boxes)`.

    The shipped models stay loaded, so that a second call is quick; for many calls with others, keep an `Analyzer`.
    """
    given = (models,) if isinstance(models, Bundle | Path | str) else tuple(models)
    make: Callable[..., Analyzer] = Analyzer if given or "detector" in options else _shipped
    return make(*given, **options)(images, boxes)


@lru_cache(maxsize=4)
def _shipped(**options: Any) -> Analyzer:
    return Analyzer(**options)


def _named(models: list[_Model]) -> list[_Model]:
    """Give every task of every model a name of its own."""
    asked = [(model, name, task) for model in models for name, task in model.bundle.tasks.items()]
    columns = [str(getattr(task, "column", None) or getattr(task.spec, "column", name)) for _, name, task in asked]
    names = [name for _, name, _ in asked]
    for (model, name, _), column in zip(asked, columns, strict=True):
        if names.count(name) > 1:
            free = columns.count(column) == 1 and column not in names
            model.names[name] = column if free else f"{model.name}/{name}"
    final = [new for model in models for new in model.names.values()]
    for name in final:
        if final.count(name) > 1:
            raise PolyfaceError(f"two models called '{name.split('/')[0]}' both answer '{name}': give each model once")
    return models


def _face(box: np.ndarray, score: float | None, found: dict[str, dict[str, Any]]) -> FaceResult:
    face = FaceResult(box, score)
    for task, answer in found.items():
        rest = dict(answer)
        vocabulary = rest.pop("vocabulary")
        if "points" in rest:
            face.points[task] = rest.pop("points")
        if "label" in rest and "probabilities" in rest:
            probabilities = rest.pop("probabilities")
            face.labels[task] = (rest.pop("label"), float(probabilities.max()))
            face.probabilities[task] = _by_word(vocabulary, probabilities)
        if "attributes" in rest and "scores" in rest:
            face.attributes[task] = tuple(rest.pop("attributes"))
            face.scores[task] = _by_word(vocabulary, rest.pop("scores"))
            rest.pop("positive", None)  # says what the names say
        if rest:
            face.other[task] = rest
    return face


def _by_word(vocabulary: Sequence[str] | None, values: np.ndarray) -> dict[str, float]:
    words = vocabulary or [str(i) for i in range(len(values))]
    return {word: float(value) for word, value in zip(words, values, strict=True)}
