"""Classification task: cross-entropy by hand, masks, mirrored poses, and answers in words."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from polyface import tasks
from polyface.data.crops import around_centre
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.schema import POSES, VOCABULARIES, Column
from polyface.tasks import Task, masked_sums, mean_of_terms

PLAIN = torch.eye(2, 3)[None]
MIRROR = around_centre(40, torch.tensor([20.0]), torch.ones(1), torch.zeros(1, 2), torch.tensor([True]))


def classify(column: str, **settings: object) -> Task:
    return tasks.build(column, {"kind": "classification", "column": column} | settings)


@pytest.fixture
def faces(tmp_path) -> FaceTable:
    picture = np.zeros((8, 8, 3), np.uint8)
    labels = [
        {"pose": "left", "modality": "photo"},
        {"pose": "right profile", "modality": "caricature"},
        {"modality": "photo"},
        {"pose": "frontal"},
    ]
    write_table([Record(picture, str(i), str(i), given) for i, given in enumerate(labels)], tmp_path / "t.parquet")
    return FaceTable.open(tmp_path / "t.parquet")


def test_cross_entropy_by_hand() -> None:
    """Logits ln 3 and 0: probabilities 3/4 and 1/4."""
    loss = classify("gender").loss(torch.tensor([[math.log(3), 0.0]] * 2), torch.tensor([0, 1]))
    assert loss.shape == (2, 1)
    assert loss[:, 0].tolist() == pytest.approx([math.log(4 / 3), math.log(4)])


def test_unlabelled_faces_have_exactly_no_gradient(faces) -> None:
    task = classify("pose")
    found = task.targets(faces)
    assert found.labelled[:, 0].tolist() == [True, True, False, True]
    assert found.values[found.labelled[:, 0]].tolist() == [1, 4, 2]
    logits = torch.randn(4, 5, requires_grad=True)
    mean_of_terms(*masked_sums(task.loss(logits, found.values), found.labelled)).backward()
    assert logits.grad is not None
    assert (logits.grad[2] == 0).all()
    assert (logits.grad[[0, 1, 3]].abs().sum(1) > 0).all()


def test_where_and_own_vocabulary_restrict_the_mask(faces) -> None:
    photos = classify("pose", where={"modality": "photo"}).targets(faces)
    assert photos.labelled[:, 0].tolist() == [True, False, False, False]
    sides = classify("pose", vocabulary=["left", "right profile"]).targets(faces)
    assert sides.labelled[:, 0].tolist() == [True, True, False, False]
    assert sides.values[:2].tolist() == [0, 1]


def test_where_on_an_unknown_column_names_its_neighbour(faces) -> None:
    with pytest.raises(PolyfaceError, match="'modalty'.*'modality'"):
        classify("pose", where={"modalty": "photo"}).targets(faces)


def test_where_on_a_column_of_numbers_is_an_error_in_one_line(faces) -> None:
    with pytest.raises(PolyfaceError, match="'age' holds numbers, of which '3' is no range"):
        classify("pose", where={"age": "3"}).targets(faces)


def test_mirrored_pose_is_the_opposite_one() -> None:
    classes = torch.arange(5)
    task = classify("pose")
    assert task.prepare(classes, PLAIN.expand(5, 2, 3), 40).tolist() == [0, 1, 2, 3, 4]
    mirrored = task.prepare(classes, MIRROR.expand(5, 2, 3), 40)
    assert mirrored.tolist() == [4, 3, 2, 1, 0]  # counted from 1, as MTFL does: c → 6 − c
    assert POSES[mirrored[0]] == "right profile"
    mixed = task.prepare(torch.tensor([0, 0]), torch.cat([PLAIN, MIRROR]), 40)
    assert mixed.tolist() == [0, 4]


@pytest.mark.parametrize("column", sorted(set(VOCABULARIES) - {"pose"}))
def test_a_mirror_changes_no_other_label(column: str) -> None:
    task = classify(column)
    classes = torch.arange(task.output_dim)
    assert torch.equal(task.prepare(classes, MIRROR.expand(len(classes), 2, 3), 40), classes)


def test_answers_are_the_vocabulary_words() -> None:
    task = classify("smile")
    answer = task.decode(torch.tensor([[0.0, 3.0], [math.log(9), 0.0]]), PLAIN.expand(2, 2, 3), 40)
    assert answer["label"] == ["yes", "no"]
    np.testing.assert_allclose(answer["probabilities"][1], [0.9, 0.1], rtol=1e-6)
    np.testing.assert_allclose(answer["probabilities"].sum(1), 1, rtol=1e-6)


def test_configuration_carries_the_vocabulary() -> None:
    task = classify("pose")
    assert task.config()["vocabulary"] == list(POSES)
    again = tasks.build("pose", task.config())
    assert again.config() == task.config()
    assert again.prepare(torch.tensor([0]), MIRROR, 40).tolist() == [4]


@pytest.mark.parametrize(
    "config, expected",
    [
        ({"kind": "clasification", "column": "pose"}, "tasks.x.kind.*'classification'"),
        ({"column": "pose"}, "tasks.x.kind"),
        ({"kind": "classification", "column": "pose", "vocabular": []}, "tasks.x.vocabular.*'vocabulary'"),
        ({"kind": "classification", "column": "identity"}, "'identity' has no vocabulary"),
        ({"kind": "landmarks", "points": "many"}, "tasks.x.points"),
    ],
)
def test_wrong_settings_are_named(config: dict[str, object], expected: str) -> None:
    with pytest.raises(PolyfaceError, match=expected) as caught:
        tasks.build("x", config)
    assert "\n" not in str(caught.value)


def test_a_column_that_the_training_table_lacks_is_named(faces) -> None:
    with pytest.raises(PolyfaceError, match="unknown column 'poze'.*'pose'"):
        classify("poze").learn(faces)


# ------------------------------------------------------------------------------------- what the training table says

OWN = {
    "mask": Column("words", ("no", "yes", "unsure")),
    "mood": Column("distribution", ("sad", "calm", "happy")),
    "gaze": Column("words", ("l", "c", "r"), mirror=(2, 1, 0)),
    "turn": Column("number", mirror="negate"),
    "note": Column("words"),
    "hair": Column("number", mirror="none"),
    "hand": Column("words", ("left", "right"), mirror="none"),
}


def own(folder, *labels: dict[str, object], name: str = "own.parquet") -> FaceTable:
    picture = np.zeros((8, 8, 3), np.uint8)
    write_table([Record(picture, str(i), str(i), given) for i, given in enumerate(labels)], folder / name, columns=OWN)
    return FaceTable.open(folder / name)


def rebuilt(task: Task) -> Task:
    """From what a bundle keeps: the table is not there."""
    return tasks.build(task.name, task.config())


def test_the_vocabulary_is_the_tables(tmp_path) -> None:
    table = own(tmp_path, {"mask": "yes"}, {"mask": "no"}, {})
    task = classify("mask")
    assert task.output_dim == 0
    task.learn(table)
    assert task.vocabulary == ["no", "yes", "unsure"]
    assert rebuilt(task).vocabulary == task.vocabulary
    found = rebuilt(task).targets(table)
    assert found.values.tolist() == [1, 0, 0]
    assert found.labelled[:, 0].tolist() == [True, True, False]
    assert not task.targets(own(tmp_path, {"note": "x"}, name="b.parquet")).labelled.any()


def test_the_specs_vocabulary_goes_before_it(tmp_path) -> None:
    table = own(tmp_path, {"mask": "yes"}, {"mask": "unsure"})
    task = classify("mask", vocabulary=["yes", "no"])
    task.learn(table)
    assert task.targets(table).labelled[:, 0].tolist() == [True, False]
    with pytest.raises(PolyfaceError, match="tasks.mask.vocabulary: .* no word 'yse'; did you mean 'yes'"):
        classify("mask", vocabulary=["no", "yse"]).learn(table)


def test_a_built_in_columns_vocabulary_may_be_the_tables_own(tmp_path) -> None:
    own = {"age_group": Column("words", ("0-2", "4-6")), "pose": Column("words", ("c1", "c2", "c3"), mirror=(2, 1, 0))}
    faces = [Record(np.zeros((8, 8, 3), np.uint8), "0", "0", {"age_group": "4-6", "pose": "c1"})]
    write_table(faces, tmp_path / "t.parquet", columns=own)
    table = FaceTable.open(tmp_path / "t.parquet")
    groups, poses = classify("age_group"), classify("pose")
    groups.learn(table)
    poses.learn(table)
    assert groups.vocabulary == rebuilt(groups).vocabulary == ["0-2", "4-6"]
    for task in (poses, rebuilt(poses)):
        assert task.prepare(torch.tensor([0, 1]), MIRROR.expand(2, 2, 3), 40).tolist() == [2, 1]
        assert task.declares() == own["pose"]
    assert classify("pose").declares() is None
    with pytest.raises(PolyfaceError, match="column 'pose' has no word 'left'"):
        classify("pose", vocabulary=["left", "right"]).learn(table)


@pytest.mark.parametrize(
    "column, settings, expected",
    [
        ("note", {}, "'note' has no vocabulary of its own"),
        ("maks", {}, "unknown column 'maks'.*'mask'"),
        ("turn", {}, "'turn' is number.*cut it by edges"),
        ("mask", {"edges": [0], "vocabulary": ["a", "b"]}, "leave edges out"),
        ("mood", {"vocabulary": ["sad", "happy"]}, "has shares of sad, calm, happy; name them all"),
        ("mask", {"weights": "balanced"}, "no training face is 'unsure'"),
        ("mask", {"weights": {"yse": 2}}, "tasks.mask.weights names 'yse'; did you mean 'yes'"),
        ("mask", {"weights": {"yes": -1}}, "weights.yes is -1"),
        ("age", {"edges": [30]}, "1 edges make 2 classes, and vocabulary names 0"),
        ("age", {"edges": [30, 20], "vocabulary": ["a", "b", "c"]}, "edges must rise"),
        ("age", {"edges": [30], "vocabulary": ["a", "a"]}, "names a word twice"),
        ("box", {}, "'box' is box; classes come from"),
        ("gaze", {"mirror": {"x": "y"}}, "tasks.gaze.mirror names 'x'"),
        ("gaze", {"mirror": "negate"}, "tasks.gaze.mirror is negate: words change places"),
        ("age", {"mirror": {"a": "b"}, "edges": [3], "vocabulary": ["a", "b"]}, "numbers cut by edges are negated"),
    ],
)
def test_settings_that_do_not_go_with_the_column(tmp_path, column, settings, expected) -> None:
    labels = {"mask": "yes", "note": "x", "turn": 3.0, "mood": [1, 0, 0], "gaze": "l"}
    table = own(tmp_path, labels, {"mask": "no"})
    with pytest.raises(PolyfaceError, match=expected) as caught:
        classify(column, **settings).learn(table)
    assert "\n" not in str(caught.value)


def test_a_declared_mirror_renames_classes(tmp_path) -> None:
    task = classify("gaze")
    task.learn(own(tmp_path, {"gaze": "l"}))
    for one in (task, rebuilt(task)):
        assert one.prepare(torch.tensor([0, 1, 2]), MIRROR.expand(3, 2, 3), 40).tolist() == [2, 1, 0]
        read = one.read(torch.tensor([[3.0, 2.0, 1.0]]), MIRROR, 40)["probabilities"]
        np.testing.assert_allclose(read, torch.tensor([[1.0, 2.0, 3.0]]).softmax(-1).numpy())
    still = classify("gaze", mirror="none")
    still.learn(own(tmp_path, {"gaze": "l"}))
    assert still.prepare(torch.tensor([0, 2]), MIRROR.expand(2, 2, 3), 40).tolist() == [0, 2]
    table = own(tmp_path, {"hand": "left", "hair": 3.0})
    hand, hair = classify("hand"), classify("hair", edges=[2], vocabulary=["short", "long"])
    for task, value in ((hand, 0), (hair, 3.0)):  # what is declared to stay does, in the bundle too
        task.learn(table)
        for one in (task, rebuilt(task)):
            assert one.prepare(torch.tensor([value]), MIRROR, 40).tolist() == [int(task is hair)]
    by_hand = classify("gaze", vocabulary=["l", "c", "r"], mirror={"l": "c"})
    assert by_hand.prepare(torch.tensor([0, 1, 2]), MIRROR.expand(3, 2, 3), 40).tolist() == [1, 0, 2]


# ------------------------------------------------------------------------------------------------------- soft labels


def test_soft_cross_entropy_by_hand(tmp_path) -> None:
    """Probabilities 1/2, 1/4, 1/4 and shares 1/2, 1/2, 0: ½ ln 2 + ½ ln 4 = 1.5 ln 2."""
    table = own(tmp_path, {"mood": [1, 1, 0]}, {}, {"mood": [0, 0, 1]}, {"mood": [5, 3, 2]})
    task = classify("mood")
    task.learn(table)
    found = task.targets(table)
    assert found.labelled[:, 0].tolist() == [True, False, True, True]
    assert found.values[1].tolist() == [0, 0, 0]
    logits = torch.tensor([[math.log(2), 0.0, 0.0]] * 4, requires_grad=True)
    loss = task.loss(logits, found.values)
    assert loss.shape == (4, 1)
    assert loss[[0, 2], 0].tolist() == pytest.approx([1.5 * math.log(2), 2 * math.log(2)])
    mean_of_terms(*masked_sums(loss, found.labelled)).backward()
    assert (logits.grad[1] == 0).all()  # type: ignore[index]
    assert task.classes(table).tolist() == [-1, -1, 2, 0]  # a tie names no class
    hard = classify("mask", vocabulary=["no", "yes", "unsure"])
    torch.testing.assert_close(task.loss(logits[:3], torch.eye(3)), hard.loss(logits[:3], torch.arange(3)))


def test_mirrored_soft_labels_change_words(tmp_path) -> None:
    task = classify("mood", mirror={"sad": "happy"})
    task.learn(own(tmp_path, {"mood": [5, 3, 2]}))
    shares = torch.tensor([[0.5, 0.3, 0.2]] * 2)
    both = task.prepare(shares, torch.cat([PLAIN, MIRROR]), 40)
    torch.testing.assert_close(both, torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]))


def test_soft_labels_follow_the_specs_order(tmp_path) -> None:
    table = own(tmp_path, {"mood": [5, 3, 2]})
    task = classify("mood", vocabulary=["happy", "sad", "calm"])
    task.learn(table)
    torch.testing.assert_close(task.targets(table).values, torch.tensor([[0.2, 0.5, 0.3]]))
    assert task.classes(table).tolist() == [1]
    answer = task.decode(torch.zeros(1, 3), PLAIN, 40)
    np.testing.assert_allclose(task.labels(answer)[0], [1 / 3] * 3, rtol=1e-6)


# ---------------------------------------------------------------------------------------------- weights and smoothing


def test_balanced_weights_by_hand(tmp_path) -> None:
    """Six faces: three no, two yes, one unsure. N / (K n) = 6/9, 6/6, 6/3."""
    table = own(tmp_path, *({"mask": word} for word in ["no"] * 3 + ["yes"] * 2 + ["unsure"]), {})
    task = classify("mask", weights="balanced")
    task.learn(table)
    assert task.weights == pytest.approx({"no": 2 / 3, "yes": 1, "unsure": 2})
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    plain = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    for one in (task, rebuilt(task)):
        torch.testing.assert_close(one.loss(logits, target)[:, 0], plain * torch.tensor([2 / 3, 1, 2, 2 / 3]))
    found = task.targets(table)
    uniform = task.loss(torch.zeros(7, 3), found.values)
    assert mean_of_terms(*masked_sums(uniform, found.labelled)).item() == pytest.approx(math.log(3))


def test_balanced_weights_of_shares_and_of_cut_numbers(tmp_path) -> None:
    table = own(
        tmp_path, {"mood": [1, 1, 0], "turn": -5.0}, {"mood": [1, 0, 1], "turn": 3.0}, {"turn": 4.0}, {"turn": 5.0}
    )
    moods = classify("mood", weights="balanced")
    moods.learn(table)
    assert moods.weights == pytest.approx({"sad": 2 / 3, "calm": 4 / 3, "happy": 4 / 3})
    turns = classify("turn", edges=[0], vocabulary=["a", "b"], weights="balanced")
    turns.learn(table)
    assert turns.weights == pytest.approx({"a": 2, "b": 2 / 3})


def test_only_faces_that_where_keeps_are_balanced(tmp_path) -> None:
    labels = [{"mask": "no", "smile": "yes"}, {"mask": "yes", "smile": "yes"}, {"mask": "no", "smile": "no"}]
    task = classify("mask", weights="balanced", vocabulary=["no", "yes"], where={"smile": "yes"})
    task.learn(own(tmp_path, *labels))
    assert task.weights == {"no": 1, "yes": 1}


@pytest.mark.parametrize("weights", [None, {"yes": 3.0}])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_torchs(weights, smoothing) -> None:
    task = classify("smile", weights=weights, smoothing=smoothing)
    logits, hard, soft = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1]), torch.rand(5, 2).softmax(-1)
    weight = torch.tensor([1.0, 3.0]) if weights else None
    for target in (hard, soft):
        oracle = torch.nn.functional.cross_entropy(logits, target, weight, reduction="none", label_smoothing=smoothing)
        assert torch.equal(task.loss(logits, target)[:, 0], oracle)


def test_smoothing_by_hand() -> None:
    """ε = 0.2 of two classes: 0.9 of the label's own, 0.1 of the other; probabilities 3/4 and 1/4."""
    loss = classify("smile", smoothing=0.2).loss(torch.tensor([[math.log(3), 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4))


# ---------------------------------------------------------------------------------------------- classes cut by edges

POSE3 = {"edges": [-12, 12], "vocabulary": ["left", "frontal", "right"]}


def test_numbers_are_cut_at_edges(tmp_path) -> None:
    values = [-90.0, -12.5, -12.0, -11.5, 0.0, 11.5, 12.0, 12.5, 90.0, None]
    table = own(tmp_path, *({"yaw": value} for value in values))
    task = classify("yaw", **POSE3)
    task.learn(table)
    assert task.classes(table).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, -1]
    found = task.targets(table)
    count = len(values)
    assert task.prepare(found.values, PLAIN.expand(count, 2, 3), 40)[:-1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert task.prepare(found.values, MIRROR.expand(count, 2, 3), 40)[:-1].tolist() == [2, 2, 2, 1, 1, 1, 0, 0, 0]
    ages = classify("age", edges=[18, 65], vocabulary=["child", "adult", "old"])
    years = own(tmp_path, *({"age": value} for value in (17.5, 18, 64.5, 65)))
    assert ages.classes(years).tolist() == [0, 1, 1, 2]


def test_a_mirror_negates_the_number_before_it_is_cut(tmp_path) -> None:
    task = classify("yaw", edges=[-30, 10], vocabulary=["a", "b", "c"])
    assert task.prepare(torch.tensor([20.0, 40.0]), MIRROR.expand(2, 2, 3), 40).tolist() == [1, 0]  # -20, -40
    with pytest.raises(PolyfaceError, match="tasks.yaw: mirrored answers need edges that are symmetric"):
        task.read(torch.zeros(1, 3), MIRROR, 40)
    ages = classify("age", edges=[30], vocabulary=["a", "b"])
    assert ages.prepare(torch.tensor([40.0]), MIRROR, 40).tolist() == [1]  # nobody's age is turned round


def test_mirrored_answers_of_cut_numbers_turn_round(tmp_path) -> None:
    turns = classify("turn", **POSE3)
    turns.learn(own(tmp_path, {"turn": 3.0}))
    for task in (classify("yaw", **POSE3), turns, rebuilt(turns)):
        read = task.read(torch.tensor([[3.0, 2.0, 1.0]] * 2), torch.cat([PLAIN, MIRROR]), 40)["probabilities"]
        np.testing.assert_allclose(read[1], read[0][::-1], rtol=1e-6)
        assert task.labels(task.conclude({"probabilities": read})) == [None, None]  # a class is no number


# ---------------------------------------------------------------------------------------------------- evaluation


def answered(classes: list[int], of: int) -> dict[str, np.ndarray]:
    return {"probabilities": np.eye(of, dtype=np.float32)[classes]}


def test_answers_are_evaluated_by_the_class_that_a_label_names(tmp_path) -> None:
    """Numbers by the class that they are cut into, soft labels by their largest share; what names none is left out."""
    picture = np.zeros((8, 8, 3), np.uint8)
    shares = [[0.7, 0.3], [0.5, 0.5], [0.2, 0.8], None]
    records = [
        Record(picture, str(i), str(i), {"yaw": yaw, "mood": mood})
        for i, (yaw, mood) in enumerate(zip((-20, 0, 30, None), shares, strict=True))
    ]
    mood = Column("distribution", ("calm", "angry"))
    write_table(records, tmp_path / "t.parquet", columns={"mood": mood})
    table = FaceTable.open(tmp_path / "t.parquet")
    side = classify("yaw", edges=[-12, 12], vocabulary=["left", "frontal", "right"])
    result = side.evaluate(answered([0, 1, 1, 2], 3), table)
    assert result.figure(result.metrics[0]) == pytest.approx(200 / 3)
    assert (result.metrics[0].n, result.defined(result.metrics[0]).tolist()) == (3, [True, True, True, False])
    asked = classify("mood")
    asked.learn(table)
    result = asked.evaluate(answered([0, 0, 1, 1], 2), table)
    assert result.defined(result.metrics[0]).tolist() == [True, False, True, False]
    assert result.figure(result.metrics[0]) == 100
