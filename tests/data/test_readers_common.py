"""What readers share: the people of two data sets, and parts by whole people."""

from __future__ import annotations

from polyface.data.readers.common import shared_people, with_val


def test_people_of_two_data_sets_are_compared_by_one_spelling_and_told_as_the_first_has_them() -> None:
    ours = ["George W. Bush", "Robert Downey Jr", None, "Ann Low", "Johny_Depp", "johnny depp", "Ann Low"]
    theirs = ["George_Bush", "robert_downey_junior", "Johnny_Depp", None, "Bob"]
    assert shared_people(ours, theirs) == ["George W. Bush", "Johny_Depp", "Robert Downey Jr", "johnny depp"]
    assert shared_people(theirs, ours) == ["George_Bush", "Johnny_Depp", "robert_downey_junior"]
    assert shared_people(ours, []) == []


def test_val_is_cut_from_those_to_train_on_who_are_here() -> None:
    parts = {name: "train" for name in "abcdefghij"} | {"x": "test", "gone": "train"}
    sizes = dict.fromkeys("abcdefghijx", 2)
    found = with_val(parts, sizes)
    assert found.keys() == sizes.keys()
    assert found["x"] == "test"
    assert sorted(found.values()).count("val") == 1  # two faces of twenty
