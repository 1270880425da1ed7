"""Every file in the folders that are lists keeps the contract of its folder.

A new step or backend needs one line here: a call of it that works on any machine. What rules have
in common is tested in checking/test_rules.py.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import models
import pytest
import torch
from torch import nn

from forwardpass import Forward, Model
from forwardpass.building import backends, steps
from forwardpass.checking import rules
from forwardpass.errors import BuildError, UsageError
from forwardpass.nouns.folders import names, plugin
from forwardpass.running import sinks
from forwardpass.running.destinations import opened
from forwardpass.running.options import Options
from forwardpass.running.sinks import Shard
from forwardpass.running.stores import Folder

ROOT = Path(__file__).parent.parent

# A call that works anywhere, or refuses, and how far outputs may move by it; a model on which it
# works.
STEPS = {
    "cast": ("cast(bf16)", 0.05),
    "channels_last": ("channels_last", 1e-5),
    "drop_dead": ("drop_dead", 0.0),
    "fold_batchnorm": ("fold_batchnorm", 1e-5),
    "prune": ("prune(dead)", 1e-5),
    "quantize": ("quantize(int8)", 0.05),
    "remove_dropout": ("remove_dropout", 1e-6),
    "sdpa": ("sdpa", 1e-5),
}
WORKS_ON = {
    "cast": "mlp",
    "channels_last": "cnn",
    "drop_dead": "dead_head",
    "fold_batchnorm": "cnn",
    "prune": "dead_units",
    "quantize": "mlp",
    "remove_dropout": "cnn",
    "sdpa": "attention",
}
BACKENDS = {
    "aot": ("aot(threads=1)", 1e-5),
    "eager": ("eager(threads=1)", 1e-6),
    "inductor": ("inductor(threads=1)", 1e-5),
    "onnxruntime": ("onnxruntime(threads=1)", 1e-5),
    "openvino": ("openvino(threads=1)", 1e-5),
    "pt2e": ("pt2e(int8, dynamic=true, threads=1)", 0.05),
    "torchscript": ("torchscript(threads=1)", 1e-6),
}
NO_BACKENDS = {"null"}  # they compute nothing, and have tests of their own
COMPILERS = {"aot", "inductor", "pt2e"}
"""Seconds a model: most of them are for `make soak`."""
MODELS = [
    "mlp",
    "cnn",
    "tied",
    "weight_norm",
    "hooked",
    "integers",
    "dead_head",
    "dead_units",
    "attention",
]
CALLS = [(f"| {call}", moved) for call, moved in STEPS.values()]
CALLS += [(f"@ {call}", moved) for call, moved in BACKENDS.values()]
texts = pytest.mark.parametrize(("text", "moved"), CALLS, ids=[text for text, _ in CALLS])


def under(model: Model, text: str) -> Forward:
    operator, call = text.split(" ", 1)
    return Forward(model) | call if operator == "|" else Forward(model) @ call


def plugins() -> list[tuple[str, ModuleType, str, int]]:
    """(name, module, the function of the contract, arguments that the contract itself passes)."""
    contracts = (
        (steps, "apply", 1),
        (backends, "build", 2),
        (backends, "save", 3),
        (backends, "open", 2),
    )
    return [
        (name, plugin(folder, name), function, own)
        for folder, function, own in contracts
        for name in names(folder)
        if folder is steps or hasattr(plugin(folder, name), function)
    ]


def calls_of_models() -> list[Any]:
    """Each call with each model; of those that compile, one model is quick enough."""
    found: list[Any] = []
    for text, moved in CALLS:
        for name in MODELS:
            if name == "integers" and "@ pt2e(" in text:
                continue  # it has no layer to quantize
            slow = (name != "mlp" or "@ pt2e(" in text) and any(
                f"@ {compiler}(" in text for compiler in COMPILERS
            )
            marks = [pytest.mark.soak] if slow else []
            found.append(pytest.param(name, text, moved, marks=marks, id=f"{name}-{text}"))
    return found


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
        if argument.name == "layers":  # what `where` chose, which stands behind the call
            assert argument.kind is argument.KEYWORD_ONLY
            continue
        assert argument.kind is argument.POSITIONAL_OR_KEYWORD
        assert argument.annotation is not argument.empty
        assert argument.name in first


@pytest.mark.parametrize(("name", "text", "moved"), calls_of_models())
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
    step = text.removeprefix("| ").partition("(")[0]
    try:
        built, refused = models.built(under(model, text), fitted=True), ""
    except BuildError as error:  # only a step may, which then says why
        built, refused = None, str(error)
    if built is None:
        assert WORKS_ON[step] != name
        assert re.match(rf"{step}(\(.*\))?: [a-z].{{20,}}", refused)
        return
    if text.startswith("| "):
        assert re.search(r"\d", built.applied[0].did)
    changed = built(given)

    assert changed.keys() == plain.keys()
    for output in plain:
        came = torch.as_tensor(changed[output])
        assert came.dtype == plain[output].dtype
        torch.testing.assert_close(came, plain[output], atol=moved, rtol=moved)
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


# -- sinks: each OUT means one of them, and what is written does not depend on where ---------------

OUTS = [(name, out) for name in names(sinks) for out in plugin(sinks, name).TAKES]


def test_an_out_means_one_sink() -> None:
    taken = [out for _, out in OUTS]
    assert len(taken) == len(set(taken))
    assert {None, "-", ""} <= set(taken)
    assert {name for name, _ in OUTS} == set(names(sinks))


@pytest.mark.parametrize(("name", "suffix"), OUTS)
def test_a_sink_is_what_its_out_means_and_writes_shards(
    name: str, suffix: str | None, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    options = Options()
    written: list[list[str]] = []
    for place in ("one", "two"):
        out = suffix if suffix in (None, "-") else str(tmp_path / f"{place}{suffix}")
        sink, journal = opened(out, options, False)
        assert type(sink).__module__ == plugin(sinks, name).__name__
        assert (sink.store is None) == (journal is None)
        if sink.store is not None:
            assert isinstance(sink.store, Folder)
            assert sink.store.path.is_dir(), "the journal makes it"
            if sink.path is not None:
                assert out == str(sink.path)
                assert sink.path.parent == sink.store.path.parent
        numbers = {"output": torch.arange(6.0).reshape(3, 2)}
        shards = [Shard({"key": [0, 1, 2], **numbers}, ("output",), 3) for _ in range(2)]
        done = [sink.write(index, shard) for index, shard in enumerate(shards)]
        if sink.store is not None:
            assert set(sink.store.parts()) == {one.name for one in done}
            assert all(one.name.startswith("part-") for one in done), "what resuming may remove"
        sink.finish()
        assert sink.path is None or sink.path.exists()
        assert not any(one.left_out for one in done)
        assert len({one.name for one in done}) == 2
        written.append([one.sha256 for one in done])
        if journal is not None:
            journal.close()
    assert written[0] == written[1]
    assert {len(sha256) for sha256 in written[0]} == {64}
    capsysbinary.readouterr()
