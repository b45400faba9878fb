"""Attributes task: losses by hand, masks down to the gradient, thresholds, order, and where answers appear."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface import networks, tasks
from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec, around_centre
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.inference import Analyzer, to_json_lines, to_parquet
from polyface.models.bundle import Bundle, load_bundle
from polyface.models.predict import TTA, answers, translations
from polyface.schema import ATTRIBUTES
from polyface.tasks import masked_sums, mean_of_terms
from polyface.tasks.attributes import AttributesTask

NAN = math.nan
THREE = ["Bald", "Male", "Young"]  # in the data set's order
PLAIN = torch.eye(2, 3)[None]
MIRROR = around_centre(40, torch.tensor([20.0]), torch.ones(1), torch.zeros(1, 2), torch.tensor([True]))
Tables = Callable[..., FaceTable]


def attributes(names: Sequence[str] | None = None, name: str = "attributes", **settings: object) -> AttributesTask:
    chosen = {} if names is None else {"attributes": list(names)}
    task = tasks.build(name, {"kind": "attributes"} | chosen | settings)
    assert isinstance(task, AttributesTask)
    return task


def labels(**known: int | None) -> list[int | None]:
    """All 40 labels: those named, the others −1."""
    return [known.get(name.lower(), -1) for name in ATTRIBUTES]


@pytest.fixture
def table(tmp_path: Path) -> Tables:
    """``table({...}, {...})``: a face table with one grey face for each dict of labels."""

    def make(*given: dict[str, object]) -> FaceTable:
        picture = np.full((8, 8, 3), 128, np.uint8)
        write_table([Record(picture, str(i), f"{i}.png", one) for i, one in enumerate(given)], tmp_path / "t.parquet")
        return FaceTable.open(tmp_path / "t.parquet")

    return make


# ---------------------------------------------------------------------------------------------------------- losses


def test_squared_error_to_plus_and_minus_one_by_hand() -> None:
    loss = attributes(THREE).loss(torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[1.0, -1.0, -1.0]]))
    assert loss.tolist() == [[0.25, 0.0, 9.0]]


def test_cross_entropy_on_logits_by_hand() -> None:
    """Logit ln 3: probability 3/4."""
    output = torch.tensor([[0.0, math.log(3), math.log(3)]])
    loss = attributes(THREE, loss="bce").loss(output, torch.tensor([[1.0, 1.0, -1.0]]))
    assert loss[0].tolist() == pytest.approx([math.log(2), math.log(4 / 3), math.log(4)])


@pytest.mark.parametrize("kind", ["mse", "bce"])
@given(seed=st.integers(0, 2**31), faces=st.integers(1, 8))
def test_unknown_labels_have_exactly_no_influence(kind: str, seed: int, faces: int) -> None:
    """Each attribute's term is the mean over its own labelled faces; elsewhere the gradient is 0, not merely small."""
    random = torch.Generator().manual_seed(seed)
    task = attributes(THREE, loss=kind)
    output = (3 * torch.randn(faces, 3, generator=random)).requires_grad_()
    truth = torch.randint(0, 2, (faces, 3), generator=random) * 2.0 - 1
    labelled = torch.rand(faces, 3, generator=random) < 0.6
    each = task.loss(output, truth.masked_fill(~labelled, NAN))
    assert each.isfinite().all()
    loss = mean_of_terms(*masked_sums(each, labelled))
    expected = 0.0
    for k in range(3):
        for o, y in zip(output[labelled[:, k], k].tolist(), truth[labelled[:, k], k].tolist(), strict=True):
            one = (o - y) ** 2 if kind == "mse" else math.log1p(math.exp(-y * o))
            expected += one / int(labelled[:, k].sum())
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    loss.backward()
    assert output.grad is not None
    assert (output.grad[~labelled] == 0).all()
    assert (output.grad[labelled] != 0).all()


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_an_endless_output_where_nothing_is_known_leaves_no_nan(kind: str) -> None:
    output = torch.tensor([[math.inf, 0.5, -math.inf]], requires_grad=True)
    attributes(THREE, loss=kind).loss(output, torch.tensor([[NAN, 1.0, NAN]])).sum().backward()
    assert output.grad is not None
    assert output.grad[0, [0, 2]].tolist() == [0, 0]
    assert output.grad[0, 1] != 0


# --------------------------------------------------------------------------------------------------------- targets


def test_targets_mask_every_attribute_by_itself(table: Tables) -> None:
    faces = table(
        {"attributes": labels(bald=1), "gender": "male"},
        {"attributes": labels(male=None, young=1), "gender": "male"},
        {"gender": "male"},
        {"attributes": labels(male=1), "gender": "female"},
    )
    found = attributes(THREE).targets(faces)
    np.testing.assert_array_equal(found.values, [[1, -1, -1], [-1, NAN, 1], [NAN] * 3, [-1, 1, -1]])
    assert found.labelled.tolist() == [[True] * 3, [True, False, True], [False] * 3, [True] * 3]
    men = attributes(THREE, where={"gender": "male"}).targets(faces)
    assert men.labelled.tolist() == [[True] * 3, [True, False, True], [False] * 3, [False] * 3]
    every = attributes().targets(faces)
    assert every.values.shape == (4, 40)
    assert every.values[0, ATTRIBUTES.index("Bald")] == 1
    assert every.labelled.sum().item() == 40 + 39 + 40


def test_a_table_without_attributes_labels_nobody(table: Tables) -> None:
    assert not attributes().targets(table({"gender": "male"}, {})).labelled.any()


def test_a_value_other_than_one_and_minus_one_is_named(table: Tables, tmp_path: Path) -> None:
    """As a table made elsewhere may have it: 0 for "no"."""
    table({"attributes": labels()}, {"attributes": labels(male=1)})
    whole = pq.read_table(tmp_path / "t.parquet")
    zeros = [labels(), [0 if name == "Male" else 1 for name in ATTRIBUTES]]
    column = pa.array(zeros, whole.schema.field("attributes").type)
    place = whole.column_names.index("attributes")
    pq.write_table(whole.set_column(place, whole.schema.field(place), column), tmp_path / "odd.parquet")
    faces = FaceTable.open(tmp_path / "odd.parquet")
    with pytest.raises(PolyfaceError, match=r"row 1 \(1.png\) has 0 for Male; expected -1, 1 or null"):
        attributes().targets(faces)
    assert attributes(["Young"]).targets(faces).labelled.all()


def test_a_mirror_changes_nothing() -> None:
    """None of the 40 is about a side, so neither labels, masks nor answers move."""
    assert not [name for name in ATTRIBUTES if {"left", "right"} & set(name.lower().split("_"))]
    task = attributes(THREE)
    values, mask = torch.tensor([[1.0, -1.0, NAN]]), torch.tensor([[True, True, False]])
    np.testing.assert_array_equal(task.prepare(values, MIRROR, 40), values)
    assert torch.equal(task.visible(mask, MIRROR), mask)
    output = torch.tensor([[0.5, -0.5, 0.1]])
    assert task.decode(output, MIRROR, 40)["attributes"] == task.decode(output, PLAIN, 40)["attributes"]


# ------------------------------------------------------------------------------------------------ thresholds, order


def test_terms_and_outputs_are_the_data_sets_forty_in_its_order() -> None:
    task = attributes(name="face")
    assert (task.output_dim, len(task.terms)) == (40, 40)
    assert task.terms[:2] == ["face/5_o_Clock_Shadow", "face/Arched_Eyebrows"]
    assert task.vocabulary == list(ATTRIBUTES)
    assert task.thresholds == [0.0] * 40


@given(st.permutations(list(zip(["Bald", "Eyeglasses", "Male", "Young"], [0.1, -0.2, 0.3, 0.0], strict=True))))
def test_however_attributes_are_listed_outputs_are_in_the_data_sets_order(listed: list[tuple[str, float]]) -> None:
    """Thresholds go with their attributes, so the same output says the same."""
    task = attributes([name for name, _ in listed], thresholds=[tau for _, tau in listed])
    assert task.vocabulary == ["Bald", "Eyeglasses", "Male", "Young"]
    assert task.terms == [f"attributes/{name}" for name in task.vocabulary]
    assert task.thresholds == [0.1, -0.2, 0.3, 0.0]
    answer = task.decode(torch.tensor([[0.05, -0.1, 0.31, 0.0]]), PLAIN, 40)
    assert answer["attributes"] == [["Eyeglasses", "Male"]]


def test_only_an_output_above_the_threshold_is_positive() -> None:
    task = attributes(THREE, thresholds=[0.5, 0.0, -1.0])
    answer = task.decode(torch.tensor([[0.5, 0.0, -1.0], [0.51, 0.01, -0.99]]), PLAIN.expand(2, 2, 3), 40)
    assert answer["positive"].tolist() == [[False] * 3, [True] * 3]
    assert answer["positive"].dtype == bool
    assert answer["attributes"] == [[], THREE]
    assert answer["scores"].dtype == np.float32
    np.testing.assert_array_equal(answer["scores"], np.float32([[0.5, 0, -1], [0.51, 0.01, -0.99]]))


def test_threshold_zero_on_a_logit_is_probability_one_half() -> None:
    output = torch.linspace(-3, 3, 12).reshape(4, 3)
    assert torch.equal(attributes(THREE, loss="bce").positive(output), output.sigmoid() > 0.5)


@given(st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3), st.floats(0, 2, width=32), st.integers(0, 2**31))
def test_a_higher_threshold_never_adds_a_positive(taus: list[float], more: float, seed: int) -> None:
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
    task = attributes(THREE, thresholds=taus)
    before = task.positive(scores)
    assert before.tolist() == [[s > tau for s, tau in zip(row, taus, strict=True)] for row in scores.tolist()]
    task.thresholds = [taus[0] + more, *taus[1:]]
    after = task.positive(scores)
    assert not (after & ~before).any()
    assert torch.equal(after[:, 1:], before[:, 1:])


@given(st.integers(0, 2**31), st.integers(0, 9))
def test_mistakes_are_counted_over_labelled_faces(seed: int, faces: int) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(faces, 3, generator=random)
    truth = torch.randint(0, 2, (faces, 3), generator=random) * 2.0 - 1
    labelled = torch.rand(faces, 3, generator=random) < 0.7
    taus = [0.3, 0.0, -0.4]
    above, below = attributes(THREE, thresholds=taus).mistakes(scores, truth.masked_fill(~labelled, NAN), labelled)
    for k, tau in enumerate(taus):
        judged = [(scores[i, k].item() > tau, truth[i, k].item() > 0) for i in range(faces) if labelled[i, k]]
        assert above[k] == sum(said and not so for said, so in judged)
        assert below[k] == sum(so and not said for said, so in judged)


def test_configuration_rebuilds_the_task_with_its_thresholds() -> None:
    task = attributes(THREE, loss="bce", where={"modality": "photo"})
    task.thresholds = [0.25, -0.5, 1 / 3]
    again = tasks.build("attributes", json.loads(json.dumps(task.config())))
    assert again.config() == task.config()
    assert again.config()["thresholds"] == [0.25, -0.5, 1 / 3]
    assert again.terms == task.terms
    assert again.config()["loss"] == "bce"


def test_tasks_of_one_configuration_do_not_share_thresholds() -> None:
    config = {"kind": "attributes", "attributes": THREE, "thresholds": [0.1, 0.2, 0.3]}
    first, second = tasks.build("a", config), tasks.build("a", config)
    assert isinstance(first, AttributesTask)
    first.thresholds = [1.0, 1.0, 1.0]
    first.thresholds.append(7.0)  # a copy: changes nothing
    assert first.thresholds == [1.0, 1.0, 1.0]
    assert second.config()["thresholds"] == config["thresholds"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"attributes": ["Bold"]}, "tasks.x.attributes.*'Bold'.*'Bald'"),
        ({"attributes": ["Bald", "Bald"]}, "each once"),
        ({"attributes": []}, "at least one attribute"),
        ({"attributes": "Bald"}, "tasks.x.attributes"),
        ({"loss": "hinge"}, "tasks.x.loss"),
        ({"thresholds": [0.5]}, "tasks.x.thresholds must be 40 finite numbers.*not 1"),
        ({"attributes": ["Bald"], "thresholds": [NAN]}, "tasks.x.thresholds.*finite number"),
        ({"threshold": 0.5}, "tasks.x.threshold.*'thresholds'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(PolyfaceError, match=expected) as caught:
        tasks.build("x", {"kind": "attributes"} | settings)
    assert "\n" not in str(caught.value)


def test_wrong_thresholds_are_refused_and_change_nothing() -> None:
    task = attributes(THREE, thresholds=[0.1, 0.2, 0.3])
    for wrong in ([0.0], [0.0, 0.0, math.inf]):
        with pytest.raises(PolyfaceError, match="3 finite numbers"):
            task.thresholds = wrong
    assert task.thresholds == [0.1, 0.2, 0.3]


# --------------------------------------------------------------------------------------------- where answers appear


SPEC = CropSpec(size=40, channels=1)


def bundle(task: AttributesTask, name: str = "toy", bias: Sequence[float] | None = None) -> Bundle:
    """A random small network; with a bias it answers just that, whatever it sees."""
    torch.manual_seed(0)
    network = networks.build({"trunk": {"name": "tcdcn"}, "heads": {task.name: task.output_dim}})
    head = network.heads[task.name]
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        if bias is not None:
            head.weight.zero_()
            head.bias.copy_(torch.tensor(bias))
    return Bundle(network.eval(), {task.name: task}, SPEC, BoxSpec(), {"name": name})


def test_thresholds_travel_in_the_bundle(tmp_path: Path) -> None:
    """Eq. 5 is used wherever the model goes: 0.2 is positive above 0.1, and not above 0.3."""
    task = attributes(THREE)
    made = bundle(task, bias=[0.2, 0.2, 0.2])
    task.thresholds = [0.1, 0.2, 0.3]
    again = load_bundle(made.save(tmp_path / "model"), quiet=True)
    assert again.tasks["attributes"].config()["thresholds"] == [0.1, 0.2, 0.3]
    (found,) = Analyzer(again)(np.zeros((60, 60, 3), np.uint8), [10, 10, 50, 50])
    assert found.faces[0].attributes == {"attributes": ("Bald",)}


def test_averaged_answers_are_those_of_the_mean_score() -> None:
    task = attributes(THREE)
    made = bundle(task)
    random = np.random.default_rng(0)
    cuts = torch.from_numpy(random.integers(0, 256, (6, 1, SPEC.cut_size, SPEC.cut_size), dtype=np.uint8))
    crops = PLAIN.expand(6, 2, 3)

    def scores(average: int) -> np.ndarray:
        found = answers(made.network, made.tasks, cuts, crops, SPEC, TTA(average, 0.2))["attributes"]
        assert found["positive"].dtype == bool
        np.testing.assert_array_equal(found["positive"], found["scores"] > np.float32(task.thresholds))
        names = [[n for n, has in zip(THREE, row, strict=True) if has] for row in found["positive"]]
        assert found["attributes"] == names
        return np.asarray(found["scores"])

    task.thresholds = np.median(scores(5), axis=0).tolist()
    plain, averaged = scores(1), scores(5)
    assert (averaged > np.float32(task.thresholds)).any()
    assert np.abs(plain - averaged).max() > 1e-6
    assert len(translations(5, 0.2, 40)) == 5
    still = answers(made.network, made.tasks, cuts, crops, SPEC, TTA(5, 0.0))["attributes"]["scores"]
    np.testing.assert_allclose(still, plain, atol=1e-5)


def test_an_analysis_names_what_a_face_has(tmp_path: Path) -> None:
    made = bundle(attributes(THREE, name="traits", thresholds=[0.0, 0.5, 0.0]), bias=[0.12346, 0.4, 0.75])
    results = Analyzer(made)([np.zeros((60, 60, 3), np.uint8)], [[[10, 10, 50, 50], [0, 0, 30, 30]]])
    face = results[0].faces[0]
    assert face.attributes == {"traits": ("Bald", "Young")}
    assert face.scores["traits"] == pytest.approx({"Bald": 0.12346, "Male": 0.4, "Young": 0.75}, abs=1e-6)
    assert face.other == {}
    (line,) = to_json_lines(results).splitlines()
    told = json.loads(line)["faces"][1]
    assert told["attributes"] == {"traits": ["Bald", "Young"]}
    assert told["scores"] == {"traits": {"Bald": 0.1235, "Male": 0.4, "Young": 0.75}}
    assert results[0].table()[0]["traits"] == "Bald, Young"
    assert to_parquet(results, tmp_path / "faces.parquet") == 2
    stored = pq.read_table(tmp_path / "faces.parquet")
    assert stored.column_names[-2:] == ["traits", "traits_scores"]
    assert stored.column("traits").to_pylist() == [["Bald", "Young"]] * 2
    assert stored.column("traits_scores").to_pylist()[0] == pytest.approx(face.scores["traits"])


def test_a_face_that_has_nothing_says_so(tmp_path: Path) -> None:
    made = bundle(attributes(THREE), bias=[-1.0, -1.0, -1.0])
    results = Analyzer(made)([np.zeros((60, 60, 3), np.uint8)], [[[10, 10, 50, 50]]])
    assert results[0].faces[0].attributes == {"attributes": ()}
    assert results[0].table()[0]["attributes"] == "none"
    assert json.loads(to_json_lines(results))["faces"][0]["attributes"] == {"attributes": []}
    to_parquet(results, tmp_path / "faces.parquet")
    assert pq.read_table(tmp_path / "faces.parquet").column("attributes").to_pylist() == [[]]
