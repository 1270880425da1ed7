"""The way back: Σ δ · x is what autograd gives, for whatever reads the weight."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from explained_models import GRADS, Fn, gradient_of, gradients, mlp
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass import record
from forwardpass.errors import UsageError


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize(
    "element", ["fc1.weight[7, 3]", "fc1.bias[2]", "fc2.weight[0, 7]", "input[1, 5]"]
)
def test_every_leaf_of_an_mlp(element: str, grad: Any) -> None:
    module, x = mlp(), torch.randn(3, 6)
    found = gradient_of(record(module, x, grad=grad), element)
    real = gradients(module, lambda y: y.sum(), x)
    name, _, index = element.rstrip("]").partition("[")
    place = tuple(int(i) for i in index.split(","))
    assert found.autograd == pytest.approx(float(real[{"input": "0"}.get(name, name)][place]))
    assert found.value is not None
    assert found.of == element
    assert found.loss == "the sum of output"


LAYERS: dict[str, tuple[Any, Tensor, str]] = {
    "conv": (nn.Conv2d(2, 3, 3), torch.randn(2, 2, 5, 5), "weight[2, 1, 0, 2]"),
    "conv input": (nn.Conv2d(2, 3, 3), torch.randn(2, 2, 5, 5), "input[1, 1, 2, 2]"),
    "embedding": (nn.Embedding(9, 4), torch.tensor([[3, 1], [3, 3]]), "weight[3, 2]"),
    "padding": (nn.Embedding(9, 4, padding_idx=3), torch.tensor([3, 1]), "weight[3, 2]"),
    "sparse": (nn.Embedding(9, 4, sparse=True), torch.tensor([3, 3]), "weight[3, 2]"),
    "layer norm": (nn.LayerNorm(6), torch.randn(2, 3, 6), "weight[4]"),
    "layer norm bias": (nn.LayerNorm(6), torch.randn(2, 3, 6), "bias[4]"),
    "batch norm": (nn.BatchNorm1d(6).train(), torch.randn(4, 6), "weight[4]"),
    "linear in 3 axes": (nn.Linear(6, 2), torch.randn(2, 3, 6), "weight[1, 4]"),
    "its input": (nn.Linear(6, 2), torch.randn(2, 3, 6), "input[1, 2, 4]"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("grad", GRADS)
def test_weights_and_inputs_of_layers(name: str, grad: Any) -> None:
    module, x, element = LAYERS[name]
    module = Fn(lambda self, input: self.a(input).square(), a=module).train(module.training)
    before = copy.deepcopy(module.state_dict())
    text = "0" + element[5:] if element.startswith("input") else f"a.{element}"
    found = gradient_of(record(module, x, grad=grad), text)
    assert (found.value is None) == (name == "batch norm"), str(found)  # no formula back yet
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_a_weight_that_is_read_twice_sums_over_its_uses() -> None:
    module, x = Fn(lambda s, x: s.fc(s.fc(x).tanh()), fc=nn.Linear(3, 3)), torch.randn(2, 3)
    found = gradient_of(record(module, x), "fc.weight[1, 2]")
    assert found.value is not None
    assert found.steps[-1].formula == "the sum over its 2 uses"
    assert sum(step.value for step in found.steps[:-1]) == pytest.approx(found.steps[-1].value)


def tied() -> nn.Module:
    head = nn.Linear(4, 9, bias=False)
    table = nn.Embedding(9, 4)
    head.weight = table.weight
    return Fn(lambda s, ids: s.head(s.embed(ids)), embed=table, head=head)


def test_tied_weights_have_one_way_back_under_both_names() -> None:
    done = record(tied(), torch.tensor([[1, 2]]))
    one, other = (gradient_of(done, f"{name}.weight[2, 3]") for name in ("embed", "head"))
    assert one.value is not None
    assert one == other


def test_branches_have_the_whole_gradient_at_their_common_output() -> None:
    module = Fn(lambda s, x: (h := s.fc(x)) * 2 + h.sigmoid() * h, fc=nn.Linear(3, 3))
    assert gradient_of(record(module, torch.randn(2, 3)), "fc.weight[1, 2]").value is not None


@pytest.mark.parametrize("write", ["relu_", "sigmoid_", "row"])
def test_an_output_that_is_written_over_afterwards(write: str) -> None:
    def written(self: Any, x: Tensor) -> Tensor:
        y = self.fc(x)
        if write == "row":
            y[0] *= 3
            return y
        return getattr(y, write)()

    module, x = Fn(written, fc=nn.Linear(3, 4)), torch.randn(2, 3)
    for grad in GRADS:
        for row in range(4):
            found = gradient_of(record(module, x, grad=grad), f"fc.weight[{row}, 2]")
            real = gradients(module, lambda y: y.sum(), x)["fc.weight"]
            assert found.value is not None
            assert found.autograd == pytest.approx(float(real[row, 2]))


def test_what_the_pass_computed_has_a_way_back_too() -> None:
    module, x = mlp(), torch.randn(3, 6)
    done = record(module, x, grad="on")
    found = gradient_of(done, "act[1, 4]")
    assert found.value == pytest.approx(module.get_submodule("fc2").weight[:, 4].sum().item())
    assert gradient_of(done, "fc2.input[1, 4]").value == pytest.approx(found.value)
    assert gradient_of(done, "fc1[1, 4]").value is None  # relu has no formula for the way back
    assert gradient_of(done, "output[1, 2]").value == 1  # the loss reads it itself
    assert gradient_of(done, "fc1.input[1, 4]").of == "input[1, 4]"


def test_a_hidden_state_that_is_an_output_too() -> None:
    module = Fn(lambda s, x: {"logits": s.b(h := s.a(x)), "hidden": h},
                a=nn.Linear(3, 2), b=nn.Linear(2, 2))  # fmt: skip
    done = record(module, torch.randn(2, 3), grad="on")
    for loss in (None, lambda out: out["hidden"].square().sum() + out["logits"].sum()):
        assert gradient_of(done, "hidden[1, 1]", loss).value is not None
        assert gradient_of(done, "a.weight[1, 1]", loss).value is not None


@pytest.mark.parametrize("grad", GRADS)
def test_the_loss_is_an_element_or_a_function_of_the_outputs(grad: Any) -> None:
    module, x, target = mlp(), torch.randn(3, 6), torch.tensor([0, 3, 1])
    done = record(module, x, grad=grad)

    def entropy(outputs: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(outputs["output"], target)

    by_function = gradient_of(done, "fc1.weight[7, 3]", entropy)
    real = gradients(module, lambda y: F.cross_entropy(y, target), x)
    assert by_function.loss == "entropy"
    assert by_function.autograd == pytest.approx(float(real["fc1.weight"][7, 3]))
    by_element = gradient_of(done, "fc1.weight[7, 3]", "output[0, 3]")
    real = gradients(module, lambda y: y[0, 3], x)
    assert by_element.loss == "output[0, 3]"
    assert by_element.autograd == pytest.approx(float(real["fc1.weight"][7, 3]))
    assert gradient_of(done, "fc1.weight[7, 3]", "fc2[0, 3]") == by_element


def test_an_output_is_the_loss_even_where_a_module_has_its_name() -> None:
    module = Fn(lambda s, x: s.output(x).exp(), output=nn.Linear(3, 2))
    found = gradient_of(record(module, torch.randn(2, 3)), "output.weight[0, 1]", "output[0, 0]")
    assert found.loss == "output[0, 0]"


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("fc1[0, 0]", "must be an element of an output: output[…]"),
        ("nothing[0]", "nothing in the record is called 'nothing'"),
        ("output", "say which element"),
        (lambda out: out["output"], "must give one number, not (2, 4)"),
        (lambda out: 3.0, "must give a tensor, not float"),
        (lambda out: out["output"].detach().sum(), "does not depend on fc1.weight[0, 0]"),
    ],
)
def test_a_loss_that_is_none(loss: Any, said: str) -> None:
    done = record(mlp(), torch.randn(2, 6), grad="on")
    with pytest.raises(UsageError) as raised:
        done.explain("fc1.weight[0, 0]", gradient=True, loss=loss)
    assert said in str(raised.value)


def test_no_trace_is_left_on_the_module() -> None:
    module, x = mlp(), torch.randn(2, 6)
    module.requires_grad_(False)
    module.get_submodule("fc2").bias.requires_grad_(True)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 5)
    before = [(p, p.requires_grad, p.grad, p.grad.clone(), p.clone()) for p in module.parameters()]
    done = record(module, x)
    assert gradient_of(done, "fc1.weight[1, 1]").autograd != 0
    with pytest.raises(UsageError):
        done.explain("fc1.weight[1, 1]", gradient=True, loss=lambda out: out["output"])
    for parameter, flag, grad, number, weight in before:
        assert parameter.requires_grad is flag
        assert parameter.grad is grad
        assert torch.equal(grad, number)
        assert torch.equal(parameter, weight)


def test_a_weight_that_the_pass_renormalises_stays_as_it_was() -> None:
    module = nn.Embedding(5, 3, max_norm=0.1)
    before = module.weight.detach().clone()
    done = record(module, torch.tensor([1, 2]), grad="off")
    done.explain("weight[1, 2]", gradient=True)
    done.explain("output[1, 2]")
    assert torch.equal(module.weight, before)


def test_a_caller_in_inference_mode_or_without_grad() -> None:
    module, x = mlp(), torch.randn(2, 6)
    wanted = gradient_of(record(module, x, grad="on"), "fc1.weight[3, 2]")
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            inside = record(module, x.clone())
            assert gradient_of(inside, "fc1.weight[3, 2]").autograd == pytest.approx(
                wanted.autograd
            )
        assert gradient_of(inside, "fc1.weight[3, 2]").autograd == pytest.approx(wanted.autograd)


def test_x_times_x_counts_both_factors() -> None:
    x = torch.randn(2, 3)
    found = gradient_of(record(Fn(lambda s, x: x * x), x, grad="on"), "0[1, 2]")
    assert found.value == pytest.approx(2 * float(x[1, 2]))


def test_a_parameter_that_nothing_reads() -> None:
    module = Fn(lambda s, x: s.a(x), a=nn.Linear(3, 2), b=nn.Linear(3, 2))
    done = record(module, torch.randn(2, 3))
    with pytest.raises(UsageError, match=r"nothing in the pass reads b\.weight: its gradient is 0"):
        done.explain("b.weight[0, 0]", gradient=True)


def test_a_use_that_does_not_reach_the_loss() -> None:
    module = Fn(lambda s, x: (s.a(x), s.b(x)), a=nn.Linear(3, 2), b=nn.Linear(3, 2))
    found = gradient_of(record(module, torch.randn(2, 3)), "b.weight[0, 0]")
    assert (found.value, found.autograd) == (0, 0)


def test_where_it_is_not_affine_there_is_no_breakdown() -> None:
    done = record(nn.GELU(), torch.randn(2, 3), grad="on")
    found = gradient_of(done, "input[1, 1]")
    assert found.value is None
    assert found.steps == ()
    assert "no breakdown" in str(done.explain("input[1, 1]", gradient=True))
