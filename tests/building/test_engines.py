"""Forward → Engine: names are checked, the module is not touched, inputs find their place."""

from __future__ import annotations

import copy

import models
import pytest
import torch
from torch import nn

from forwardpass import Model
from forwardpass.errors import LoadError, UsageError
from forwardpass.nouns.forwards import Forward

X = torch.linspace(-1, 1, 48).reshape(3, 16)


def test_an_engine_computes_named_tensors_in_eval_mode() -> None:
    model = models.train_mode()
    outputs = models.built(Forward(model))({"features": X})
    expected = copy.deepcopy(model.module).eval()(X)
    torch.testing.assert_close(outputs["output"], expected)
    assert model.module.training


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (models.dict_output(), ["logits", "embedding"]),
        (models.tuple_output(), ["output_0", "output_1"]),
        (models.dataclass_output(), ["logits", "embedding"]),
        (models.nested_output(), ["scores.logits", "layers.0", "layers.1"]),
        (models.none_output(), ["logits"]),
    ],
)
def test_outputs_have_names(model: Model, names: list[str]) -> None:
    assert list(models.built(Forward(model))({"features": X})) == names


def test_inputs_that_forward_names_otherwise_are_taken_in_order() -> None:
    model = Model(nn.Bilinear(16, 16, 2), ["left: f32[batch 16]", "right: f32[batch 16]"])
    made = models.built(Forward(model))({"left": X, "right": X * 2})["output"]
    torch.testing.assert_close(made, model.module(X, X * 2))


def test_names_of_which_only_some_are_known_are_refused() -> None:
    model = Model(nn.Bilinear(16, 16, 2), ["input1: f32[batch 16]", "right: f32[batch 16]"])
    with pytest.raises(UsageError, match=r"forward takes \(input1, input2\).*'right'"):
        models.built(Forward(model))


def test_positions_and_nested_inputs() -> None:
    by_position = models.built(Forward(models.by_position()))
    assert by_position({"0": X, "1": X})["output"].shape == (3, 4)
    nested = models.built(Forward(models.nested_inputs()))
    inputs = {"image.pixels": X.reshape(3, 4, 4), "points.0": X[:, :4], "points.1": X[:, 4:8]}
    assert nested(inputs)["output"].shape == (3, 4)


def test_a_scripted_and_a_compiled_module_can_be_built() -> None:
    linear = nn.Linear(16, 4)
    for module in (torch.jit.script(linear), torch.compile(linear, backend="eager")):
        made = models.built(Forward(Model(module, "features: f32[batch 16]")))({"features": X})[
            "output"
        ]
        torch.testing.assert_close(made, linear(X))


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_building_leaves_the_module_as_it_was(name: str) -> None:
    model = models.MODELS[name]()
    model.module.train()
    before = copy.deepcopy(model.module.state_dict())
    modes = [part.training for part in model.module.modules()]
    attributes = {k: copy.copy(v) for k, v in vars(model.module).items() if not k.startswith("_")}
    models.built(Forward(model) | "cast(bf16)")
    assert [part.training for part in model.module.modules()] == modes
    for key, tensor in model.module.state_dict().items():
        assert tensor.dtype == before[key].dtype
        assert torch.equal(tensor, before[key])
    assert {k: v for k, v in vars(model.module).items() if not k.startswith("_")} == attributes


def test_a_pass_changes_only_the_copy() -> None:
    model = models.counter_buffer()
    engine = models.built(Forward(model))
    engine({"features": X})
    engine({"features": X})
    assert model.module.count == 0
    remembering = models.counter_attribute()
    models.built(Forward(remembering))({"features": X})
    assert remembering.module.passes == 0
    assert remembering.module.seen == []


def test_a_copy_shares_the_weights_and_keeps_them_tied() -> None:
    model = models.tied()
    module = models.built(Forward(model)).replicas[0].module
    assert module.head.weight is module.embed.weight
    assert module.head.weight.data_ptr() == model.module.head.weight.data_ptr()
    assert model.module.head.weight.requires_grad


def test_results_kept_in_attributes_do_not_hinder_the_copy() -> None:
    linear = nn.Linear(16, 4)
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(linear)
    linear(X).sum().backward()
    made = models.built(Forward(Model(linear, "features: f32[batch 16]")))({"features": X})[
        "output"
    ]
    torch.testing.assert_close(made, linear(X))


def test_what_cannot_be_copied_is_said() -> None:
    import threading

    module = nn.Linear(16, 4)
    module.lock = threading.Lock()
    with pytest.raises(LoadError, match=r"Linear cannot be copied.*lock"):
        models.built(Forward(Model(module, "features: f32[batch 16]")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("| cats(bf16) @ eager", "unknown step 'cats'; did you mean 'cast'"),
        ("@ eagre", "unknown backend 'eagre'; did you mean 'eager'"),
        ("@ eager(threads=0)", "threads must be a whole number from 1"),
        ("@ eager(threads=few)", "threads must be a whole number, and it is few"),
        ("| prune(structured, abc)", "share must be a number, and it is abc"),
        ("| quantize(int8, weight_only=3)", "weight_only must be true or false, and it is 3"),
        ("| drop_dead(0)", "the model has no output '0'"),
        ("@ eager(thread=1)", "has no argument 'thread'; did you mean 'threads'"),
        ("@ eager(device=gpu)", "not a device that torch knows"),
        ("@ eager where !0", "eager quantizes none; leave it out"),
        ("| cast(f8)", "the dtype must be one of f64, f32, f16, bf16"),
        ("| cast", "cast needs dtype"),
        ("| cast(bf16, f32)", "takes at most 1 arguments"),
        ("| cast(bf16) where layer9", "no module is called so"),
    ],
)
def test_unknown_names_and_arguments_are_refused(text: str, message: str) -> None:
    from forwardpass import Plan

    with pytest.raises(UsageError, match=message):
        models.built(Forward(models.mlp(), Plan.parse(text)))


def test_cast_computes_in_another_dtype_and_keeps_the_outputs() -> None:
    model = models.mlp()
    exact = models.built(Forward(model))({"features": X})["output"]
    for dtype, tolerance in (("bf16", 2e-2), ("f16", 2e-3), ("f64", 1e-6)):
        cast = models.built(Forward(model) | f"cast({dtype})")({"features": X})["output"]
        assert cast.dtype == torch.float32
        assert not torch.equal(cast, exact)
        torch.testing.assert_close(cast, exact, atol=tolerance, rtol=tolerance)


def test_cast_where_chooses_modules_and_unties_only_what_it_must() -> None:
    module = models.built(Forward(models.mlp()) | "cast(bf16) where 2").replicas[0].module
    assert module[0].weight.dtype == torch.float32
    assert module[2].weight.dtype == torch.bfloat16
    others = models.built(Forward(models.mlp()) | "cast(bf16) where *, !0").replicas[0].module
    assert others[0].weight.dtype == torch.float32
    assert others[2].weight.dtype == torch.bfloat16
    tied = models.built(Forward(models.tied()) | "cast(bf16) where head").replicas[0].module
    assert tied.embed.weight.dtype == torch.float32
    assert tied.head.weight.dtype == torch.bfloat16


def test_threads_of_the_caller_stay(two_threads: int) -> None:
    models.built(Forward(models.mlp()) @ "eager(threads=1)")({"features": X})
    assert torch.get_num_threads() == two_threads
