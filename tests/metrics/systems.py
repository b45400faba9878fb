"""Made-up systems of every kind: what they answer depends on a seed and on noise, what is true on neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from polyface.metrics.attributes import AttributesResult, evaluate_attributes
from polyface.metrics.landmarks import LandmarkResult, evaluate_landmarks
from polyface.metrics.recognition.all_pairs import AllPairsResult, evaluate_all_pairs
from polyface.metrics.recognition.identification import IdentificationResult, evaluate_identification
from polyface.metrics.recognition.retrieval import RetrievalResult, draw_gallery, evaluate_retrieval
from polyface.metrics.recognition.verification import VerificationResult, evaluate_verification
from polyface.metrics.resampling import Bools, Counts, Floats, ratio
from polyface.metrics.result import Metric
from polyface.metrics.sections import Section, Text
from polyface.schema import eyes

NAN = np.nan
FACE = np.array([[10.0, 20], [20, 20], [15, 25], [11, 30], [19, 30]])  # eyes 10 apart


def landmarks(seed: int, noise: float = 1.0) -> LandmarkResult:
    """60 faces, of which one is excluded, one has a hidden point and one, another in each run, is missed."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(FACE[None], 60, axis=0)
    truth[3], truth[5, 2] = NAN, NAN
    guess = FACE + noise * generator.gamma(2, 0.4, size=(60, 1, 1)) * generator.normal(size=truth.shape)
    guess[10 + seed] = NAN
    return evaluate_landmarks(guess, truth, eyes=eyes(5))


def attributes(seed: int, noise: float = 1.0) -> AttributesResult:
    truth = np.where(np.random.default_rng(9).random((70, 3)) < (0.1, 0.4, 0.8), 1.0, -1.0)
    truth[np.random.default_rng(8).random(truth.shape) < 0.3] = NAN
    scores = np.nan_to_num(truth) + noise * np.random.default_rng([seed, 1]).normal(size=truth.shape)
    return evaluate_attributes(scores, scores > 0, truth, ("a", "b", "c"))


def identification(seed: int, noise: float = 0.5) -> IdentificationResult:
    people = np.random.default_rng(4).integers(-1, 6, size=90)
    scores = np.eye(7)[people][:, :6] + noise * np.random.default_rng([seed, 2]).normal(size=(90, 6))
    return evaluate_identification(scores, people, metric="id")


def verification(seed: int, noise: float = 0.4, truth_seed: int = 0) -> VerificationResult:
    same = np.random.default_rng(truth_seed).random(120) < 0.5
    distances = np.where(same, 1.0, 1.8) + noise * np.random.default_rng([seed, 1]).normal(size=120)
    return evaluate_verification(distances, same, folds=4, fars=(5.0,))


def crossed(seed: int, noise: float, truth_seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(distances, first people, second people) of 30 by 30 faces of ten people."""
    who = np.random.default_rng(truth_seed)
    names = np.array([f"p{i:02}" for i in range(10)])
    first, second = (names[np.append(np.arange(10), who.integers(10, size=20))] for _ in range(2))
    spread = np.random.default_rng([seed, 1]).normal(size=(30, 30))
    return np.where(first[:, None] == second, 1.0, 1.8) + noise * spread, first, second


def all_pairs(seed: int, noise: float = 0.5, truth_seed: int = 0) -> AllPairsResult:
    return evaluate_all_pairs(*crossed(seed, noise, truth_seed), fars=(5.0,))


def retrieval(seed: int, noise: float = 0.5, truth_seed: int = 0) -> RetrievalResult:
    distances, first, second = crossed(seed, noise, truth_seed)
    return evaluate_retrieval(distances, first, second, galleries=draw_gallery(second, 3), ranks=(1, 5))


MEAN = Metric("mean")


@dataclass(frozen=True)
class Toy:
    """The mean of values [N]; NaN cannot be judged."""

    values: Floats
    metric: Metric = MEAN
    key: str = "toy"
    over: str = "faces"
    folds: float | None = None
    metrics: Sequence[Metric] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", self.metrics or [self.metric])

    @property
    def units(self) -> int:
        return len(self.values)

    def figure(self, metric: Metric) -> float:
        known = self.defined(metric)
        return float(self.values[known].mean()) if known.any() else NAN

    def spread(self, metric: Metric) -> float | None:
        return self.folds

    def defined(self, metric: Metric) -> Bools:
        return np.asarray(~np.isnan(self.values))

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        known = self.defined(MEAN)
        scored = (counts if judged is None else counts * judged)[:, known]
        return {metric: ratio(scored @ self.values[known], scored.sum(1)) for metric in wanted}

    def sections(self) -> list[Section]:
        return [Section("toy", [Text("nothing to see")])]
