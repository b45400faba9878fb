"""A model bundle as what a gallery embeds with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from polyface.data.boxes import BoxSpec, boxes_for
from polyface.data.crops import cut, sample
from polyface.data.detector import Detector, RetinaFace
from polyface.errors import PolyfaceError
from polyface.forks import check_device
from polyface.inference.embeddings import FoundFace
from polyface.inference.inputs import sources, usable_device
from polyface.models import EMBEDDER, find
from polyface.models.bundle import Bundle, fingerprint, load_bundle
from polyface.networks.folding import chosen_embedding, embedding_only, folded, in_bfloat16


class BundleEmbedder:
    """A model bundle as an embedder.

    model: a bundle, its folder, or a shipped model's name (by default the shipped embedder's). branch: which embedding
    of the network is taken; by default its only one, or of several that called "verification", which is trained on
    photos and caricatures alike. detector: finds faces where no boxes are given; by default
    `RetinaFace(threshold, max_side)`. batch: faces a forward pass takes. precision: of the convolutions; "bfloat16" is
    several times as quick where the processor multiplies in it, and slower elsewhere. Its embeddings are close enough
    to be compared with those in float32: the id is the same.

    Raises:
        PolyfaceError: an unknown model or branch, a network without an embedding, another precision, or a device that
            is not there.
    """

    def __init__(
        self,
        model: Bundle | Path | str = EMBEDDER,
        *,
        branch: str | None = None,
        detector: Detector | None = None,
        threshold: float = RetinaFace.threshold,
        max_side: int = RetinaFace.max_side,
        device: torch.device | str = "cpu",
        batch: int = 64,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        if precision not in ("float32", "bfloat16"):
            raise PolyfaceError(f"precision is '{precision}', expected float32 or bfloat16")
        bundle = model if isinstance(model, Bundle) else load_bundle(find(model))
        name = str(bundle.about.get("name") or "model")
        chosen = chosen_embedding(bundle.network, branch, name)
        embedding = bundle.network.embeddings[chosen]
        self.branch, self.dim, self.similarity, self.precision = chosen, embedding.dim, embedding.similarity, precision
        self.crop, self.boxes, self.batch = bundle.crop, bundle.boxes, batch
        self._detector = detector or RetinaFace(threshold, max_side)
        told = {"crop": bundle.crop.model_dump(), "boxes": bundle.boxes.model_dump(), "branch": chosen}
        self.id = f"{name}-{chosen}-{fingerprint(bundle.network, **told)}"
        # A copy: whoever gave a bundle may go on training it, or use it on another device.
        self._device = usable_device(device)
        lean = folded(embedding_only(bundle.network, chosen))
        self._network = (in_bfloat16(lean) if precision == "bfloat16" else lean).to(self._device)

    def embed(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes: Sequence[NDArray[np.float32] | None] | None = None,
        *,
        channels: str = "rgb",
    ) -> list[list[FoundFace]]:
        """The faces of every picture, best first where they are found by the detector.

        images: uint8 [H, W, 3]. boxes: of each, its own [n, 4] or None (detect). channels: the order of colours in
        them, "rgb" or, as OpenCV has it, "bgr".
        """
        images = [source.pixels() for source in sources(images, channels)]
        given = boxes or [None] * len(images)
        found = [self._faces(image, own) for image, own in zip(images, given, strict=True)]
        embeddings = iter(self._forward(self._cuts(images, found)))
        return [[FoundFace(next(embeddings), box) for box in places] for places, _ in found]

    def inputs(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """What the network sees of the faces of these pictures: [faces, C, S, S], pixel values 0…255."""
        seen = [*self._inputs(self._cuts(images, [self._faces(image, None) for image in images]))]
        empty = torch.empty(0, self.crop.channels, self.crop.size, self.crop.size)
        return torch.cat([empty, *(some.cpu() for some in seen)]).numpy()

    def _cuts(self, images: Sequence[NDArray[np.uint8]], found: Sequence[tuple[Any, Any]]) -> list[NDArray[np.uint8]]:
        return [cut(image, by, self.crop) for image, (_, squares) in zip(images, found, strict=True) for by in squares]

    def _faces(self, image: NDArray[np.uint8], own: NDArray[np.float32] | None) -> tuple[Any, Any]:
        """Boxes [n, 4] of a picture's faces, and what they are cropped by ([n, 4] or [n, 5])."""
        if own is not None:
            return own, own
        found = self._detector(image)
        return boxes_for(found, BoxSpec()), boxes_for(found, self.boxes)

    @torch.inference_mode()
    def _forward(self, cuts: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        check_device(self._device)
        rows: list[NDArray[np.float32]] = []
        for inputs in self._inputs(cuts):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                embeddings = self._network(inputs).embeddings[self.branch]
            rows.extend(embeddings.float().cpu().numpy())
        return rows

    def _inputs(self, cuts: Sequence[NDArray[np.uint8]]) -> Iterator[torch.Tensor]:
        """What the network sees of the faces, [B, C, S, S], a batch at a time."""
        to_input = torch.from_numpy(self.crop.cut_to_input()).to(self._device)
        for start in range(0, len(cuts), self.batch):
            faces = torch.from_numpy(np.stack(cuts[start : start + self.batch])).to(self._device)
            yield sample(faces, to_input.repeat(len(faces), 1, 1), self.crop.size)
