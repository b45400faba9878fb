"""Photos in, heat maps out: why a model answers as it does about the faces that are found."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from polyface.data.boxes import BoxSpec, boxes_for
from polyface.data.crops import cut, sample
from polyface.data.detector import Detector, RetinaFace
from polyface.data.table import Progress
from polyface.errors import PolyfaceError, check_names, short
from polyface.explain.maps import METHODS
from polyface.explain.questions import question
from polyface.explain.sanity import DRAWS, randomised
from polyface.inference.inputs import given_boxes, is_single, own_boxes, sources, together, usable_device
from polyface.metrics.resampling import Floats
from polyface.models import find
from polyface.models.bundle import Bundle, load_bundle


@dataclass(frozen=True)
class FoundCrop:
    """A face of a photo as a model sees it. box: float32 [4] in pixels of the photo. crop: the matrix [2, 3] from the
    photo to the input. inputs: float32 [C, S, S] in 0…255."""

    box: NDArray[np.float32]
    crop: NDArray[np.float32]
    inputs: Tensor

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The input as a picture, uint8 [S, S, 3]."""
        shown = self.inputs.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        return np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3)))


@dataclass(frozen=True)
class ExplainedFace:
    """maps: {(what is explained, such as "glasses: yes"; method): float32 [S, S], 0 or more, over the crop}."""

    face: FoundCrop
    maps: Mapping[tuple[str, str], NDArray[np.float32]]

    def in_photo(self, heat: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
        """A map over the crop in the pixels of its photo, [height, width]; 0 outside the crop."""
        (a, b, x), (c, d, y) = (tuple(map(float, row)) for row in self.face.crop)
        # Pillow counts from the edges of pixels, the matrix from their centres
        back = (a, b, x + 0.5 - (a + b) / 2, c, d, y + 0.5 - (c + d) / 2)
        moved = Image.fromarray(heat).transform(
            (width, height), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR
        )
        return np.asarray(moved, dtype=np.float32)


@dataclass(frozen=True)
class ExplainedPhoto:
    """path: its file, None for a picture from memory. pixels: uint8 [H, W, 3]. error: why there is nothing else."""

    path: str | None
    pixels: NDArray[np.uint8]
    faces: tuple[ExplainedFace, ...] = ()
    error: str | None = None


class Explainer:
    """Explains one model's answers about the faces of photos.

    model: a bundle, its folder, or a shipped model's name. detector: finds faces where no boxes are given; by default
    `RetinaFace(threshold, max_side)`, as in the `Analyzer`, whose crops these are. device: where the network runs.

    Raises:
        PolyfaceError: an unknown model, a damaged bundle, or a device that is not there.
    """

    def __init__(
        self,
        model: Bundle | Path | str,
        *,
        detector: Detector | None = None,
        threshold: float = RetinaFace.threshold,
        max_side: int = RetinaFace.max_side,
        device: torch.device | str = "cpu",
    ) -> None:
        self.bundle = model if isinstance(model, Bundle) else load_bundle(find(model))
        self._device, self._detector = usable_device(device), detector or RetinaFace(threshold, max_side)
        # A copy: whoever gave a bundle may go on training it, or use it on another device.
        self.network = copy.deepcopy(self.bundle.network).to(self._device).eval()

    @property
    def questions(self) -> list[str]:
        """What can be asked for: tasks, and embeddings, by which two faces are compared."""
        return [*self.bundle.tasks, *self.network.own_embeddings]

    def __call__(
        self,
        images: Any,
        boxes: Any = None,
        *,
        tasks: Sequence[str] = (),
        methods: Sequence[str] = ("cam",),
        layer: str = "",
        like: Any = None,
    ) -> Iterator[ExplainedPhoto]:
        """Explain the faces of photos, one result a photo, in order and as soon as it is known.

        images, boxes: as the `Analyzer` takes them. tasks: as `explain.questions.question` reads them ("glasses",
        "glasses=yes", "landmarks=30.x"); by default all tasks. methods: of `explain.maps.METHODS`. layer: of Grad-CAM,
        see `explain.layers.map_named`. like: another photo of one face: a task that has an embedding is asked how
        similar the two are, and by default no other is asked. In a folder or an iterable, a file that cannot be read
        gives a result with `error`.

        Raises:
            PolyfaceError: an unknown task, method or layer, another photo where nothing asked compares faces, or the
                single photo cannot be read.
        """
        asked, other = self._asked(tasks, methods, layer, like)
        single = is_single(images)
        for source, own in together(sources(images), "images", boxes=given_boxes(images, boxes)):
            try:
                pixels = source.pixels()
                found = self.crops(pixels, own, source.where)
                faces = tuple(self._explained(face, asked, methods, layer, other) for face in found)
                yield ExplainedPhoto(source.path, pixels, faces)
            except PolyfaceError as error:
                if single or source.path is None:
                    raise
                yield ExplainedPhoto(source.path, np.zeros((1, 1, 3), np.uint8), (), str(error))

    def checked(
        self,
        images: Any,
        *,
        tasks: Sequence[str] = (),
        methods: Sequence[str] = tuple(METHODS),
        layer: str = "",
        like: Any = None,
        draws: int = DRAWS,
        progress: Progress | None = None,
    ) -> dict[tuple[str, str], Floats]:
        """The randomisation check (`explain.sanity.randomised`) over all faces of photos: {(task, method): rank
        correlations [shares of the layers, faces]}.

        Raises:
            PolyfaceError: as when it is called; or no face is found.
        """
        asked, other = self._asked(tasks, methods, layer, like)
        faces = [face.inputs for source in sources(images) for face in self.crops(source.pixels(), None, source.where)]
        if not faces:
            raise PolyfaceError("no face was found in the photos: give photos of faces")
        inputs, known = torch.stack(faces).to(self._device), self._embeddings(other)
        found, todo = {}, [(each, method) for each in asked for method in methods]
        for done, (each, method) in enumerate(todo, 1):
            one = question(self.network, self.bundle.tasks, each, known)
            found[one.named, method] = randomised(self.network, inputs, one, method, layer, draws)
            if progress:
                progress(done, len(todo), "methods checked")
        return found

    def _asked(
        self, tasks: Sequence[str], methods: Sequence[str], layer: str, like: Any
    ) -> tuple[list[str], Tensor | None]:
        """The questions, and the face of the other photo; what cannot be asked is refused before the first photo is
        read."""
        check_names(methods, METHODS, "methods")
        asked = list(tasks) or list(self.bundle.tasks) or self.questions
        if like is not None:
            network = self.network
            compare = [name for name in self.questions if name not in network.heads or network.embedding_of(name)]
            if not compare:
                raise PolyfaceError(
                    "the model has no embedding to compare faces by: leave the other photo (--like) out"
                )
            if tasks and not set(tasks) & set(compare):
                raise PolyfaceError(f"none of {', '.join(tasks)} compares faces: leave --like out, or ask {compare[0]}")
            asked = list(tasks) or compare
        other = None if like is None else self._only(like)
        spec = self.bundle.crop
        black = torch.zeros(spec.channels, spec.size, spec.size)
        nothing = FoundCrop(np.zeros(4, np.float32), np.zeros((2, 3), np.float32), black)
        quick = [method for method in methods if method != "occlusion"]
        self._explained(nothing, asked, quick, layer, other)
        return asked, other

    def _embeddings(self, other: Tensor | None) -> dict[str, Tensor] | None:
        with torch.no_grad():
            return None if other is None else self.network(other).embeddings

    def crops(self, pixels: NDArray[np.uint8], own: Any = None, where: str = "image") -> list[FoundCrop]:
        """The faces of a photo, uint8 [H, W, 3], as the model sees them: those in its own boxes, or all that are found.
        where: what errors call it."""
        spec = self.bundle.crop
        if (given := own_boxes(own, where)) is not None:
            boxes = by = given
        else:
            found = self._detector(pixels)
            boxes, by = boxes_for(found, BoxSpec()), boxes_for(found, self.bundle.boxes)
        to_input = torch.from_numpy(spec.cut_to_input())[None]
        try:
            cuts = [torch.from_numpy(cut(pixels, each, spec))[None] for each in by]
        except PolyfaceError as error:
            raise PolyfaceError(f"{where}: {error}") from error
        inputs = [sample(one, to_input, spec.size)[0] for one in cuts]
        matrices = spec.crops(by) if len(by) else by
        return [FoundCrop(*each) for each in zip(boxes, matrices, inputs, strict=True)]

    def _only(self, photo: Any) -> Tensor:
        """The one face of a photo, as the network sees it."""
        source = next(sources(photo))
        if len(found := self.crops(source.pixels(), None, source.where)) != 1:
            raise PolyfaceError(f"{source.where}: shows {len(found)} faces; give a photo of one, to compare with")
        return found[0].inputs[None].to(self._device)

    def _explained(
        self, face: FoundCrop, asked: Sequence[str], methods: Sequence[str], layer: str, other: Tensor | None
    ) -> ExplainedFace:
        images, maps = face.inputs[None].to(self._device), {}
        like = self._embeddings(other)
        with torch.no_grad():
            said = self.network(images)
        for each in asked:
            one = question(self.network, self.bundle.tasks, each, like)
            numbers = one.numbers(said)
            told = one.told(int(one.places(numbers)[0]))
            for method in methods:
                try:
                    heat = METHODS[method](self.network, images, one, layer)[0]
                except RuntimeError as error:  # of a device's memory
                    raise PolyfaceError(f"{method} of {told} failed ({short(error)})") from error
                maps[told, method] = heat.float().cpu().numpy()
        return ExplainedFace(face, maps)
