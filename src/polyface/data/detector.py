"""Face detection: boxes and five points, for images that come without them.

The detector is RetinaFace (Deng et al., CVPR 2020) on MobileNet-0.25, trained on WIDER FACE; its weights come with
Polyface (1.7 MB, MIT licence: ``weights/detector/NOTICE.md``). Any object with an ``id`` and a ``__call__`` as in
:class:`Detector` takes its place.

Coordinates: pixel centres at integers, 0-based, as everywhere in Polyface.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polyface.errors import PolyfaceError
from polyface.forks import after_fork, forked, keep_for_ever

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Detection", "Detector", "RetinaFace", "face_of"]

Float = NDArray[np.float32]

_WEIGHTS = "weights/detector/retinaface.onnx"
_SHA256 = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"
_STRIDES = (8, 16, 32)
_SIZES = ((16.0, 32.0), (64.0, 128.0), (256.0, 512.0))  # anchor sides in pixels, two a stride
_VARIANCE = (0.1, 0.2)
_MEAN_BGR = np.array([104, 117, 127], np.float32)
_MAX_CANDIDATES = 10_000  # of a tile, before suppression, which is quadratic

_FIRST = 640  # longest side, in pixels, of what is searched first: the whole picture
_SURE = 32  # a face of so many pixels is found (of faces of LFW and 300-W 96 to 98 %; of 24 pixels 80 to 90, of 16 few)
_STEP = 8  # how much larger the next scale is at most
_CORE, _MARGIN = 1024, _SURE * _STEP // 2  # a tile's side, and how much further it sees on each side, in pixels


@dataclass(frozen=True, eq=False)
class Detection:
    """One face in an image.

    Attributes:
        box: float32 ``[4]``, x1, y1, x2, y2 in pixels (centres at integers); it may reach outside the image.
        score: 0…1.
        points: float32 ``[5, 2]``, x and y of left eye, right eye, nose, left and right mouth corner, where left is the
            viewer's left (the order of MTFL).
    """

    box: Float
    score: float
    points: Float


@runtime_checkable
class Detector(Protocol):
    """Anything that finds faces.

    ``id`` names the detector and every setting its answer depends on: it is part of the key of cached boxes.
    """

    id: str

    def __call__(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Faces in ``image`` (uint8 RGB ``[H, W, 3]``), best score first; an empty list where there is none."""
        ...


@dataclass(eq=False)
class RetinaFace:
    """RetinaFace-MobileNet0.25 run by onnxruntime on the CPU.

    A picture is searched whole, at 640 pixels at most. A larger one is searched again at its own size for the faces
    that are too small at the first: in tiles, so that memory is bounded, which see enough of their neighbours that
    every such face lies whole in one of them. One whose longer side exceeds ``max_side`` is shrunk to it before. One
    whose longer side is below ``min_side`` is enlarged to it: a face that fills a thumbnail is otherwise missed (of
    48-pixel FER+ faces 53 % are found at their own size, 99 % at 160; of 116-pixel caricatures 94 % and 98 %). Boxes
    and points are always in pixels of the image given, and are not rounded.

    Args:
        threshold: lowest score kept, 0…1.
        max_side: longest side, in pixels, at which an image is searched. By default nearly every face from 24 pixels on
            is found in a photo of 12 megapixels. That takes some 20 times as long as with 640, which is enough where
            faces fill a twentieth of their picture or more.
        min_side: longest side, in pixels, below which an image is enlarged; ``max_side`` caps it.
        overlap: of two boxes whose intersection over union exceeds this, the one of lower score is dropped.
        threads: of onnxruntime, for one image; None leaves the choice to onnxruntime (in a forked process: 1). Use 1
            where several processes or threads detect side by side.

    Raises:
        PolyfaceError: the weights are not those of the installation, or a setting is out of range.
    """

    threshold: float = 0.5
    max_side: int = 4096
    _: KW_ONLY
    min_side: int = 160
    overlap: float = 0.4
    threads: int | None = None
    id: str = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise PolyfaceError(f"detector threshold is {self.threshold}: give a score between 0 and 1, such as 0.5")
        if not 0 < self.overlap <= 1:
            raise PolyfaceError(
                f"detector overlap is {self.overlap}: give an intersection over union in (0, 1], such as 0.4"
            )
        if self.max_side < 32 or self.min_side < 0:
            raise PolyfaceError(
                f"detector sides are min_side {self.min_side}, max_side {self.max_side}: give max_side >= 32 and "
                "min_side >= 0"
            )
        if self.threads is not None and self.threads < 1:
            raise PolyfaceError(f"detector threads is {self.threads}: give 1 or more, or None")
        self.min_side = min(self.min_side, self.max_side)
        sides = "-".join(map(str, [self.min_side, *self._sides(self.max_side)]))
        self.id = f"retinaface-{_SHA256[:12]}-t{self.threshold:g}-s{sides}-o{self.overlap:g}"

    def __call__(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Faces in ``image``, uint8 RGB ``[H, W, 3]``, best score first.

        Raises:
            PolyfaceError: the array is not uint8 ``[H, W, 3]`` with at least one pixel.
        """
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise PolyfaceError(
                f"detector: expected a uint8 RGB image of shape [H, W, 3], found {image.dtype} {list(image.shape)}"
            )
        longest = max(image.shape[:2])
        first, *finer = self._sides(longest)
        found, zoom = self._search(image, first), first / longest
        for side in finer:
            found, zoom = _with(found, zoom, self._search(image, side), side / longest, self.overlap), side / longest
        order = np.argsort(-found.scores, kind="stable")
        return [Detection(found.boxes[i], float(found.scores[i]), found.points[i]) for i in order]

    def _sides(self, longest: int) -> list[int]:
        """The longer sides at which a picture is searched."""
        last = min(max(longest, self.min_side), self.max_side)
        sides = [min(last, _FIRST)]
        while sides[-1] < last:
            sides.append(min(last, sides[-1] * _STEP))
        return sides

    def _search(self, image: NDArray[np.uint8], side: int) -> _Faces:
        """Faces at one scale, in pixels of the image, best score first."""
        height, width = image.shape[:2]
        shown = _resized(image, side)
        down, across = (_cores(length) for length in shown.shape[:2])
        tiles = [self._tile(shown, rows, columns) for rows in down for columns in across]
        boxes, scores, points = (np.concatenate(parts) for parts in zip(*tiles, strict=True))
        best = np.argsort(-scores, kind="stable")
        best = best[_suppress(boxes[best], self.overlap)]
        scale = np.array([width / shown.shape[1], height / shown.shape[0]], np.float32)
        # The network counts from the corner of the first pixel; Polyface counts from its centre.
        return _Faces(boxes[best] * np.tile(scale, 2) - 0.5, scores[best], points[best] * scale - 0.5)

    def _tile(self, shown: NDArray[np.uint8], rows: _Core, columns: _Core) -> tuple[Float, Float, Float]:
        """Boxes ``[n, 4]``, scores ``[n]`` descending and points ``[n, 5, 2]`` of the faces whose centres lie in a part
        of a picture, in its pixels, corner-based."""
        boxes, scores, points = self._candidates(shown[rows.seen, columns.seen])
        keep = _suppress(boxes, self.overlap)
        corner = np.array([columns.seen.start, rows.seen.start], np.float32)
        boxes, scores, points = boxes[keep] + np.tile(corner, 2), scores[keep], points[keep] + corner
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        own = columns.holds(centres[:, 0]) & rows.holds(centres[:, 1])
        return boxes[own], scores[own], points[own]

    def _candidates(self, image: NDArray[np.uint8]) -> tuple[Float, Float, Float]:
        """Boxes ``[n, 4]``, scores ``[n]`` descending and points ``[n, 5, 2]`` above the threshold, corner-based."""
        height, width = image.shape[:2]
        padded = (-(-height // 32) * 32, -(-width // 32) * 32)
        pixels = np.zeros((1, 3, *padded), np.float32)  # 0 is the mean colour
        pixels[0, :, :height, :width] = (image[..., ::-1] - _MEAN_BGR).transpose(2, 0, 1)
        loc, conf, marks = self._session().run(["loc", "conf", "landmarks"], {"input": pixels})
        scores = conf[0, :, 1]
        best = np.flatnonzero(scores >= self.threshold)
        best = best[np.argsort(-scores[best], kind="stable")][:_MAX_CANDIDATES]
        boxes, points = _decode(loc[0][best], marks[0][best], _anchors(*padded)[best])
        return boxes, scores[best], points

    def _session(self) -> onnxruntime.InferenceSession:
        threads = self.threads or int(forked())  # 0 leaves it to onnxruntime
        with _opening:  # else threads that begin together would each open one
            if threads not in _sessions:
                _sessions[threads] = _opened(threads)
            return _sessions[threads]


@dataclass(frozen=True, eq=False)
class _Faces:
    """Faces found at one scale or several: boxes ``[n, 4]``, scores ``[n]`` and points ``[n, 5, 2]``."""

    boxes: Float
    scores: Float
    points: Float

    def where(self, chosen: NDArray[np.bool_]) -> _Faces:
        return _Faces(self.boxes[chosen], self.scores[chosen], self.points[chosen])

    def sides(self) -> Float:
        """The longer side of each box."""
        longer: Float = (self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1)
        return longer


def _with(found: _Faces, zoom: float, finer: _Faces, larger: float, overlap: float) -> _Faces:
    """What was found at a scale, and what a finer search adds: ``zoom`` and ``larger`` are pixels searched a pixel.

    A face that was large enough to be sure of stays as it is, and what the finer search finds on it is a part of it,
    unless it is the better face. Of a smaller one the finer search knows better. What need not lie whole in a tile is
    left to the coarser search.
    """
    sure = found.sides() * zoom >= _SURE
    new = finer.where(finer.sides() * larger <= 2 * _MARGIN)
    new = new.where(~_on(new, found.where(sure), overlap))
    parts = [found.where(sure), new, found.where(~sure & ~_on(found, new, overlap))]
    return _Faces(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "points")))


@dataclass(frozen=True)
class _Core:
    """A stretch of a picture's side whose faces a tile answers for, and the longer one that it sees."""

    low: float
    high: float
    seen: slice

    def holds(self, centres: Float) -> NDArray[np.bool_]:
        # A few pixels more: of a face on the border each tile may think that it is the other's.
        inside: NDArray[np.bool_] = (centres >= self.low - 4) & (centres < self.high + 4)
        return inside


def _cores(length: int) -> list[_Core]:
    """A side of so many pixels, cut into stretches of at most ``_CORE``."""
    edges = np.linspace(0, length, -(-length // _CORE) + 1).round().astype(int).tolist()
    return [
        _Core(
            low if low > 0 else -math.inf,
            high if high < length else math.inf,
            slice(max(low - _MARGIN, 0), min(high + _MARGIN, length)),
        )
        for low, high in pairwise(edges)
    ]


_opening = threading.Lock()
_sessions: dict[int, onnxruntime.InferenceSession] = {}
"""The network, by number of threads, shared by all detectors of a process."""


@after_fork
def _leave_sessions() -> None:
    global _opening
    keep_for_ever(_sessions.values())
    _sessions.clear()
    _opening = threading.Lock()  # a thread that was not copied may hold the other


def _opened(threads: int) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise PolyfaceError(
            "the face detector needs onnxruntime: run `pip install onnxruntime`, or give your own boxes or detector"
        ) from error
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads
    weights = resources.files("polyface").joinpath(_WEIGHTS).read_bytes()
    if hashlib.sha256(weights).hexdigest() != _SHA256:
        raise PolyfaceError(f"the face detector's weights ({_WEIGHTS}) were changed: install Polyface again")
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


def face_of(detections: Sequence[Detection], width: int, height: int) -> Detection | None:
    """The one face that a table row is about: of several, the large one in the middle.

    Face data sets crop an image around its subject, so a bystander is at the edge, small, or both. Each detection is
    given ``score x side x exp(-(d / side)^2)``, where ``side`` is the geometric mean of the box's sides and ``d`` the
    distance of its centre from the image's; the highest wins, and the earlier of two equals.

    Args:
        detections: as a :class:`Detector` returns them.
        width, height: of the image, in pixels.

    Returns:
        One of ``detections``, or None where there is none.
    """
    middle = np.array([(width - 1) / 2, (height - 1) / 2])

    def weight(found: Detection) -> float:
        low, high = np.asarray(found.box[:2], np.float64), np.asarray(found.box[2:], np.float64)
        side = float(np.sqrt(np.prod(np.maximum(high - low, 1e-6))))
        distance = float(np.linalg.norm((low + high) / 2 - middle))
        return float(found.score * side * np.exp(-((distance / side) ** 2)))

    return max(detections, key=weight, default=None)


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The picture with its longer side so many pixels long."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if side == longest:
        return image
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


@lru_cache(maxsize=32)
def _anchors(height: int, width: int) -> Float:
    """Anchors ``[A, 3]`` (centre x, centre y, side) in pixels, in the network's order: stride, row, column, size."""
    levels = []
    for stride, sizes in zip(_STRIDES, _SIZES, strict=True):
        y, x, side = np.meshgrid(
            (np.arange(-(-height // stride)) + 0.5) * stride,
            (np.arange(-(-width // stride)) + 0.5) * stride,
            sizes,
            indexing="ij",
        )
        levels.append(np.stack([x, y, side], -1).reshape(-1, 3))
    anchors = np.concatenate(levels).astype(np.float32)
    anchors.setflags(write=False)  # shared between calls
    return anchors


def _decode(loc: Float, marks: Float, anchors: Float) -> tuple[Float, Float]:
    """Boxes ``[n, 4]`` (xyxy) and points ``[n, 5, 2]`` from the network's offsets and their anchors ``[n, 3]``."""
    middle, side = anchors[:, :2], anchors[:, 2:]
    centre = middle + side * loc[:, :2] * _VARIANCE[0]
    half = side * np.exp(np.minimum(loc[:, 2:] * _VARIANCE[1], 10)) / 2
    points = middle[:, None] + side[:, None] * marks.reshape(-1, 5, 2) * _VARIANCE[0]
    return np.concatenate([centre - half, centre + half], 1), points


def _suppress(boxes: Float, overlap: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: indices kept, in order (``boxes`` must be best first)."""
    areas = _areas(boxes)
    left = np.arange(len(boxes))
    keep: list[int] = []
    while left.size:
        first, left = int(left[0]), left[1:]
        keep.append(first)
        shared = _shared(boxes[first], boxes[left])
        left = left[shared <= overlap * (areas[first] + areas[left] - shared)]
    return np.array(keep, np.int64)


def _on(faces: _Faces, others: _Faces, overlap: float) -> NDArray[np.bool_]:
    """Which faces are one of the others, or lie for more than half of their area on one of better score."""
    found = np.zeros(len(faces.boxes), np.bool_)
    theirs = _areas(others.boxes)
    for i, (box, score, area) in enumerate(zip(faces.boxes, faces.scores, _areas(faces.boxes), strict=True)):
        shared = _shared(box, others.boxes)
        found[i] = (
            (shared > overlap * (area + theirs - shared)) | ((shared > area / 2) & (score < others.scores))
        ).any()
    return found


def _areas(boxes: Float) -> Float:
    areas: Float = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return areas


def _shared(box: Float, others: Float) -> Float:
    """The area that a box shares with each of the others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared: Float = np.prod(np.maximum(high - low, 0), axis=1)
    return shared
