"""What the papers report, where they report it, and what differs from what is measured here.

A figure stands here only if its paper prints it as a number; what a paper says in words, or shows in a plot alone, is a
`Statement`. `differs` names the details of the protocol that keep the figure from being compared directly.
"""

from __future__ import annotations

from dataclasses import dataclass

from polyface.errors import PolyfaceError, nearest


@dataclass(frozen=True)
class Published:
    """One printed figure of a paper. `row` is the method as the paper names it; `differs` is empty if nothing does."""

    row: str
    metric: str
    value: float
    source: str
    differs: str = ""
    unit: str = "%"


@dataclass(frozen=True)
class Statement:
    """What a paper says without a table of numbers behind it."""

    text: str
    source: str
    differs: str = ""


_TCDCN = "Zhang, Luo, Loy & Tang 2014 (arXiv 1408.3967v1)"
_300W = (
    "tests: common = LFPW-test 224 + Helen-test 330, challenging = IBUG 135, full = all 689; "
    "training: AFW 337 + LFPW-train 811 + Helen-train 2,000, after pre-training on MTFL's five points with their "
    "attributes. LFPW and IBUG are not tested here, and part of the training images is not available"
)
_TABLE_1 = {
    "ESR": (7.58, 5.28, 17.00),
    "SDM": (7.52, 5.60, 15.40),
    "LBF": (6.32, 4.95, 11.98),
    "TCDCN": (6.83, 6.10, 9.88),
    "TCDCN-Averaged": (6.29, 5.59, 9.15),
}
_SUBSETS = ("full", "common", "challenging")

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "tcdcn": (
        *(
            Published(method, f"mean error, 300-W {subset}", value, f"{_TCDCN}, Table 1", _300W)
            for method, values in _TABLE_1.items()
            for subset, value in zip(_SUBSETS, values, strict=True)
        ),
        Published("cascaded CNN", "time per face, CPU", 120, _TCDCN, "an Intel Core i5 of 2014", "ms"),
        Published("TCDCN", "time per face, CPU", 17, _TCDCN, "an Intel Core i5 of 2014", "ms"),
        Published("TCDCN", "time per face, GPU", 1.5, _TCDCN, "an NVIDIA GTX 760", "ms"),
    ),
}
"""Printed figures by recipe. Add a paper by adding its key: `lookup` and the report find it there."""

_FIGURES_ONLY = "AFLW's 3,000 test faces, of which 2,995 are public; the paper shows bars, not numbers"
STATEMENTS: dict[str, tuple[Statement, ...]] = {
    "tcdcn": (
        Statement(
            "Learning all four attributes beside the landmarks (FLD+all) reduces the failure rate by over 10 % "
            "against landmarks alone (FLD).",
            f"{_TCDCN}, the experiments' text",
            _FIGURES_ONLY,
        ),
        Statement("39 % of the AFLW test faces are non-frontal.", f"{_TCDCN}, the experiments' text"),
        Statement(
            "TCDCN is better than the cascaded CNN on four of the five landmarks, and seven times faster.",
            f"{_TCDCN}, the experiments' text",
            _FIGURES_ONLY,
        ),
        Statement(
            "The model takes about 3 MB.",
            _TCDCN,
            "this fits the authors' released 60x60, 68-point network (537,360 parameters, 2.15 MB), not the 40x40 "
            "network of the paper's Figure 3 (13.6 MB with unshared filters, 0.32 MB with shared ones)",
        ),
    ),
}


def published(recipe: str) -> tuple[Published, ...]:
    """All printed figures of a recipe's paper; unknown recipes raise with their nearest neighbour."""
    if recipe not in PUBLISHED:
        raise PolyfaceError(f"no published figures for '{recipe}': {nearest(recipe, PUBLISHED)}")
    return PUBLISHED[recipe]


def lookup(recipe: str, row: str, metric: str) -> Published | None:
    """The printed figure of one row and metric, or None if the paper prints none."""
    return next((figure for figure in published(recipe) if (figure.row, figure.metric) == (row, metric)), None)
