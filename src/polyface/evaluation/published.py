"""What the papers report, where they report it, and what differs from what is measured here.

A figure stands here only if its paper prints it as a number; what a paper says in words, or shows in a plot alone, is a
`Statement`. `differs` names the details of the protocol that keep the figure from being compared directly.
"""

from __future__ import annotations

from collections.abc import Iterator
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

_DMM = "Mao, Yan, Xue & Wang 2020 (arXiv 2002.03683)"
_CELEBA = (
    "trained on CelebA's official 162,770 images and tested on 19,962, at 224 px; here on a subset of the images, "
    "split by person"
)
_LFWA = (
    "fine-tuned from CelebA, on half of LFWA's 13,143 images, and tested on the other half, as rows of the attribute "
    "file alternate (not the split of Liu et al. 2015); here on 62 people, split by person"
)
_SETS = {"": _CELEBA, "LFWA ": _LFWA}
"""What a row's name begins with, by data set."""
_DMM_TABLE_2 = {"UW": (91.08, 84.11), "DWA": (91.36, 84.78), "AW": (91.65, 85.02), "DW": (91.70, 86.56)}
_DMM_TABLE_3 = {
    "PANDA": (85.43, 81.03),
    "LNets+ANet": (87.33, 83.85),
    "MOON": (90.94, None),
    "NSA": (90.61, 85.82),
    "MCNN-AUX": (91.29, 86.31),
    "MCFA": (91.23, 83.63),
    "GNAS": (91.63, 86.37),
    "AW-CNN": (91.80, None),
    "PS-MCNN-LC": (92.98, 87.67),
    "DMM-CNN": (91.70, 86.56),
}
_DMM_GAINS = {
    ("DMM-DW-FIX", "Baseline"): (0.91, 5.52),
    ("DMM-EQ-AT", "Baseline"): (0.95, 3.98),
    ("DMM-CNN", "DMM-SPP"): (0.30, 1.81),
}
_BY_ATTRIBUTE = """
5_o_Clock_Shadow | ? ? ? ? 94.51 94.00 94.76 - 96.60 ? | ? 84.00 77.59 77.06 75.00 - 78.17 ?
Arched_Eyebrows | ? | ? 82.00 81.72 81.78 79.00 - 83.53 ?
Attractive | 81.00 81.00 81.67 82.76 83.06 83.00 83.06 - 84.39 83.37 | ? 83.00 80.16 80.31 77.00 - 81.84 ?
Bags_Under_Eyes | ? 79.00 84.92 84.86 84.92 85.00 85.87 - 87.29 ? | 80.00 83.00 82.62 83.48 79.00 - 86.74 82.70
Bald | 96.00 98.00 98.77 98.03 98.90 99.00 98.96 - 99.41 99.03 | ? 88.00 91.88 91.94 91.00 - 92.60 ?
Bangs | ? | ? 88.00 90.71 90.08 89.00 - 91.45 ?
Big_Lips | ? | ? 75.00 78.97 79.24 75.00 - 82.70 ?
Big_Nose | 75.00 78.00 84.00 83.81 84.53 84.00 85.10 - 86.40 84.78 | ? 81.00 83.13 84.98 81.00 - 86.48 ?
Black_Hair | 85.00 88.00 89.40 89.03 89.78 89.00 90.24 - 91.66 90.50 | ? 90.00 92.49 92.63 91.00 - 92.96 ?
Blond_Hair | 93.00 95.00 95.86 95.76 96.01 96.00 96.11 - 97.93 96.13 | ? 97.00 97.47 97.41 97.00 - 98.51 ?
Blurry | ? | ? 74.00 86.42 85.23 86.00 - 87.20 ?
Brown_Hair | 77.00 80.00 89.38 88.25 89.15 88.00 89.75 - 91.03 89.46 | 74.00 77.00 80.93 80.85 77.00 - 81.87 81.56
Bushy_Eyebrows | ? 90.00 92.62 92.66 92.84 92.00 92.99 - 94.51 ? | ? 82.00 84.26 84.97 76.00 - 85.72 ?
Chubby | 86.00 91.00 95.44 94.94 95.67 96.00 95.93 - 97.66 95.86 | ? 73.00 76.06 76.86 74.00 - 78.11 ?
Double_Chin | 88.00 92.00 96.32 95.80 96.32 96.00 96.48 - 98.29 96.39 | ? 78.00 80.49 81.52 77.00 - 86.70 ?
Eyeglasses | 98.00 99.00 99.47 99.51 99.63 100.00 99.69 - 99.85 99.69 | 89.00 95.00 91.50 91.30 91.00 - 92.78 92.83
Goatee | 93.00 95.00 97.04 96.68 97.24 97.00 97.59 - 97.74 97.63 | ?
Gray_Hair | 94.00 97.00 98.10 97.45 98.20 98.00 98.37 - 98.66 98.27 | ? 84.00 88.46 88.93 88.00 - 91.04 ?
Heavy_Makeup | 90.00 90.00 90.99 91.59 91.55 92.00 91.82 - 93.31 91.85 | 93.00 95.00 95.39 95.85 94.00 - 96.60 95.68
High_Cheekbones | 86.00 88.00 87.01 87.61 87.58 87.00 88.05 - 89.50 87.73 | 86.00 88.00 88.34 88.38 85.00 - 88.77 88.13
Male | 97.00 98.00 98.10 97.95 98.17 98.00 98.50 - 98.81 98.29 | 92.00 94.00 92.60 94.02 93.00 - 95.18 94.14
Mouth_Slightly_Open | ? | ? 82.00 82.50 83.51 78.00 - 84.60 ?
Mustache | ? | ? 92.00 92.97 93.43 91.00 - 94.47 ?
Narrow_Eyes | 84.00 81.00 86.52 86.88 87.23 87.00 87.66 - 89.07 87.73 | ? 81.00 82.75 82.86 78.00 - 83.51 ?
No_Beard | ? 95.00 95.58 96.17 96.05 96.00 96.3 - 98.03 ? | ?
Oval_Face | 65.00 66.00 75.73 74.93 75.84 75.00 75.57 - 77.43 75.89 | ? 74.00 76.80 77.39 74.00 - 77.90 ?
Pale_Skin | ? | ? 84.00 90.97 93.32 82.00 - 94.97 ?
Pointy_Nose | ? 72.00 76.46 76.47 77.47 77.00 78.24 - 79.32 ? | ? 80.00 84.20 84.14 80.00 - 87.52 ?
Receding_Hairline | 85.00 89.00 93.56 92.25 93.81 94.00 93.94 - 95.85 94.12 | ? 85.00 84.90 86.25 85.00 - 87.50 ?
Rosy_Cheeks | ? 90.00 94.82 94.79 95.16 95.00 95.01 - 96.92 ? | ? 78.00 87.08 87.92 85.00 - 88.81 ?
Sideburns | ? | ? 77.00 81.76 83.13 78.00 - 84.42 ?
Smiling | ? | ? 91.00 90.80 91.83 88.00 - 92.70 ?
Straight_Hair | ? | 73.00 76.00 78.91 78.53 77.00 - 79.65 79.20
Wavy_Hair | ? | ? 76.00 78.28 81.61 79.00 - 83.35 ?
Wearing_Earrings | 78.00 82.00 89.60 89.44 90.43 90.00 90.98 - 92.66 90.78 | ? 94.00 94.75 94.95 93.00 - 95.54 ?
Wearing_Hat | ? 99.00 98.95 98.74 99.05 99.00 99.12 - 99.43 ? | ? 88.00 90.23 90.07 91.00 - 91.21 ?
Wearing_Lipstick | 93.00 93.00 93.93 93.21 94.11 94.00 94.41 - 95.70 94.49 | 93.00 95.00 94.07 95.04 94.00 - 95.70 95.11
Wearing_Necklace | 67.00 71.00 87.04 85.61 86.63 88.00 87.61 - 88.98 88.03 | ?
Wearing_Necktie | ? 93.00 96.63 96.05 96.51 97.00 96.76 - 98.52 ? | ? 79.00 81.40 80.66 82.00 - 82.18 ?
Young | 84.00 87.00 88.08 88.01 88.48 88.00 88.89 - 90.54 88.98 | 82.00 86.00 85.68 85.84 87.00 - 86.88 88.94
"""
"""Table 3: attribute | CelebA | LFWA, in the order of `_DMM_TABLE_3`. "?": not legible in the copy at hand, alone: of
the whole row; "-": the paper has none."""


def _dmm_figures() -> Iterator[Published]:
    for place, (prefix, differs) in enumerate(_SETS.items()):
        for name, values in _DMM_TABLE_2.items():
            source = f"{_DMM}, Table 2" + (' ("proposed")' if name == "DW" else "")
            yield Published(prefix + name, "mean accuracy", values[place], source, differs)
        for name, means in _DMM_TABLE_3.items():
            if (mean := means[place]) is not None:
                yield Published(prefix + name, "mean accuracy", mean, f"{_DMM}, Table 3", differs)
        for (better, than), gains in _DMM_GAINS.items():
            row = f"{prefix}{better} minus {prefix}{than}"
            yield Published(row, "mean accuracy", gains[place], f"{_DMM}, the text on Table 1", differs)


def _dmm_by_attribute() -> Iterator[Published]:
    for line in _BY_ATTRIBUTE.strip().splitlines():
        attribute, *parts = (part.strip() for part in line.split("|"))
        for place, ((prefix, differs), part) in enumerate(zip(_SETS.items(), parts, strict=True)):
            names = [name for name, means in _DMM_TABLE_3.items() if means[place] is not None]
            cells = part.split() if part != "?" else ["?"] * len(names)
            for name, cell in zip(names, cells, strict=True):
                if cell not in ("?", "-"):
                    row = f"{prefix}{name}: {attribute}"
                    yield Published(row, "accuracy", float(cell), f"{_DMM}, Table 3", differs)


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
    "dmm-cnn": tuple(_dmm_figures()),
    "dmm-cnn by attribute": tuple(_dmm_by_attribute()),
}
"""Printed figures by recipe (long tables of a paper apart from its headlines). Add a paper by adding its key: `lookup`
and the report find it there."""

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
    "dmm-cnn": (
        Statement(
            "Table 1 compares what is added to the Baseline (one ResNet-50 for all attributes): the landmark task "
            "(FLD), dynamic weights (DW), adaptive thresholds (AT), attribute groups (AG). DMM-FAC: DW, AT, AG; "
            "DMM-EQ-FIX: FLD, AG; DMM-EQ-AT: FLD, AT, AG; DMM-DW-FIX: FLD, DW, AG; DMM-SPP: FLD, DW, AT; "
            "DMM-CNN: all four.",
            f"{_DMM}, Table 1",
            "its accuracies are not legible in the copy at hand; the differences are those of the text",
        ),
        Statement(
            "From these differences, DMM-SPP reaches 91.40 % on CelebA and 84.75 % on LFWA; and, if the row UW of "
            "Table 2 is DMM-EQ-AT, the Baseline 90.13 % and 80.13 %, DMM-DW-FIX 91.04 % and 85.65 %.",
            f"{_DMM}, the text on Table 1 and Table 2",
            "computed here, not printed there",
        ),
        Statement("DMM-CNN is the most accurate on 20 of the 40 attributes.", f"{_DMM}, the text on Table 3"),
        Statement(
            "The model takes about 360 MB.",
            _DMM,
            "this fits 88,713,464 parameters, 354.9 MB in single precision: ResNet-50, three branches, 72 landmarks",
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
