"""The notation of plans, and the operators `|` and `@` of a Forward."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from forwardpass import Forward, Model, Plan
from forwardpass.errors import GrammarError
from forwardpass.nouns import plans
from forwardpass.nouns.plans import Argument, Backend, Step, split

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
bare = st.from_regex(r"[A-Za-z0-9_.:*|@/+-]{1,8}", fullmatch=True)
quoted = st.text(st.characters(exclude_characters='"', codec="utf-8"), max_size=12)
values = bare | quoted.map('"{}"'.format)
globs = st.from_regex(r"!?[a-z0-9_.*?-]{1,8}", fullmatch=True)
references = st.sampled_from(
    ["", "model.py", "model.py:net", "hf:org/name@main", "a folder/with space", "pkg:a/b", "a|b"]
)


@st.composite
def arguments(draw: st.DrawFn) -> tuple[Argument, ...]:
    places = [Argument(text) for text in draw(st.lists(values, max_size=2))]
    keys = draw(st.lists(names, max_size=2, unique=True))
    return (*places, *(Argument(draw(values), key) for key in keys))


steps = st.builds(Step, names, arguments(), st.lists(globs, max_size=2).map(tuple))
backends = st.builds(Backend, names, arguments())
whole = st.builds(Plan, st.lists(steps, max_size=3).map(tuple), backends)


@given(references, whole)
def test_a_forward_prints_and_parses_back(reference: str, plan: Plan) -> None:
    assert split(f"{reference} {plan}") == (reference, plan)
    assert Plan.parse(str(plan)) == plan


@pytest.mark.parametrize(
    ("text", "reference", "plan"),
    [
        ("resnet.py", "resnet.py", "@ eager"),
        ("a.py | fold_batchnorm @ inductor", "a.py", "| fold_batchnorm @ inductor"),
        ("hf:org/name@rev | cast(bf16)", "hf:org/name@rev", "| cast(bf16) @ eager"),
        ("a.py @ eager(device=cuda:0,threads = 2)", "a.py", "@ eager(device=cuda:0, threads=2)"),
        ("a.py|b.py@c", "a.py|b.py@c", "@ eager"),
        ('a | cast("x where y") where e.*', "a", '| cast("x where y") where e.* @ eager'),
        ('a @ eager(note="b | c @ d")', "a", '@ eager(note="b | c @ d")'),
        ("a | cast() @ eager()", "a", "| cast @ eager"),
        ("a | cast(bf16) where e.*,!*.norm", "a", "| cast(bf16) where e.*, !*.norm @ eager"),
        ("a @ eager(threads=2) where !e.*", "a", "@ eager(threads=2) where !e.*"),
    ],
)
def test_what_is_reference_and_what_is_plan(text: str, reference: str, plan: str) -> None:
    found, parsed = split(text)
    assert (found, str(parsed)) == (reference, plan)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("none", None),
        ("3", 3),
        ("-1.5e3", -1500.0),
        ("cuda:*", "cuda:*"),
        ('"3"', "3"),
        ('""', ""),
    ],
)
def test_the_value_of_an_argument(text: str, value: object) -> None:
    found = Argument(text).value
    assert found == value
    assert type(found) is type(value)


def test_where_selects_submodules() -> None:
    step = Plan.parse("| cast(bf16) where encoder.*, !*.norm").steps[0]
    chosen = [p for p in ("", "encoder.0", "encoder.0.norm", "head") if step.selects(p)]
    assert chosen == ["encoder.0"]
    assert Plan.parse("| cast(bf16)").steps[0].selects("anything")
    only_not = Plan.parse("| cast(bf16) where !head").steps[0]
    assert only_not.selects("encoder")
    assert not only_not.selects("head")


REFUSED = {
    "a |": "cannot read the step ''; expected NAME or NAME(argument, name=value)",
    "a @": "cannot read the backend ''",
    "a | cast(bf16": "cannot read the step 'cast(bf16'",
    "a | cast(bf16)x": "cannot read the step 'cast(bf16)x'",
    "a @ b | c": "the backend `@ b` must come last",
    "a @ b @ c": "the backend `@ b` must come last",
    "a | cast(,)": "cannot read the arguments (,) of 'cast'; expected value or name=value",
    "a | cast(b c)": "cannot read the arguments (b c) of 'cast'",
    "a | cast(b=1, b=2)": "'cast' is given 'b' twice",
    "a | cast(b=1, 2)": "'cast' has a bare argument after a named one",
    "a | cast where": "'' is not a glob of module names; expected `where encoder.*`",
    "a | cast where e.*, ": "'' is not a glob of module names",
    "a | cast where a b": "'a b' is not a glob of module names",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=REFUSED)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(GrammarError) as caught:
        split(text)
    assert message in str(caught.value)
    assert repr(text) in str(caught.value)


def test_a_plan_has_no_reference() -> None:
    with pytest.raises(GrammarError, match=r"must begin with `\|` or `@`, not with 'model\.py'"):
        Plan.parse("model.py | cast(bf16)")


def test_a_forward_grows_by_steps_and_changes_its_backend() -> None:
    forward = Forward(Model(nn.Linear(2, 2), "x: f32[batch 2]", origin="net.py"))
    assert str(forward) == "net.py @ eager"
    more = forward @ "eager(threads=2)" | "cast(bf16) where a.*" | "fold | prune(0.5)"
    assert str(more) == "net.py | cast(bf16) where a.* | fold | prune(0.5) @ eager(threads=2)"
    assert more.model is forward.model
    assert str(forward) == "net.py @ eager"
    assert repr(forward) == "Forward('net.py @ eager')"


def test_a_backend_among_steps_is_refused_not_ignored() -> None:
    forward = Forward(Model(nn.Linear(2, 2)))
    with pytest.raises(GrammarError, match="the backend `@ inductor` must come last"):
        forward | "cast(bf16) @ inductor"
    with pytest.raises(GrammarError, match="must come last"):
        forward @ "inductor | cast(bf16)"


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(plans).failed == 0
