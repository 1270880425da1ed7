"""What rows prove of the lines of a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from forwardpass import Model, Rows
from forwardpass.errors import LoadError, UsageError
from forwardpass.loading.label_decoders import OneLabel
from forwardpass.nouns.budgets import Keep, budget
from forwardpass.nouns.tunings import Evidence
from forwardpass.tuning.functions import identities, require_answerable
from forwardpass.tuning.judging import judge, require_kept_by_baseline
from forwardpass.tuning.labels import Labels, labels_of

VECTORS = np.random.default_rng(0).normal(size=(700, 16)).astype(np.float32)
NOISE = np.random.default_rng(1).normal(size=(700, 16)).astype(np.float32)
OWN = Path(__file__).with_name("own_metrics.py")
MODEL = Model(nn.Linear(16, 16), "x: f32[batch 16]")
TRUTHS = VECTORS.argmax(1)


def judged(line: Any, came: Any, baseline: Any = VECTORS, labels: Any = None) -> Evidence:
    (one,) = judge(budget(line), {"x": baseline}, {"x": came}, labels)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Evidence) == one
    return one


def classes(values: Any = TRUTHS, model: Model = MODEL) -> Labels:
    return labels_of(Rows({"class": values}, np.arange(len(values))), "class", model)


# -- what is proved --------------------------------------------------------------------------------


def test_what_equals_the_baseline_is_kept_where_the_rows_suffice() -> None:
    lines = ["cosine.mean >= 0.995", "flips <= 0.5%", "overlap10 >= 99%", "cosine.min >= 1"]
    found = judge(budget(lines), {"x": VECTORS}, {"x": VECTORS})
    assert [one.holds for one in found] == ["kept"] * 4
    assert [one.keep for one in found] == lines


def test_no_flip_of_n_proves_about_three_of_n() -> None:
    one = judged("flips <= 0.5%", VECTORS[:300], VECTORS[:300])
    assert one.value == 0
    assert one.bound == pytest.approx(3 / 300, rel=0.01)
    assert (one.holds, one.needed) == ("unproved", 600)
    assert one.why == (
        "0 over 300 rows, at most 0.0099361 with 95 % confidence; ≤ 0.005 is asked; "
        "about 600 rows would prove it"
    )


def test_the_bound_decides_and_not_the_value() -> None:
    came = VECTORS + 0.09 * NOISE
    value = judged("cosine >= 0", came).value
    lines = [f"cosine >= {value - gap}" for gap in (1e-3, 1e-5, -1e-5, -1e-3)]
    found = [judged(line, came) for line in lines]
    assert [one.holds for one in found] == ["kept", "unproved", "unproved", "broken"]
    assert found[1].needed is not None
    assert found[1].needed > 700
    assert found[2].needed is None
    assert found[2].why.endswith("would prove it: what was seen is beyond the limit itself")
    assert "at most" in found[3].why


def test_so_many_rows_would_indeed_prove_it() -> None:
    random = np.random.default_rng(2)
    ours = random.normal(size=(40_000, 16))
    its = ours + 0.09 * random.normal(size=(40_000, 16))
    few = judged("cosine >= 0.996", its[:100], ours[:100])
    limit = few.value - (few.value - (few.bound or 0)) / 3
    one = judged(f"cosine >= {limit}", its[:100], ours[:100])
    assert one.needed is not None
    assert 600 <= one.needed <= 1200, "nine times as many"


def test_a_minimum_is_reported_and_proves_nothing() -> None:
    one = judged("cosine.min >= 0.9", VECTORS + 0.01 * NOISE)
    assert (one.holds, one.bound) == ("kept", None)
    assert one.why.endswith("that was seen, and proves nothing of other rows")
    assert judged("max_error <= 0.001", VECTORS + 0.01 * NOISE).holds == "broken"


def test_percentiles_are_proved_where_the_rows_suffice() -> None:
    came = VECTORS + 0.01 * NOISE
    assert judged("cosine.p1 >= 0.99", came).holds == "kept"
    few = judged("cosine.p1 >= 0.99", came[:200], VECTORS[:200])
    assert (few.holds, few.bound, few.needed) == ("unproved", None, 300)
    assert judged("relative_error.p99 <= 0.01%", came).holds == "broken"


def test_few_rows_prove_no_mean() -> None:
    one = judged("cosine >= 0.9", VECTORS[:12], VECTORS[:12])
    assert (one.holds, one.bound, one.needed) == ("unproved", None, 30)
    assert "so few rows bound nothing" in one.why


def test_each_look_at_the_same_rows_asks_for_more() -> None:
    lines = budget("flips <= 1%")
    found = [
        judge(lines, {"x": VECTORS[:400]}, {"x": VECTORS[:400]}, looks=looks)[0] for looks in (1, 5)
    ]
    assert [one.holds for one in found] == ["kept", "unproved"]
    assert "with 99 % confidence" in found[1].why


def test_a_row_that_is_not_finite_breaks_what_it_touches() -> None:
    came = VECTORS.copy()
    came[3, 2] = np.nan
    assert judged("relative_error <= 1%", came).holds == "broken"
    assert judged("cosine.min >= 0.9", came).value == -1
    assert judged("flips <= 0.1%", came).value == pytest.approx(1 / 700)


def test_an_output_of_which_a_metric_says_nothing_is_named() -> None:
    (one,) = judge(
        budget("cosine >= 0.9"),
        {"x": VECTORS, "ids": TRUTHS},
        {"x": VECTORS, "ids": TRUTHS},
    )
    assert one.why.endswith(
        "nothing is said of ids, which holds whole numbers, of which flips tells"
    )


@settings(max_examples=10)
@given(st.permutations(range(60)), st.sampled_from(["cosine", "flips", "kl", "relative_error"]))
def test_the_order_of_rows_changes_nothing(order: list[int], name: str) -> None:
    line = f"{name} {'>=' if name == 'cosine' else '<='} 0.01"
    ours, its = VECTORS[:60], VECTORS[:60] + 0.3 * NOISE[:60]
    one, other = judged(line, its, ours), judged(line, its[order], ours[order])
    assert one.value == pytest.approx(other.value)
    assert one.bound == pytest.approx(other.bound)
    assert one.holds == other.holds


def test_no_rows_at_all() -> None:
    with pytest.raises(UsageError, match="there are no rows to judge it by"):
        judged("cosine >= 0.9", VECTORS[:0], VECTORS[:0])


# -- labels ----------------------------------------------------------------------------------------


def test_accuracy_is_of_labels_and_the_rows_that_have_one() -> None:
    values: list[Any] = TRUTHS.tolist()
    values[:100] = [(v + 1) % 16 for v in values[:100]]
    values[600:] = [None] * 100
    one = judged("accuracy >= 80%", VECTORS, labels=classes(values))
    assert (one.value, one.rows, one.holds) == (5 / 6, 600, "kept")
    assert one.why.endswith("left out: 100 of 700 rows, which have no class")


def test_a_loss_is_held_against_the_baseline_row_by_row() -> None:
    """Paired rows prove what two intervals would not: the baseline is right on half of them."""
    values: list[Any] = TRUTHS.tolist()
    values[::2] = [(v + 1) % 16 for v in values[::2]]
    labels = classes(values)
    one = judged("accuracy >= baseline - 1%", VECTORS, labels=labels)
    assert one.holds == "kept"
    assert (one.value, one.limit) == (0.5, pytest.approx(0.49))
    assert one.bound == pytest.approx(0.5 - 3 / 700, rel=1e-4), "no zero variance proves it"
    assert judged("accuracy >= 49%", VECTORS, labels=labels).holds == "unproved"
    worse = VECTORS.copy()
    worse[1::14] = -worse[1::14]
    assert judged("accuracy >= baseline - 1%", worse, labels=labels).holds == "broken"


def test_names_are_held_against_what_decode_says() -> None:
    names = [f"n{place}" for place in range(16)]
    decode = OneLabel(names)
    model = Model(nn.Linear(16, 16), "x: f32[batch 16]", "logits: f32[batch 16]", decode=decode)
    labels = classes([names[truth] for truth in TRUTHS], model)
    outputs = {"logits": VECTORS}
    (one,) = judge(budget("accuracy >= 99%"), outputs, outputs, labels)
    assert (one.value, one.holds) == (1, "kept")
    strange = classes(["n71", *labels.values[1:]], model)
    with pytest.raises(UsageError, match=r"1 of 700 labels are none that .*'n71'; did you mean"):
        judge(budget("accuracy >= 99%"), outputs, outputs, strange)


def test_numbers_may_be_texts_of_truth_values_or_floats() -> None:
    two = VECTORS[:, :2]
    for values in (two.argmax(1).astype(bool), two.argmax(1).astype(float)):
        assert judged("accuracy >= 90%", two, two, classes(values)).value == 1
    whole = TRUTHS.reshape(-1, 1)
    assert judged("accuracy >= 90%", whole, whole, classes()).value == 1


@pytest.mark.parametrize(
    ("values", "outputs", "message"),
    [
        ([16] * 700, VECTORS, "700 of 700 labels are none .* 16; classes go from 0 to 15"),
        (["cat"] * 700, VECTORS, "labels are names, and .* has no decode"),
        (TRUTHS, VECTORS[:, 0], r"no output is scores of classes \[rows, classes\]"),
        (
            [0.5] * 700,
            VECTORS,
            "row 0 has 0.5, a float; a label of accuracy is a whole number or a text",
        ),
        ([[1, 2]] * 700, VECTORS, r"row 0 has \[1, 2\], a list"),
        ([None] * 700, VECTORS, "none of the 700 rows has a label"),
        (["a", 1] * 350, VECTORS, "some labels are numbers, such as 1, and others names"),
    ],
)
def test_labels_that_no_prediction_can_be(values: Any, outputs: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"--label class: .*{message}"):
        judged("accuracy >= 90%", outputs, outputs, classes(values))


@pytest.mark.parametrize("shape", [(700,), (700, 1)])
def test_one_number_a_row_says_yes_or_no_where_labels_are_two(shape: tuple[int, ...]) -> None:
    logits = VECTORS[:, 0].reshape(shape)
    labels = classes(VECTORS[:, 0] > 0)
    one = judged("accuracy >= 90%", logits, logits, labels)
    assert (one.value, one.holds) == (1, "kept")
    assert "taken for 1 where x is above 0, since not all lie from 0 to 1" in one.why

    shares = 1 / (1 + np.exp(-logits))
    one = judged("accuracy >= 90%", np.where(shares > 0.5, 0.6, 1.2), shares, labels)
    assert one.value == pytest.approx(labels.array.mean())
    assert "above 0.5" in one.why  # as the baseline has it, whatever came
    assert judged("accuracy >= 90%", np.full_like(logits, np.nan), logits, labels).value == 0


def test_rows_of_which_none_has_a_label() -> None:
    labels = classes([1, *[None] * 699])
    for limit in (">= 90%", ">= baseline - 1%"):
        one = judged(
            f"accuracy {limit}", VECTORS[200:], VECTORS[200:], labels.take(range(200, 700))
        )
        assert (one.holds, one.rows, one.bound) == ("unproved", 0, None)
        assert one.is_met, "a plan is not dropped for what nothing says of it"
        assert one.why == "none of these 500 rows has a class: nothing tells"


def test_a_function_gets_labels_as_the_column_has_them() -> None:
    prices = classes(np.linspace(0.5, 2.5, 700))
    assert prices.array.dtype == np.float64
    assert not prices.are_classes

    def off(predictions: dict[str, Any], labels: Any) -> Any:
        return np.abs(predictions["x"][:, 0] - labels)

    one = judged((off, "<= baseline + 10%"), VECTORS, labels=prices)
    assert (one.holds, one.value) == (
        "kept",
        pytest.approx(np.abs(VECTORS[:, 0] - prices.array).mean()),
    )
    sets = classes([[1, 2], [3]] * 350)
    assert sets.array[1] == [3]
    assert classes([[1, 2], [3, 4]] * 350).array.shape == (700, 2)
    assert classes([1.0, math.inf, None]).array.tolist() == [1.0, math.inf, None]
    assert classes([1.0, 0.0, None]).values == (1, 0, None), "classes of a column with gaps"


def test_a_column_that_is_not_there() -> None:
    rows = Rows({"class": [1]}, np.arange(1))
    with pytest.raises(UsageError, match=r"--label clas: there is no .*; did you mean 'class'"):
        labels_of(rows, "clas", MODEL)
    with pytest.raises(UsageError, match="accuracy needs labels: name their column, --label"):
        judged("accuracy >= 90%", VECTORS)


# -- functions of the user's -----------------------------------------------------------------------


def own(name: str, limit: str = ">= 90%") -> str:
    return f"{OWN}:{name} {limit}"


@pytest.mark.parametrize("name", ["accuracy", "right"])
def test_a_function_proves_as_much_as_the_metric(name: str) -> None:
    labels = classes()
    for limit in (">= 98%", ">= baseline - 1%"):
        same = judged(own(name, limit), VECTORS, labels=labels)
        assert (same.value, same.holds) == (1, "kept")
        assert same.bound == pytest.approx(1 - 3 / 700, abs=5e-4), "nothing is proved by no spread"
        worse = judged(own(name, limit), VECTORS + 0.5 * NOISE, labels=labels)
        its = judged(f"accuracy {limit}", VECTORS + 0.5 * NOISE, labels=labels)
        assert (worse.value, worse.holds) == (its.value, "broken")
        assert worse.bound == pytest.approx(its.bound, abs=0.01)


def test_a_callable_is_judged_as_a_file_is() -> None:
    def spread(predictions: dict[str, Any], labels: Any) -> Any:
        assert labels is None
        assert isinstance(predictions["x"], np.ndarray)
        return predictions["x"].std(1)

    one = judged((spread, "<= baseline + 1%"), torch.from_numpy(VECTORS))
    assert (one.keep, one.holds) == ("spread <= baseline + 1%", "kept")
    assert judged((spread, "<= baseline + 1%"), VECTORS * 1.1).holds == "broken"
    assert one.bound is not None
    assert one.bound > one.value, "rows that are equal prove no more than 3 of n"


def test_few_rows_prove_no_number_of_a_function() -> None:
    one = judged(own("loss", "<= baseline + 1%"), VECTORS[:20], VECTORS[:20])
    assert one.holds == "unproved"
    number = judged(own("accuracy"), VECTORS[:20], VECTORS[:20], classes(TRUTHS[:20]))
    assert (number.holds, number.bound) == ("unproved", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", r"raises\(predictions, labels\) of the candidate raised KeyError: 'y'; it was "
                   "called with x of 700 rows and labels"),
        ("leaves", "of the candidate raised SystemExit: 3"),
        ("text", "gave a str; expected a number, or one number a row"),
        ("too_many", r"gave numbers of shape \[700, 16\]; expected one number, or one a row"),
        ("accurac", "has no name 'accurac'; did you mean 'accuracy'"),
        ("LIMIT", "LIMIT is a int; expected a function of the predictions"),
    ],
)  # fmt: skip
def test_a_function_that_does_not_do_says_whose_it_is(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        judged(own(name), VECTORS, labels=classes())
    assert str(OWN) in str(caught.value)


def test_a_number_that_is_none_is_the_worst() -> None:
    assert judged(own("nothing"), VECTORS).holds == "broken"
    with pytest.raises(UsageError, match="of the baseline is not finite"):
        judged(own("nothing", ">= baseline - 1%"), VECTORS)


def test_functions_and_labels_are_asked_for_before_anything_is_computed() -> None:
    require_answerable(budget([own("right"), "cosine >= 0.9"]), False)
    with pytest.raises(UsageError, match="has no name 'rigth'; did you mean 'right'"):
        require_answerable(budget(own("rigth")), True)
    with pytest.raises(UsageError, match="'accuracy >= 90%' needs labels: name their column"):
        require_answerable(budget("accuracy >= 90%"), False)
    require_answerable(budget("accuracy >= 90%"), True)


def test_another_function_of_the_same_name_is_another_budget(tmp_path: Path) -> None:
    file = tmp_path / "score.py"
    found: list[list[str]] = []
    for body in ("return 1", "return 1", "return 2"):
        file.write_text(f"def score(predictions, labels):\n    {body}\n")
        found.append(list(identities(budget(f"{file}:score >= 1"))))
    assert found[0] == found[1] != found[2]
    one, other = (list(identities(budget((judged, ">= 1")))) for _ in range(2))
    assert one != other, "nothing tells what a callable refers to"
    assert list(identities(budget("cosine >= 0.9"))) == []


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(LoadError, match="there is no Python file"):
        judged("nowhere.py:f >= 1", VECTORS)


# -- the baseline ----------------------------------------------------------------------------------


def require_kept(
    keeps: Sequence[Keep], baseline: Mapping[str, Any], labels: Labels | None = None
) -> None:
    require_kept_by_baseline(keeps, baseline, judge(keeps, baseline, baseline, labels))


def test_a_baseline_that_breaks_the_budget_itself_is_refused() -> None:
    labels = classes(np.roll(TRUTHS, 1))
    with pytest.raises(UsageError, match=r"the baseline itself is at 0\.\d+ over 700 rows"):
        require_kept(budget("accuracy >= 90%"), {"x": VECTORS}, labels)
    relative = [*budget("accuracy >= baseline - 0.5%"), Keep.parse("cosine >= 0.9")]
    require_kept(relative, {"x": VECTORS}, labels)


def test_a_loss_that_no_plan_could_exceed_asks_for_nothing() -> None:
    labels = classes(np.roll(TRUTHS, 1))  # of which few are met
    with pytest.raises(UsageError, match="which accuracy never fails: ask for more"):
        require_kept(budget("accuracy >= baseline - 50%"), {"x": VECTORS}, labels)
    require_kept(budget("max_error <= baseline + 1e300"), {"x": VECTORS})


def test_rows_of_which_the_baseline_makes_nan_prove_nothing_and_are_named() -> None:
    half = np.where(np.arange(700)[:, None] < 350, np.float32(np.nan), VECTORS)
    lines = budget("cosine >= 0.9")
    require_kept(lines, {"x": half})
    why = judged("cosine >= 0.9", half, half).why
    assert why.endswith("the baseline's own outputs hold a NaN in 350 of 700 rows")
    with pytest.raises(UsageError, match="output y of the baseline has a NaN in each of 700 rows"):
        require_kept(lines, {"x": VECTORS, "y": VECTORS * np.nan})
