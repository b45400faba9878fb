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
    """One printed figure of a paper, with its spread if that is printed as well. `row` is the method as the paper names
    it; `differs` is empty if nothing does."""

    row: str
    metric: str
    value: float
    source: str
    differs: str = ""
    unit: str = "%"
    std: float | None = None


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


_MING = "Ming, Burie & Luqman 2021 (IJDAR)"
_CAVI = (
    "pre-trained on MS-Celeb-1M; by the authors' code, tested on every 20th of CaVI's 13,035 test pairs and on the "
    "images of these, trained on all other images of the 195 people (those of the other test pairs among them), each "
    "task's best snapshot chosen on the test images; here without MS-Celeb-1M, on all test pairs and images, with "
    "training and validation images apart from them, of the public copy of CaVI, which is not the paper's"
)
_CAVI_QUOTED = "as quoted in the paper, on its copy of CaVI, which is not the public one; other test images than here"
_V2C = (
    "the text says that V2C is the visual model on caricatures; in the code it is visual images through the caricature "
    "branch, and C2V the reverse; the rows of Table 2 mix both (for the single models they are printed the other way "
    "round than in Fig. 2), so that neither column compares with a figure here"
)
_FIG_2 = "50 of CaVI's people; pre-trained on MS-Celeb-1M"
_WEB = "WebCaricature's View 2, mean and spread over ten folds of 252 people; here splits of 123 of them"
_WEB_DEEP = f"{_WEB}; pre-trained on MS-Celeb-1M, which is not used here"
_WEB_VAL = f"{_WEB_DEEP}; VAL by the authors' code on the nine folds that gave the threshold, here on the other one"
_CAVI_METRICS = ("verification", "visual id", "caricature id", "V2C as printed", "C2V as printed")
_MING_TABLE_2: dict[str, tuple[float | None, ...]] = {
    "CaVINet": (91.06, 94.50, 85.09, None, None),
    "CaVINet(TW)": (84.32, 85.16, 86.02, None, None),
    "CaVINet(w/o ortho)": (86.01, 93.46, 80.43, None, None),
    "CaVINet(shared)": (88.59, 90.56, 81.23, None, None),
    "CaVINet(visual)": (88.58, 92.16, 83.36, None, None),
    "Naive dynamic": (93.80, 97.60, 75.80, 61.90, 62.80),
    "Single-verif": (92.46, None, None, None, None),
    "Single-visual": (None, 98.10, None, None, 41.80),
    "Single-cari": (None, None, 78.20, 53.60, None),
    "Dynamic": (94.92, 98.35, 85.61, 80.04, 64.39),
}
_MING_FIG_2 = {
    ("Single-visual", "visual model on caricatures"): 53.60,
    ("Single-cari", "caricature model on visual images"): 41.80,
}
_MING_WEB = """
3 | within VAL@0.1% | within VAL@1% | within AUC
SIFT-Land-ITML | 5.08 1.82 | 18.07 4.72 | 84.1 1.8
VGG-Eye-PCA | 21.42 2.02 | 40.28 2.91 | 89.6 1.3
VGG-Eye-ITML | 18.97 3.90 | 41.72 5.83 | 91.1 1.4
VGG-Box-PCA | 28.42 2.04 | 55.53 2.76 | 94.6 0.9
VGG-Box | 34.94 5.06 | 57.22 6.50 | 95.4 1.0
Naive dynamic | 38.39 4.58 | 79.69 1.3 | 96.1 0.4
Single-verif | 42.10 3.05 | 84.52 0.80 | 94.8 0.2
Dynamic | 45.82 1.65 | 83.20 2.00 | 98.7 0.2
4 | within C2P rank-1 | within C2P rank-10
SIFT-Land-KCSR | 24.87 1.50 | 61.57 1.37
VGG-Eye-PCA | 35.07 1.84 | 71.64 1.32
VGG-Eye-KCSR | 39.76 1.60 | 75.38 1.34
VGG-Box-PCA | 49.89 1.97 | 84.21 1.08
VGG-Box-KCSR | 55.41 1.41 | 87.00 0.92
Naive dynamic | 86.00 1.70 | 98.21 1.08
Single-verif | 85.55 1.30 | 96.31 0.08
Dynamic | 87.30 1.20 | 99.21 1.07
5 | within P2C rank-1 | within P2C rank-10
SIFT-Land-KCSR | 23.42 1.57 | 69.95 2.34
VGG-Eye-PCA | 36.18 3.24 | 68.95 3.25
VGG-Eye-KCSR | 40.67 3.61 | 75.77 2.63
VGG-Box-PCA | 50.59 2.37 | 82.15 1.31
VGG-Box-KCSR | 55.53 2.17 | 86.86 1.42
Naive dynamic | 82.80 1.60 | 97.81 0.88
Single-verif | 81.70 2.60 | 95.25 1.08
Dynamic | 84.00 1.60 | 99.01 1.2
"""
"""Tables 3 to 5: a line with the table's number and metrics, then a line a method with figure and spread of each (AUC
in percent)."""


def _ming_cavi() -> Iterator[Published]:
    for row, values in _MING_TABLE_2.items():
        for metric, value in zip(_CAVI_METRICS, values, strict=True):
            if value is not None:
                differs = _V2C if metric.endswith("printed") else _CAVI_QUOTED if "CaVINet" in row else _CAVI
                yield Published(row, metric, value, f"{_MING}, Table 2", differs)
    for (row, metric), value in _MING_FIG_2.items():
        yield Published(row, metric, value, f"{_MING}, Fig. 2", _FIG_2)


def _ming_web() -> Iterator[Published]:
    table, metrics = "", [""]
    for line in _MING_WEB.strip().splitlines():
        name, *cells = (cell.strip() for cell in line.split("|"))
        if name.isdigit():
            table, metrics = name, cells
            continue
        for metric, cell in zip(metrics, cells, strict=True):
            value, spread = map(float, cell.split())
            quoted = name not in _MING_TABLE_2
            differs = _WEB if quoted else _WEB_VAL if "VAL" in metric else _WEB_DEEP
            yield Published(name, metric, value, f"{_MING}, Table {table}", differs, std=spread)


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
    "caricature": (*_ming_cavi(), *_ming_web()),
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
    "caricature": (
        Statement(
            "The dynamic network outperforms the compared systems on all three tasks of CaVI.",
            f"{_MING}, the text on Table 2",
            "not against CaVINet(TW), whose caricature id is printed as 86.02 % (Dynamic: 85.61 %)",
        ),
        Statement(
            "V2C is a caricature classified by the visual model (53.6 %), C2V a visual image classified by the "
            "caricature model (41.8 %).",
            f"{_MING}, Fig. 2",
            "Table 2 prints 41.80 as the C2V of Single-visual and 53.60 as the V2C of Single-cari, the models "
            "exchanged, and the code names the two the other way round: here they are called by what they do",
        ),
        Statement(
            "WebCaricature has 6,024 caricatures.",
            _MING,
            "a slip: the data set's own page says 6,042, of 252 people, and 5,974 photos",
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
