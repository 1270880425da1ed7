"""Every file in the folders that are lists keeps the contract of its folder.

A new step or backend needs one line here: a call of it that works on any machine. What rules have
in common is tested in checking/test_rules.py.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import models
import pytest
import torch
from torch import nn

from forwardpass import Forward, Model
from forwardpass.building import backends, steps
from forwardpass.checking import rules
from forwardpass.errors import UsageError
from forwardpass.nouns.folders import names, plugin

ROOT = Path(__file__).parent.parent

# A call that works anywhere, and how far outputs may move by it.
STEPS = {"cast": ("cast(bf16)", 0.05)}
BACKENDS = {"eager": ("eager(threads=1)", 1e-6)}
NO_BACKENDS = {"null"}  # they compute nothing, and have tests of their own
CALLS = [(f"| {call}", moved) for call, moved in STEPS.values()]
CALLS += [(f"@ {call}", moved) for call, moved in BACKENDS.values()]
texts = pytest.mark.parametrize(("text", "moved"), CALLS, ids=[text for text, _ in CALLS])


def under(model: Model, text: str) -> Forward:
    operator, call = text.split(" ", 1)
    return Forward(model) | call if operator == "|" else Forward(model) @ call


def plugins() -> list[tuple[str, ModuleType, str, int]]:
    """(name, module, the function of the contract, arguments that the contract itself passes)."""
    contracts = ((steps, "apply", 2), (backends, "build", 3))
    return [
        (name, plugin(folder, name), function, own)
        for folder, function, own in contracts
        for name in names(folder)
    ]


def test_the_folders_are_the_lists() -> None:
    assert names(steps) == sorted(STEPS)
    assert set(names(backends)) == {*BACKENDS, *NO_BACKENDS}


@pytest.mark.parametrize(
    ("name", "plugin", "function", "own"), plugins(), ids=[name for name, *_ in plugins()]
)
def test_a_plugin_says_how_it_is_called(
    name: str, plugin: ModuleType, function: str, own: int
) -> None:
    """Its docstring begins with the call; its arguments are named, typed, and no `**others`."""
    call = inspect.signature(getattr(plugin, function))
    arguments = list(call.parameters.values())[own:]
    first = (plugin.__doc__ or "").splitlines()[0]
    assert first.startswith(f"{name}(" if arguments else name)
    for argument in arguments:
        assert argument.kind is argument.POSITIONAL_OR_KEYWORD
        assert argument.annotation is not argument.empty
        assert argument.name in first


@texts
@pytest.mark.parametrize("name", ["mlp", "cnn", "tied", "weight_norm", "hooked", "integers"])
def test_it_computes_the_same_and_leaves_the_model_alone(
    name: str, text: str, moved: float
) -> None:
    model = models.MODELS[name]()
    module = model.module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    tensors = {key: id(value) for key, value in module.named_parameters()}
    assert model.signature is not None
    shape = [3 if axis.is_batch else axis.size for axis in model.signature.inputs[0].axes]
    path, floating = model.signature.inputs[0].path, model.signature.inputs[0].dtype == "f32"
    value = torch.linspace(-1, 1, 3 * shape[1] * (64 if len(shape) == 4 else 1)).reshape(shape)
    given = {path: value if floating else value.mul(20).long().abs()}

    plain = models.built(Forward(model))(given)
    changed = models.built(under(model, text))(given)

    assert changed.keys() == plain.keys()
    for output in plain:
        assert changed[output].dtype == plain[output].dtype
        torch.testing.assert_close(changed[output], plain[output], atol=moved, rtol=moved)
    assert module.training
    assert {key: id(value) for key, value in module.named_parameters()} == tensors
    after = module.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@texts
def test_unknown_and_superfluous_arguments_are_refused(text: str, moved: float) -> None:
    model = Model(nn.Linear(16, 4), "features: f32[batch 16]")
    name = text.split("(")[0]
    with pytest.raises(UsageError, match="has no argument 'quietly'"):
        models.built(under(model, f"{name}(quietly=true)"))
    with pytest.raises(UsageError, match="takes at most"):
        models.built(under(model, f"{name}(1, 2, 3, 4, 5, 6, 7, 8, 9)"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("| csat(bf16)", "unknown step 'csat'; did you mean 'cast'? known:"),
        ("@ eagre", "unknown backend 'eagre'; did you mean 'eager'? known:"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        models.built(under(models.mlp(), text))
    assert message in str(caught.value)


# -- rules: a file, planted faults, a line on the page ---------------------------------------------


@pytest.mark.parametrize("name", names(rules))
def test_a_rule_is_checked_on_planted_faults_and_stands_on_the_page(name: str) -> None:
    module = plugin(rules, name)
    assert list(inspect.signature(module.check).parameters) == ["probe"]
    assert (ROOT / "tests" / "checking" / "planted" / f"{name}.py").exists()
    assert f"| `{name.replace('_', '-')}` |" in (ROOT / "docs" / "check.md").read_text()
