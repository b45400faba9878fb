"""Images in, answers out: detector → crops → one forward a model over all faces of a chunk."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyface.data.boxes import boxes_for
from polyface.data.crops import cut
from polyface.data.detector import Detector, RetinaFace
from polyface.data.table import Progress
from polyface.errors import PolyfaceError, short
from polyface.forks import check_device
from polyface.inference.inputs import Source, count, given_boxes, is_single, own_boxes, sources, together, usable_device
from polyface.inference.results import FaceResult, ImageResult
from polyface.models import default_models, find
from polyface.models.bundle import Bundle, fingerprint, load_bundle
from polyface.models.predict import TTA, answers
from polyface.networks.network import FaceNetwork
from polyface.registry import installed
from polyface.tasks import Task

_Crops = list[tuple[np.ndarray, np.ndarray]]
"""A face as each model sees it: its cut, and the matrix from image to input."""
_OTHER_BOXES = {"landmarks": "boxes around landmarks", "image": "whole pictures of faces that are aligned already"}
"""What a model was trained on, by its boxes' source, where a detector's boxes are something else."""


_HELD_BACK = 16_000_000
"""Pixels of photos, which take seconds, after which those faces are answered that wait for a batch."""


@dataclass
class _Image:
    """An image whose faces wait for answers: boxes [N, 4], scores, and those that are answered so far."""

    path: str | None
    width: int = 0
    height: int = 0
    error: str | None = None
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: list[float | None] = field(default_factory=list)
    faces: list[FaceResult] = field(default_factory=list)

    def ready(self) -> bool:
        return self.error is not None or len(self.faces) == len(self.boxes)

    def result(self) -> ImageResult:
        faces = () if self.error else tuple(self.faces)
        return ImageResult(self.path, self.width, self.height, faces, self.error)


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
    detector: finds faces where no boxes are given; by default `RetinaFace(threshold, max_side)`, which keeps faces of
    at least that score and searches pictures at so many pixels at most.
    device: where the networks run. batch: network inputs that are in memory at once. average: how many small
    translations (±`spread` crop sides) of each face are averaged; 1 is plain, 20 is TCDCN-Averaged (Zhang et al. 2014).
    mirror: whether the mirrored face is averaged in too. top: of a task that knows people, or more than 40 words, how
    many are told, the best first; None: all.

    Raises:
        PolyfaceError: an unknown model, a damaged bundle, or a setting out of range.
    """

    def __init__(
        self,
        *models: Bundle | Path | str,
        detector: Detector | None = None,
        threshold: float = RetinaFace.threshold,
        max_side: int = RetinaFace.max_side,
        device: torch.device | str = "cpu",
        batch: int = 64,
        average: int = 1,
        spread: float = 0.03,
        mirror: bool = False,
        top: int | None = 5,
    ) -> None:
        if batch < 1:
            raise PolyfaceError(f"batch is {batch}: give at least 1")
        if top is not None and top < 1:
            raise PolyfaceError(f"top is {top}: give at least 1, or None for all")
        self.batch, self.tta, self.top = batch, TTA(average, spread, mirror), top
        self._detector, self._device = detector or RetinaFace(threshold, max_side), usable_device(device)
        self._models = _named([self._open(model) for model in models or default_models()])
        self._told = False

    @property
    def tasks(self) -> dict[str, Task]:
        """Every question that is answered, under the name it is answered."""
        return {model.names[name]: task for model in self._models for name, task in model.bundle.tasks.items()}

    @property
    def id(self) -> str:
        """Names everything that answers depend on: Polyface's version, models, detector and settings."""
        told: list[Any] = [self._detector.id, *astuple(self.tta), self.top]
        for model in self._models:
            tasks = {model.names[name]: task.config() for name, task in model.bundle.tasks.items()}
            crop, boxes = model.bundle.crop.model_dump(), model.bundle.boxes.model_dump()
            told.append(fingerprint(model.network, tasks=tasks, crop=crop, boxes=boxes))
        return f"polyface {installed()} {hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]}"

    def __call__(
        self, images: Any, boxes: Any = None, *, channels: str = "rgb", progress: Progress | None = None
    ) -> list[ImageResult]:
        """Analyse one picture or many.

        images: a path, a folder, encoded bytes, an open file, a row of a face table (its image {"bytes", "path"}), a
        PIL image, a uint8 array [H, W, 3] (or grey [H, W]), a uint8 tensor [3, H, W], or an iterable of these.
        boxes: one's own instead of the detector's: for one picture float [N, 4] (x0, y0, x1, y1 in pixels as
        displayed); for several an iterable with such an array, or one box [4], or None (detect) for each, as is the
        `box` column of a FaceTable. channels: the order of colours in arrays and tensors, "rgb" or, as OpenCV has it,
        "bgr"; files and PIL images know theirs. progress: called now and then with (done, total, what).

        Returns one result a picture, in order. In a folder or an iterable, a file that cannot be read or analyzed gives
        a result with `error` and the rest goes on; a single one raises.

        Raises:
            PolyfaceError: the single picture cannot be read, something is no picture, or boxes do not fit.
        """
        total, results = count(images), []
        for result in self.stream(images, boxes, channels=channels):
            results.append(result)
            if progress:
                progress(len(results), max(total, len(results)), "images analyzed")
        return results

    def stream(self, images: Any, boxes: Any = None, *, channels: str = "rgb") -> Iterator[ImageResult]:
        """The same, each result as soon as it is known; memory stays bounded however many pictures there are."""
        single, step, pixels = is_single(images), max(1, self.batch // len(self.tta)), 0
        waiting: deque[_Image] = deque()
        queue: list[tuple[_Image, _Crops]] = []
        for source, own in together(sources(images, channels), "images", boxes=given_boxes(images, boxes)):
            image = _Image(source.path)
            waiting.append(image)
            for crops in self._cuts(image, source, own, raising=single or source.path is None or own is not None):
                queue.append((image, crops))
                if len(queue) == step:
                    self._answer(queue)
                    queue = []
            pixels += image.width * image.height
            if len(waiting) > step or pixels > _HELD_BACK:  # what is known must not wait for faces that are rare
                self._answer(queue)
                queue, pixels = [], 0
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

    def _cuts(self, image: _Image, source: Source, own: Any, raising: bool) -> Iterator[_Crops]:
        """Every face of a picture as the models see it, one at a time; what goes wrong is the picture's `error`."""
        boxes = own_boxes(own, source.where)
        if boxes is None:
            self._warn_of_other_boxes()
        try:
            pixels = source.pixels()
            image.height, image.width = pixels.shape[:2]
            if boxes is not None:
                image.boxes, image.scores, crop_by = boxes, [None] * len(boxes), [boxes] * len(self._models)
            else:
                found = self._detector(pixels)
                image.boxes = np.array([face.box for face in found], dtype=np.float32).reshape(-1, 4)
                image.scores = [float(face.score) for face in found]
                crop_by = [boxes_for(found, model.bundle.boxes) for model in self._models]
            for each in zip(*crop_by, strict=True):
                yield self._crops(pixels, each, source.where)
        except Exception as error:  # whatever it is: a picture that takes all memory must not end a folder of others
            if raising:
                raise
            if not isinstance(error, PolyfaceError):
                error = PolyfaceError(f"{source.where}: cannot be analyzed ({short(error)})")
            image.error = str(error)

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
        told: list[dict[str, tuple[Task, dict[str, Any]]]] = [{} for _ in queue]
        for number, model in enumerate(self._models):
            spec = model.bundle.crop
            cuts, crops = (
                torch.from_numpy(np.stack(parts)).to(self._device)
                for parts in zip(*(faces[number] for _, faces in queue), strict=True)
            )
            try:
                found = answers(model.network, model.bundle.tasks, cuts, crops, spec, self.tta)
            except (RuntimeError, MemoryError) as error:  # of a device's memory, which concerns no picture alone
                raise PolyfaceError(
                    f"{model.name}: failed on {len(queue)} faces at once ({short(error)}); give a smaller batch"
                ) from error
            for name, task in model.bundle.tasks.items():
                for face, here in enumerate(told):
                    here[model.names[name]] = task, {key: value[face] for key, value in found[name].items()}
        for (image, _), here in zip(queue, told, strict=True):
            face = len(image.faces)
            image.faces.append(_face(image.boxes[face], image.scores[face], here, self.top))


def analyze(
    images: Any,
    boxes: Any = None,
    *,
    models: Bundle | Path | str | Iterable[Bundle | Path | str] = (),
    channels: str = "rgb",
    **options: Any,
) -> list[ImageResult]:
    """Analyse pictures with shipped models, or with `models`: `Analyzer(*models, **options)` called with the rest.

    The shipped models stay loaded, so that a second call is quick; for many calls with others, keep an `Analyzer`.
    """
    given = (models,) if isinstance(models, Bundle | Path | str) else tuple(models)
    make: Callable[..., Analyzer] = Analyzer if given or "detector" in options else _shipped
    return make(*given, **options)(images, boxes, channels=channels)


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


def _face(
    box: np.ndarray, score: float | None, found: dict[str, tuple[Task, dict[str, Any]]], top: int | None
) -> FaceResult:
    face = FaceResult(box, score)
    for name, (task, rest) in found.items():
        if "points" in rest:
            face.points[name] = rest.pop("points")
        if "label" in rest and "probabilities" in rest:
            probabilities = rest.pop("probabilities")
            face.labels[name] = (rest.pop("label"), float(probabilities.max()))
            face.probabilities[name] = _by_word(face, name, task, probabilities, top)
        if "attributes" in rest and "scores" in rest:
            face.attributes[name] = tuple(rest.pop("attributes"))
            face.scores[name] = _by_word(face, name, task, rest.pop("scores"), top)
            rest.pop("positive", None)  # says what the names say
        if rest:
            face.other[name] = rest
    return face


_FEW = 40
"""Words of a task that are all told of every face, if they name no people."""


def _by_word(face: FaceResult, name: str, task: Task, values: np.ndarray, top: int | None) -> dict[str, float]:
    """A number for each word of a task, or for the best of many (`FaceResult.best_of`)."""
    words = getattr(task, "vocabulary", None) or [str(i) for i in range(len(values))]
    if task.people is None and len(words) <= _FEW:
        return {word: float(value) for word, value in zip(words, values, strict=True)}
    face.best_of[name] = len(words)
    return {words[i]: float(values[i]) for i in np.argsort(-values, kind="stable")[:top]}
