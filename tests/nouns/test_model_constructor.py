"""Model: what goes together, and how it is said when it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from artefact import Artefact
from torch import nn

from forwardpass import Encoded, Model, Signature
from forwardpass.errors import GrammarError, UsageError


def net() -> nn.Module:
    return nn.Linear(16, 4)


def test_inputs_as_a_line_lines_a_list_or_a_signature() -> None:
    lines = ["a: f32[batch 4]", "b: f32[batch 4]"]
    signature = Signature.parse(lines)
    for inputs in ("\n".join(lines), lines, tuple(lines), iter(lines), signature):
        assert Model(net(), inputs).signature == signature
    assert Model(net()).signature is None


def test_outputs_refer_to_the_axes_of_the_inputs() -> None:
    model = Model(net(), "x: f32[batch n] pad 0", "y: f32[batch (n+1)//2]")
    assert model.signature is not None
    assert model.signature.outputs[0].shape(2, {"n": 5}) == (2, 3)


def test_names() -> None:
    assert Model(net()).name == "Linear"
    assert Model(net(), origin="net.py").name == "net.py"
    assert repr(Model(net(), "x: f32[batch 16]")) == "Model(Linear: x: f32[batch 16])"
    assert repr(Model(net())) == "Model(Linear: inputs from the data)"


REFUSED: dict[str, Callable[[], Model]] = {
    "takes a torch.nn.Module, not 'dict'; call the class to make a module": lambda: Model({}),  # pyright: ignore[reportArgumentType]
    "takes a torch.nn.Module, not the class 'Linear'": lambda: Model(nn.Linear),  # pyright: ignore[reportArgumentType]
    "takes a torch.nn.Module, not 'Tensor'": lambda: Model(torch.zeros(2)),  # pyright: ignore[reportArgumentType]
    "Model(collate=…, uncollate=…) go together": lambda: Model(net(), collate=list),
    "`inputs` or `collate`": lambda: Model(
        net(), "x: f32[batch 16]", collate=list, uncollate=lambda outputs, count: {}
    ),
    "Model(size=…) goes with `collate`": lambda: Model(net(), size=lambda item: 1),
    "Model(outputs=…) needs `inputs`": lambda: Model(net(), outputs="y: f32[batch]"),
    "the outputs go into the Signature": lambda: Model(
        net(), Signature.parse("x: f32[batch 16]"), "y: f32[batch 4]"
    ),
}


@pytest.mark.parametrize(("message", "make"), REFUSED.items(), ids=REFUSED)
def test_refused(message: str, make: Callable[[], Model]) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert message in str(caught.value)


def test_a_line_that_does_not_parse() -> None:
    with pytest.raises(GrammarError, match="unknown dtype 'float32'"):
        Model(net(), "x: float32[batch 16]")


def test_a_model_is_frozen_and_compared_by_identity() -> None:
    model = Model(net())
    with pytest.raises(AttributeError):
        model.origin = "x"  # pyright: ignore[reportAttributeAccessIssue]
    assert model != Model(model.module)


def test_encoded_is_a_dict_that_says_which_rows_were_cut() -> None:
    encoded = Encoded({"ids": [1, 2]}, truncated=[1])
    assert encoded == {"ids": [1, 2]}
    assert encoded.truncated == {1}
    assert Encoded({}).truncated == frozenset()


def test_where_an_artefact_came_from_is_its_own_to_say_unless_a_file_holds_it() -> None:
    plain = Model(Artefact(), "ids: i64[batch]")
    assert (plain.origin, plain.trust, plain.name) == ("x.fwd", "data", "x.fwd")
    held = Model(Artefact(), "ids: i64[batch]", origin="model.py", trust="code")
    again = held.with_signature(Signature.parse("ids: i64[batch 2]"))
    assert (again.origin, again.trust, again.program) == ("model.py", "code", held.program)
    with pytest.raises(UsageError, match="is an artefact and holds no module"):
        _ = held.module
