"""Which layers stay in full precision: the search on layers whose errors add up by construction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwardpass.nouns.budgets import Keep
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.profiles import Estimate
from forwardpass.nouns.tunings import Evidence, Holds, Sensitivity
from forwardpass.tuning.naming import chosen
from forwardpass.tuning.splitting import Splitting

WHOLE = "@ onnxruntime(quantize=int8)"
FULL = "@ onnxruntime"
KEEP = Keep("cosine", "mean", ">=", 0.995)


class Model:
    """Layers with errors and times; what is measured of a plan is what these add up to."""

    def __init__(
        self,
        errors: Sequence[float],
        shares: Sequence[float],
        *,
        power: float = 1.0,
        whole: float = 0.99,
        fast: float = 2.0,
        noise: float = 0.0,
    ) -> None:
        names = [f"layers.{n // 2}.{('attention', 'dense')[n % 2]}" for n in range(len(errors))]
        self.layers = [
            Sensitivity(layer=name, error=error, share=share, full=False)
            for name, error, share in zip(names, errors, shares, strict=True)
        ]
        self.power, self.fast, self.noise = power, fast, noise
        self.scale = (1 - whole) / sum(errors) ** power

    def full(self, plan: str) -> set[str]:
        backend = Plan.parse(plan).backend
        quantizes = bool(backend.arguments)
        return {o.layer for o in self.layers if not (quantizes and backend.selects(o.layer))}

    def value(self, plan: str) -> float:
        left = self.full(plan)
        return (
            1 - self.scale * sum(o.error for o in self.layers if o.layer not in left) ** self.power
        )

    def seconds(self, plan: str) -> float:
        left = self.full(plan)
        share = sum(o.share for o in self.layers if o.layer in left)
        return 1 / self.fast + (1 - 1 / self.fast) * share / sum(o.share for o in self.layers)

    def evidence(self, plan: str) -> list[Evidence]:
        value = self.value(plan)
        holds: Holds = "kept" if value >= KEEP.limit else "broken"
        return [
            Evidence(
                keep="", value=value, bound=value, limit=KEEP.limit, rows=1, holds=holds, why=""
            )
        ]

    def ratio(self, plan: str) -> Estimate:
        ratio = 1 / self.seconds(plan)
        return Estimate(ratio, ratio * (1 - self.noise), ratio * (1 + self.noise))

    def searched(self, splitting: Splitting) -> tuple[list[str], str]:
        """The plans that are tried, and the fastest of them that keeps the budget."""
        tried = [FULL, WHOLE]
        for plan in tried:
            splitting.learn(plan, self.evidence(plan), self.ratio(plan))
        while (plan := splitting.next()) is not None:
            assert plan not in tried
            assert len(tried) < 100
            tried.append(plan)
            splitting.learn(plan, self.evidence(plan), self.ratio(plan))
        kept = [plan for plan in tried if self.value(plan) >= KEEP.limit]
        return tried[2:], min(kept, key=self.seconds)

    def optimum(self) -> float:
        """The least time of all splits that keep the budget."""
        least = math.inf
        bound = (1 - KEEP.limit) / self.scale
        whole = sum(o.share for o in self.layers)
        for take in itertools.product((0, 1), repeat=len(self.layers)):
            error = sum(o.error for o, on in zip(self.layers, take, strict=True) if on)
            if error**self.power <= bound:
                share = sum(o.share for o, on in zip(self.layers, take, strict=True) if not on)
                least = min(least, 1 / self.fast + (1 - 1 / self.fast) * share / whole)
        return least


positive = st.floats(1e-4, 1.0)


@settings(max_examples=25, deadline=None)
@given(
    layers=st.lists(st.tuples(positive, positive), min_size=2, max_size=9),
    power=st.sampled_from([0.5, 1.0]),
    whole=st.floats(0.9, 0.9945),
)
def test_a_split_is_near_the_best_and_found_in_few_plans(
    layers: list[tuple[float, float]], power: float, whole: float
) -> None:
    errors, shares = zip(*layers, strict=True)
    model = Model(errors, shares, power=power, whole=whole)
    tried, found = model.searched(Splitting.of(WHOLE, model.layers, [KEEP]))
    assert len(tried) <= 2 * math.log2(len(layers)) + 6
    assert model.seconds(found) <= model.optimum() + max(shares) / sum(shares) * 0.5 + 1e-9


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000), count=st.integers(20, 150), power=st.sampled_from([0.5, 1, 1.5])
)
def test_many_layers_take_few_more_plans(seed: int, count: int, power: float) -> None:
    drawn = np.random.default_rng(seed)
    model = Model(
        drawn.lognormal(0, 2, count).tolist(), drawn.lognormal(0, 1, count).tolist(), power=power
    )
    tried, found = model.searched(Splitting.of(WHOLE, model.layers, [KEEP]))
    assert len(tried) <= math.log2(count) + 6
    assert 1 / model.seconds(found) > 1.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 60))
def test_it_ends_whatever_the_sensitivities_are_worth(seed: int, count: int) -> None:
    drawn = np.random.default_rng(seed)
    model = Model(drawn.lognormal(0, 2, count).tolist(), drawn.lognormal(0, 1, count).tolist())
    wrong = [
        Sensitivity(layer=o.layer, error=float(e), share=o.share, full=False)
        for o, e in zip(model.layers, drawn.lognormal(0, 2, count), strict=True)
    ]
    tried, found = model.searched(Splitting.of(WHOLE, wrong, [KEEP]))
    assert len(tried) <= 2 * math.log2(count) + 6
    assert model.value(found) >= KEEP.limit


def test_one_fragile_layer_is_left_out_by_name() -> None:
    model = Model([1e-4, 1e-4, 1.0, 1e-4, 1e-4, 1e-4], [1.0] * 6)
    tried, found = model.searched(Splitting.of(WHOLE, model.layers, [KEEP]))
    assert found == "@ onnxruntime(quantize=int8) where !layers.1.attention"
    assert len(tried) == 1


def test_a_plan_that_is_no_faster_than_what_is_had_is_not_tried() -> None:
    model = Model([1.0, 1.0, 1.0, 1.0], [1.0] * 4)
    splitting = Splitting.of(WHOLE, model.layers, [KEEP])
    for plan in (FULL, WHOLE):
        splitting.learn(plan, model.evidence(plan), model.ratio(plan))
    assert splitting.next(best=2.5) is None
    assert "not faster beyond noise" in splitting.why
    assert splitting.next(best=1.2) is not None


def test_a_gain_within_the_noise_ends_the_search() -> None:
    exact, noisy = (Model([1.0] * 64, [1.0] * 64, noise=noise) for noise in (0.0, 0.04))
    most, _ = exact.searched(Splitting.of(WHOLE, exact.layers, [KEEP]))
    splitting = Splitting.of(WHOLE, noisy.layers, [KEEP])
    least, found = noisy.searched(splitting)
    assert len(least) < len(most)
    assert "beyond noise" in splitting.why
    assert noisy.seconds(found) < 1.05 * exact.seconds(
        exact.searched(Splitting.of(WHOLE, exact.layers, [KEEP]))[1]
    )


def test_a_plan_that_failed_is_not_tried_again() -> None:
    model = Model([1.0] * 6, [1.0] * 6)
    splitting = Splitting.of(WHOLE, model.layers, [KEEP])
    for plan in (FULL, WHOLE):
        splitting.learn(plan, model.evidence(plan), model.ratio(plan))
    tried: list[str] = []
    while (plan := splitting.next()) is not None:
        assert plan not in tried
        tried.append(plan)
        splitting.learn(plan, None)
    assert tried


def test_the_layers_that_a_plan_leaves_out_itself_stay_out() -> None:
    model = Model([1.0, 1.0, 2.0, 1.0], [1.0] * 4)
    own = "| sdpa @ onnxruntime(quantize=int8) where !layers.1.attention"
    splitting = Splitting.of(own, model.layers, [KEEP])
    splitting.learn(own, model.evidence(own), model.ratio(own))
    if (plan := splitting.next()) is not None:
        assert plan.startswith("| sdpa @ onnxruntime(quantize=int8) where ")
        assert "layers.1.attention" in model.full(plan)
        assert [o.layer for o in splitting.told(plan) if o.full]


@pytest.mark.parametrize(
    ("plan", "full"),
    [
        ("@ eager", 4),
        ("@ openvino(threads=2)", 4),
        (WHOLE, 0),
        ("@ onnxruntime(quantize=int8, threads=2) where !layers.0.*", 2),
        ("| cast(bf16) @ openvino", 0),
        ("| quantize(int8) where layers.1.* @ eager", 2),
    ],
)
def test_layers_are_told_as_any_plan_has_them(plan: str, full: int) -> None:
    splitting = Splitting.of(WHOLE, Model([1.0, 2.0, 3.0, 4.0], [1.0] * 4).layers, [KEEP])
    told = splitting.told(plan)
    assert sum(one.full for one in told) == full
    assert [one.error for one in told] == [4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("seed", range(5))
def test_globs_choose_just_what_they_are_to(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    paths = [
        f"encoder.layer.{n}.{part}" for n in range(12)
        for part in ("attention.self.query", "attention.output.dense", "output.dense")
    ]  # fmt: skip
    some = {path for path in paths if drawn.random() < (0.2, 0.8)[seed % 2]}
    backend = Plan.parse(f"@ eager where {', '.join(chosen(some, paths))}").backend
    assert {path for path in paths if backend.selects(path)} == some


def test_globs_are_short_where_names_say_it() -> None:
    paths = [
        f"encoder.layer.{n}.{part}.dense" for n in range(6)
        for part in ("attention.output", "intermediate", "output")
    ]  # fmt: skip
    ends = {path for path in paths if path.endswith("output.dense")}
    assert chosen(set(paths) - ends, paths) == ("!*.output.dense",)
    blocks = {path for path in ends if "attention" not in path}
    assert chosen(set(paths) - blocks, paths) == ("!*[0-9].output.dense",)
    assert chosen(set(paths), paths) == ()
