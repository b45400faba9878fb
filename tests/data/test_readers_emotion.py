"""FER+ and FER2013 on hand-made files: the authors' rules on votes worked out by hand, and each fault by its
message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers.fer2013 import EMOTIONS as OLD_EMOTIONS
from polyface.data.readers.ferplus import EMOTIONS, shares_of
from polyface.data.table import FaceTable
from polyface.data.writing import Record, Skipped, import_table
from polyface.errors import PolyfaceError

PNG = encode_png(np.full((8, 8, 3), 90, np.uint8))
HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def ferplus(root: Path, *lines: str, header: str = HEADER, absent: str = "") -> Path:
    folders = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
    for folder in folders.values():
        (root / "data" / folder).mkdir(parents=True)
        (root / "data" / folder / "label.csv").write_text("not read")
    for usage, name, *_ in (line.split(",") for line in lines):
        if name and name != absent and usage in folders:
            (root / "data" / folders[usage] / name).write_bytes(PNG)
    (root / "fer2013new.csv").write_text("\n".join([header, *lines]) + "\n")
    return root


def read(name: str, root: Path, **options: Any) -> list[Record | Skipped]:
    return list(reader(name, **options).records(root))


def votes(*given: int, **named: int) -> list[int]:
    """Ten votes, in order or by word."""
    return list(given) or [named.get(word, 0) for word in (*EMOTIONS, "unknown", "NF")]


def shares(found: list[float] | None) -> dict[str, float] | None:
    """Those above 0, by word."""
    return None if found is None else {EMOTIONS[i]: share for i, share in enumerate(found) if share}


# ------------------------------------------------------------------------------------------------- votes


@pytest.mark.parametrize(
    ("cast", "expected"),
    [
        (votes(happiness=6, neutral=4), "happiness"),  # 6 of 10
        (votes(happiness=5, neutral=5), None),  # half is no majority
        (votes(happiness=5, neutral=4, fear=1), "happiness"),  # the single vote does not count: 5 of 9
        (votes(neutral=1, happiness=1, surprise=1, sadness=1, anger=1, fear=1), None),  # nothing is left
        (votes(unknown=7, neutral=3), None),
        (votes(contempt=8, neutral=2), None),  # not among the seven
    ],
)
def test_the_word_that_more_than_half_are_for(cast, expected):
    assert shares(shares_of(cast, "majority", contempt=False)) == (expected and {expected: 1})


@pytest.mark.parametrize(
    ("cast", "expected"),
    [
        (votes(happiness=8, neutral=2), {"happiness": 1}),  # 8 of 10 is three quarters
        (votes(happiness=6, neutral=4), {"happiness": 0.6, "neutral": 0.4}),
        (votes(happiness=4, neutral=4, fear=2), {"happiness": 0.5, "neutral": 0.5}),  # the third is past three quarters
        (votes(happiness=3, neutral=3, fear=2, anger=2), None),  # the last two are equal: four words are too many
        (votes(happiness=4, unknown=3, neutral=3), {"happiness": 4 / 7, "neutral": 3 / 7}),  # equal, and it comes later
        (votes(happiness=6, unknown=4), {"happiness": 1}),
        (votes(happiness=4, unknown=3, sadness=2), None),  # what follows unknown is not taken, and 4 of 9 is too little
        (votes(unknown=5, happiness=4), None),
        (votes(happiness=5, unknown=5), None),  # half
        (votes(neutral=7, contempt=3), {"neutral": 1}),  # seven words: the share of the eighth goes to the others
        (votes(contempt=6, neutral=4), None),  # its first word is none of the seven
    ],
)
def test_shares_of_the_words_with_the_most_votes(cast, expected):
    for mode in ("probability", "cross-entropy"):
        assert shares(shares_of(cast, mode, contempt=False)) == (expected and pytest.approx(expected))


@pytest.mark.parametrize(
    ("cast", "expected"),
    [
        (votes(happiness=7, neutral=3), {"happiness": 0.5, "neutral": 0.5}),  # 30 % is enough, and all count alike
        (votes(happiness=8, neutral=2), {"happiness": 1}),
        (votes(happiness=3, neutral=3, anger=2, fear=2), {"happiness": 0.5, "neutral": 0.5}),  # together 6 of 10
        (votes(happiness=5, anger=2, fear=2, sadness=2), None),  # 5 of 11
        (votes(happiness=4, unknown=6), None),
        (votes(happiness=5, unknown=5), {"happiness": 1}),  # equal to unknown, and before it
    ],
)
def test_equal_shares_of_what_is_often_voted_for(cast, expected):
    assert shares(shares_of(cast, "multi-target", contempt=False)) == (expected and pytest.approx(expected))


@given(
    st.lists(st.integers(0, 10), min_size=10, max_size=10), st.sampled_from(["majority", "probability", "multi-target"])
)
def test_shares_are_shares_of_words_that_were_voted_for_twice(cast, mode):
    eight, seven = (shares_of(cast, mode, contempt) for contempt in (True, False))
    for found in (eight, seven):
        assert found is None or (sum(found) == pytest.approx(1) and min(found) >= 0)
        assert all(cast[place] > 1 for place, share in enumerate(found or []) if share)
    if eight is None:
        assert seven is None
    elif seven is not None:  # contempt leaves, and the others stay in proportion
        rest = np.array(eight[:7])
        np.testing.assert_allclose(seven, rest / rest.sum())
    if mode == "majority" and eight:
        assert cast[eight.index(1)] > sum(vote for vote in cast if vote > 1) / 2


# ------------------------------------------------------------------------------------------------- FER+


def test_ferplus_faces_parts_and_columns(tmp_path, caplog):
    root = ferplus(
        tmp_path,
        "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0",  # 4 of 9 is no majority; two words hold 7 of 9
        "Training,,0,0,0,0,0,0,0,0,0,10",
        "PublicTest,fer0000001.png,0,10,0,0,0,0,0,0,0,0",
        "PrivateTest,fer0000002.png,1,0,0,0,0,0,0,9,0,0",
        "PrivateTest,fer0000003.png,0,0,0,0,0,0,9,0,0,0",
        absent="fer0000003.png",
    )
    found = {face.path: face.labels for face in read("ferplus", root)}  # type: ignore[union-attr]
    first, second, third = (
        f"FER2013{part}" for part in ("Train/fer0000000.png", "Valid/fer0000001.png", "Test/fer0000002.png")
    )
    assert list(found) == [first, second, third]
    assert [(face["split"], face["emotion"]) for face in found.values()] == [
        *(("train", None), ("val", "happiness"), ("test", None))
    ]
    assert found[first]["emotion_shares"] == pytest.approx([4 / 7, 0, 0, 0, 3 / 7, 0, 0])
    assert (found[second]["emotion_shares"], found[third]["emotion_shares"]) == ([0, 1, 0, 0, 0, 0, 0], None)
    for words in ("left out 1 rows that name no image", "1 rows whose image is absent, the first is fer2013new.csv:6"):
        assert words in caplog.text
    (eight,) = (face for face in read("ferplus", root, contempt=True) if face.path == third)  # type: ignore[union-attr]
    assert eight.labels["emotion"] == "contempt"  # type: ignore[union-attr]
    import_table(reader("ferplus"), root, tmp_path / "t.parquet")
    table = FaceTable.open(tmp_path / "t.parquet")
    assert table.declared("emotion").vocabulary == table.declared("emotion_shares").vocabulary == EMOTIONS[:7]
    assert table.declared("emotion_shares").type == "distribution"
    assert len(table) == 3  # faces that nobody agrees on are kept


def test_ferplus_without_copies_in_another_part(tmp_path):
    good = "0,10,0,0,0,0,0,0,0,0"
    uses = {"a": "Training", "b": "Training", "c": "PublicTest", "d": "PublicTest", "e": "PrivateTest", "f": "Training"}
    root = ferplus(tmp_path, *(f"{use},{name}.png,{good}" for name, use in uses.items()))
    grey = dict(zip("abcdef", (1, 2, 1, 3, 3, 4), strict=True))  # a is c, and d is e
    for name, folder in zip("abcdef", ("Train", "Train", "Valid", "Valid", "Test", "Train"), strict=True):
        file = root / "data" / f"FER2013{folder}" / f"{name}.png"
        file.write_bytes(encode_png(np.full((8, 8, 3), grey[name], np.uint8)))

    def parts(**options: Any) -> dict[str, str | None]:
        found = read("ferplus", root, **options)
        return {face.path[-5]: face.labels["split"] for face in found if isinstance(face, Record)}

    published = {"a": "train", "b": "train", "c": "val", "d": "val", "e": "test", "f": "train"}
    assert parts() == published
    assert parts(copies="drop-earlier") == published | {"a": None, "d": None}
    assert parts(copies="drop-later") == published | {"c": None, "e": None}


def test_ferplus_rows_that_cannot_be_read(tmp_path):
    good = "0,10,0,0,0,0,0,0,0,0"
    root = ferplus(
        tmp_path, f"Training,a.png,{good}", f"Test,b.png,{good}", "Training,c.png,x" + good[1:], "Training,d.png,1"
    )
    told = [str(bad) for bad in read("ferplus", root) if isinstance(bad, Skipped)]
    assert told == [
        "fer2013new.csv:3: Usage is 'Test'; known: PrivateTest, PublicTest, Training",
        "fer2013new.csv:4: neutral is 'x', expected a number of votes",
        "fer2013new.csv:5: 3 fields, expected 12 as in the first line",
    ]


def test_ferplus_refuses(tmp_path):
    root = ferplus(tmp_path, "Training,a.png,0,10,0,0,0,0,0,0,0,0", header=HEADER.replace("fear", "feer"))
    with pytest.raises(PolyfaceError, match=r"fer2013new.csv:1: lacks the column 'fear' \(did you mean 'feer'\?\)"):
        read("ferplus", root)
    with pytest.raises(PolyfaceError, match=r"reader 'ferplus': mode is 'majorty'; did you mean 'majority'\?"):
        read("ferplus", root, mode="majorty")
    with pytest.raises(PolyfaceError, match=r"reader 'ferplus': copies is 'drop'; known: drop-earlier, drop-later"):
        read("ferplus", root, copies="drop")


# ------------------------------------------------------------------------------------------------- FER2013


def test_fer2013_pictures_and_its_own_class_order(tmp_path):
    rows = [[str((7 * row + place) % 256) for place in range(48 * 48)] for row in range(3)]
    lines = [
        f"{emotion},{' '.join(row)},{use}"
        for emotion, row, use in zip((0, 6, 3), rows, ("Training", "PublicTest", "PrivateTest"), strict=True)
    ]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]))
    import_table(reader("fer2013"), tmp_path, tmp_path / "t.parquet")
    table = FaceTable.open(tmp_path / "t.parquet")
    assert table.words("emotion").tolist() == ["anger", "neutral", "happiness"]
    assert table.words("split").tolist() == ["train", "val", "test"]
    assert table.classes("emotion", table.declared("emotion").vocabulary).tolist() == [0, 6, 3]
    assert [table.path(row) for row in range(3)] == [f"fer000000{row}.png" for row in range(3)]
    for row in range(3):
        picture = table.image(row)
        assert picture.shape == (48, 48, 3)
        assert picture[..., 1].ravel().tolist() == list(map(int, rows[row]))
    assert set(OLD_EMOTIONS) == set(EMOTIONS[:7])
    assert EMOTIONS[:7] != OLD_EMOTIONS


def test_fer2013_columns_in_another_order_and_bad_rows(tmp_path):
    good = " ".join(["9"] * 2304)
    lines = [
        "emotion, Usage, pixels",
        f"1,Training,{good}",
        f"7,Training,{good}",
        "1,Training,9 9",
        f"1,Training,256{good[1:]}",
        f"1,Private,{good}",
    ]
    (tmp_path / "fer2013.csv").write_text("\n".join(lines))
    found = read("fer2013", tmp_path)
    assert [face.labels["emotion"] for face in found if isinstance(face, Record)] == ["disgust"]
    assert [str(bad) for bad in found if isinstance(bad, Skipped)] == [
        "fer2013.csv:3: emotion is '7'; known: 0, 1, 2, 3, 4, 5, 6",
        "fer2013.csv:4: pixels holds 2 values, expected 2,304",
        "fer2013.csv:5: pixels holds something else than whole numbers from 0 to 255",
        "fer2013.csv:6: Usage is 'Private'; did you mean 'PrivateTest'?",
    ]
