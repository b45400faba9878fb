"""Synthetic faces: a small parametric renderer whose every factor is known exactly.

A 3-D mean face of 68 points (iBUG order) is deformed linearly by identity, age, gender and expression, turned by the
yaw, and drawn as filled contours whose vertices *are* the landmarks. Coverage is exact-area: Green's theorem over short
edges, then one running sum down the columns, so a face costs its outlines' length and not its area times its parts.

Nothing is read from disk. Face i of a seed is a pure function of (seed, i, size, options), whatever the number asked
for; identity k is the same person under every seed. For tests, examples and demonstrations: figures come from real
faces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from polyface.data.synthetic.head import CHUNK, Array, N
from polyface.data.synthetic.paint import chunk
from polyface.errors import PolyfaceError, nearest
from polyface.schema import POSE_FROM, VOCABULARIES

if TYPE_CHECKING:
    from polyface.data.writing import Record

# Ambient light, then the diffuse light's strength and direction (x, y, z).
_LIGHTS: dict[str, tuple[float, ...]] = {
    "front": (0.42, 0.62, 0.0, 0.0, 1.0),
    "left": (0.30, 0.85, -0.90, -0.10, 0.42),
    "right": (0.30, 0.85, 0.90, -0.10, 0.42),
    "top": (0.30, 0.85, 0.0, -0.90, 0.42),
    "bottom": (0.30, 0.85, 0.0, 0.90, 0.42),
    "dim": (0.22, 0.16, 0.0, 0.0, 1.0),
}
ILLUMINATIONS: tuple[str, ...] = tuple(_LIGHTS)
"""Where the light stands, as the viewer sees it; `dim` is weak light from the front."""
MODALITIES = ("photo", "caricature")
# Happiness is drawn more often than the others, so that smiles are not rare.
_EXPRESSION_DECK = VOCABULARIES["expression"] + ("neutral", "happiness", "happiness")
_AGE_FROM = [int(group.split("-")[0].rstrip("+")) for group in VOCABULARIES["age_group"]]


@dataclass(frozen=True)
class SyntheticFaces:
    """Faces and everything that is known of them.

    images: uint8 RGB [N, H, W, 3]. labels: columns as in `polyface.schema`, N entries each; points are (x, y) pixels
    with pixel centres at integers, NaN where the turned head hides a point of the 68 (the five are always given: a
    hidden one lies where the head's horizon hides it). roll: [N] degrees in the image plane, > 0 is clockwise.
    """

    images: npt.NDArray[np.uint8]
    labels: dict[str, Any]
    roll: npt.NDArray[np.float32]


@lru_cache(4096)
def _identity(number: int) -> Array:
    """What makes person `number`: 32 uniform numbers in [0, 1), the same under every seed."""
    return np.random.default_rng([0xFACE, number]).random(32, np.float32)


def _factors(seed: int, chunk: int, pool: Sequence[int], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Draw one chunk's factors. Everything is drawn before `fixed` overrides, so that it changes nothing else."""
    u = np.random.default_rng([seed, chunk]).random((CHUNK, 24))

    def pick(column: int, words: Sequence[Any]) -> Array:
        return np.asarray(np.array(words)[(u[:, column] * len(words)).astype(int)])

    f: dict[str, Any] = {
        "identity": np.array([pool[int(k)] for k in u[:, 0] * len(pool)]),
        "modality": pick(1, MODALITIES),
        "yaw": 150 * u[:, 2] - 75,
        "roll": 40 * u[:, 3] - 20,
        "illumination": pick(4, ILLUMINATIONS),
        "expression": pick(5, _EXPRESSION_DECK),
        "glasses": np.where(u[:, 6] < 0.35, "yes", "no"),
    }
    f |= {name: np.full(CHUNK, value) for name, value in fixed.items() if name != "age"}
    f["lights"] = [_LIGHTS[name] for name in f["illumination"]]
    person = np.stack([_identity(int(k)) for k in f["identity"]])
    # A person is photographed within a few years.
    age = np.maximum(2 + 76 * person[:, N + 1] + 6 * u[:, 7] - 3, 1)
    f["age"] = np.full(CHUNK, fixed["age"], np.float64) if "age" in fixed else age
    f |= {"person": person, "male": person[:, N] < 0.5, "u": np.minimum(u, 1 - 2.0**-24).astype(np.float32)}
    return f


def _labels(f: dict[str, Any], truth: dict[str, Array], first: int) -> dict[str, Array]:
    """The schema's columns of one chunk whose first face has number `first`."""
    words = {name: np.array(VOCABULARIES[name]) for name in ("pose", "age_group", "split")}
    tenth = np.arange(first, first + CHUNK) % 10
    return {
        "identity": np.array([f"synthetic-{k}" for k in f["identity"]]),
        **{name: f[name] for name in ("modality", "illumination", "expression", "glasses")},
        "yaw": f["yaw"].astype(np.float32),
        "pose": words["pose"][np.searchsorted(POSE_FROM, f["yaw"], side="right")],
        "smile": np.where(f["expression"] == "happiness", "yes", "no"),
        "age": f["age"].astype(np.float32),
        "age_group": words["age_group"][np.searchsorted(_AGE_FROM, np.floor(f["age"]), side="right") - 1],
        "gender": np.where(f["male"], "male", "female"),
        **truth,
        "split": words["split"][np.maximum(tenth - 7, 0)],
        "source": np.full(CHUNK, "synthetic"),
    }


def _check(n: int, size: int, seed: int, first: int, pool: Sequence[int], fixed: Mapping[str, Any]) -> None:
    for name, value, least in (("n", n, 0), ("size", size, 16), ("seed", seed, 0), ("first", first, 0)):
        if value < least:
            raise PolyfaceError(f"synthetic faces: {name} is {value}, expected at least {least}")
    if not len(pool) or (pool[0] if isinstance(pool, range) else min(pool)) < 0:
        raise PolyfaceError("synthetic faces: identities must be a positive number or a list of numbers from 0 up")
    words = {name: VOCABULARIES[name] for name in ("expression", "glasses")}
    words |= {"modality": MODALITIES, "illumination": ILLUMINATIONS}
    ranges = {"yaw": (-90, 90), "roll": (-180, 180), "age": (0, 120), "identity": (0, 2**63 - 1)}
    for name, value in fixed.items():
        if name not in words and name not in ranges:
            raise PolyfaceError(f"synthetic faces: unknown factor '{name}': {nearest(name, [*words, *ranges])}")
        if name in words and value not in words[name]:
            raise PolyfaceError(f"synthetic faces: {name} '{value}': {nearest(str(value), words[name])}")
        if name in ranges and not ranges[name][0] <= value <= ranges[name][1]:
            low, high = ranges[name]
            raise PolyfaceError(f"synthetic faces: {name} is {value}, expected {low} to {high}")


def render(
    n: int,
    size: int = 64,
    seed: int = 0,
    identities: int | Sequence[int] = 100,
    modality: str | None = None,
    *,
    first: int = 0,
    fixed: Mapping[str, Any] | None = None,
) -> SyntheticFaces:
    """Draw faces first … first + n - 1 of a seed as S × S pictures.

    `identities` is how many people there are, or their numbers; `modality` is photo, caricature or None for both.
    `fixed` holds factors at one value (yaw and roll in degrees, illumination, expression, glasses, age in years,
    identity) and leaves all others, down to the grain, as they would have been. Raises PolyfaceError for values out of
    range. In `labels`, `attributes` is int8 [N, 40] with 0 for not labelled, and `split` is train for numbers ending in
    0-7, val for 8, test for 9.
    """
    pool = range(identities) if isinstance(identities, int | np.integer) else identities
    fixed = dict(fixed or {}) | ({"modality": modality} if modality else {})
    _check(n, size, seed, first, pool, fixed)
    start = first - first % CHUNK
    images, rolls, labels = [], [], []
    for number in range(start, max(first + n, start + 1), CHUNK):
        f = _factors(seed, number // CHUNK, pool, fixed)
        pictures, truth = chunk(f, size)
        images.append(pictures)
        rolls.append(f["roll"].astype(np.float32))
        labels.append(_labels(f, truth, number))
    wanted = slice(first - start, first - start + n)
    columns = {name: np.concatenate([part[name] for part in labels])[wanted] for name in labels[0]}
    return SyntheticFaces(np.concatenate(images)[wanted], columns, np.concatenate(rolls)[wanted])


def records(n: int, size: int = 64, seed: int = 0, **options: Any) -> Iterator[Record]:
    """The faces of `render` one by one, as records for `polyface.data.writing.write_table`; options are `render`'s."""
    from polyface.data.writing import Record

    first = options.pop("first", 0)
    for number in range(first, first + n, 8 * CHUNK):
        faces = render(min(8 * CHUNK, first + n - number), size, seed, first=number, **options)
        for k, image in enumerate(faces.images):
            labels = {name: value[k] if value.ndim > 1 else value[k].item() for name, value in faces.labels.items()}
            labels["attributes"] = [int(value) or None for value in labels["attributes"]]
            path = f"synthetic/{seed}/{number + k}.png"
            yield Record(image=image, where=path, labels=labels, path=path)
