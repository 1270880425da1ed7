"""Neuron: the sum is the recorded value, each number stands where it says, and a change is run."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import models
import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from untouched import untouched

from forwardpass import Forward, Model
from forwardpass.errors import UsageError
from forwardpass.explaining import targets
from forwardpass.exploring.arithmetic import Breakdown, ChosenRow, Stand, Summand
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.asking import asked as answerable
from forwardpass.exploring.axes import axes_of
from forwardpass.exploring.changing import Changed
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.opening import of_pass
from forwardpass.exploring.questions import neuron
from forwardpass.exploring.rows import PassGiven, given
from forwardpass.loading import load
from forwardpass.nouns.progress import Steps
from forwardpass.probing.changes import Change
from forwardpass.probing.edits import SetElement
from forwardpass.probing.elements import InputElement
from forwardpass.recording.recordings import Recording

ELEMENTS = 20


def explored(module: nn.Module, *inputs: Tensor) -> Exploration:
    from forwardpass import record

    done = record(module, inputs, grad="off", mode="eval")
    assert isinstance(done, Recording)
    return Exploration("it", PassGiven(done))


class Attends(nn.Module):
    """Attention as it is written by hand, and as PyTorch has it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        scores = q @ k.mT / 2
        both = scores.softmax(-1) @ v + F.scaled_dot_product_attention(q, k, v)
        return self.out(both.transpose(1, 2).flatten(-2))


TOKENS = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([[3, 1, 4, 1, 5]])
IMAGE = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(2))
OPERATORS: dict[str, tuple[nn.Module, Tensor]] = {
    "linear": (nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4)), TOKENS),
    "attention": (Attends(), TOKENS),
    "norms": (nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.RMSNorm(8)), TOKENS),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), TOKENS),
    "embedding": (nn.Sequential(nn.Embedding(9, 5), nn.Softmax(-1)), IDS),
    "convolution": (
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.ConvTranspose2d(4, 6, 2, stride=2), nn.GroupNorm(2, 6), nn.AvgPool2d(2),
            nn.Conv2d(6, 6, 3, groups=3, bias=False), nn.SiLU(), nn.Flatten(), nn.Linear(24, 3),
        ),
        IMAGE,
    ),
}  # fmt: skip


def some(record: Recording, seed: int = 0) -> Iterator[str]:
    """Elements of all that can be explained, 20 of each operator at least where it has them."""
    draw = torch.Generator().manual_seed(seed)
    for target in targets(record):
        if not target.value.elements:
            continue  # what batch normalisation keeps for its gradient
        for _ in range(ELEMENTS if target.value.elements > ELEMENTS else 1):
            at = [int(torch.randint(size, (1,), generator=draw)) for size in target.value.shape]
            yield f"{target.name}[{', '.join(map(str, at))}]" if at else target.name


def number(record: Recording, stand: Stand) -> float:
    """What stands there: a parameter, an input, or an element that was recorded."""
    if stand.kind in ("parameter", "buffer"):
        return float(record.this.module.state_dict()[stand.owner][stand.index])
    if stand.kind == "input":
        return float(record.this.named(record.this.arguments, {})[stand.owner][stand.index])
    return record.explain(f"{stand.owner}[{', '.join(map(str, stand.index))}]").parts[0].recorded


def terms(part: Breakdown) -> Iterator[Summand]:
    for step in part.steps:
        yield from step.terms


@pytest.mark.parametrize("name", OPERATORS)
def test_the_sum_of_each_operator_is_what_was_recorded(name: str) -> None:
    exploration = explored(*OPERATORS[name])
    record = exploration.record()
    assert isinstance(record, Recording)
    for text in some(record):
        part = neuron.element(exploration, Steps(), element=text).parts[0]
        if part.lacking:
            assert part.inputs, f"{text} says neither how nor of what"
            continue
        assert part.rounding, (text, part.value, part.recorded)
        for step in part.steps:
            if step.told and step.sums:
                rest = 0.0 if step.rest is None else float(step.rest)
                total = math.fsum(float(term.value) for term in step.terms) + rest
                assert total == pytest.approx(float(step.value), abs=1e-9)


@pytest.mark.parametrize("name", OPERATORS)
def test_each_number_stands_where_it_says(name: str) -> None:
    """Whatever view or copy lies between: it is the number of that parameter, input or element."""
    exploration = explored(*OPERATORS[name])
    record = exploration.record()
    assert isinstance(record, Recording)
    kinds: set[str] = set()
    for text in list(some(record, 1))[::7]:
        for term in terms(neuron.element(exploration, Steps(), element=text).parts[0]):
            held = term.factors or (term.value,)
            for factor, stand in zip(held, term.stands, strict=False):
                if stand is not None and stand.kind != "other":
                    kinds.add(stand.kind)
                    assert number(record, stand) == float(factor), (text, term.label, stand)
    assert "call" in kinds or name in ("embedding", "encoder"), "one fused operator calls no other"


def test_the_window_of_a_convolution_is_where_it_looks() -> None:
    exploration = explored(*OPERATORS["convolution"])
    found = neuron.element(exploration, Steps(), element="0[0, 1, 0, 8]")  # in a corner
    picture = found.picture
    assert picture is not None
    assert picture.image is not None
    assert picture.exact
    assert (picture.blocks, picture.height, picture.width) == (3, 3, 3)
    assert (picture.image.top, picture.image.left, picture.image.bottom) == (-1, 7, 2)
    inside = [one for one in picture.products if one is not None]
    assert len(inside) == 3 * 4, "padding is no term"
    assert math.fsum(map(float, inside)) == pytest.approx(float(found.parts[0].steps[0].value))
    assert picture.image.numbers == pytest.approx(IMAGE[0].double().mean(0).flatten().tolist())
    assert [part.kind for part in found.parts] == ["Conv2d", "BatchNorm2d", "ReLU"]


def test_what_is_looked_at_first_is_a_layer_with_an_activation() -> None:
    found = neuron.element(Exploration("cnn", given(Forward(models.cnn()))), Steps())
    assert found.owner == "0"
    assert found.axes == ("row of the batch", "channel", "row", "column")
    assert found.parts[-1].kind == "ReLU"


def test_axes_have_the_names_that_the_signature_and_the_operators_know() -> None:
    """Through views too: what joins or divides an axis has no name of either."""
    module = nn.Sequential(nn.Embedding(9, 8), Attends(), nn.Linear(8, 3), nn.Flatten())
    rows = [{"ids": torch.tensor([3, 1, 4, 1, 5])}]
    model = Model(module.eval(), "ids: i64[batch tokens]")
    exploration = Exploration("it", given(load(model), rows))
    axes = {
        text: neuron.element(exploration, Steps(), element=f"{text}[{', '.join('0' * rank)}]").axes[
            1:
        ]
        for text, rank in {"0": 3, "1.qkv": 3, "1": 3, "2": 3, "3": 2}.items()
    }
    assert axes == {
        "0": ("tokens", "feature"), "1.qkv": ("tokens", "feature"), "1": ("tokens", "feature"),
        "2": ("tokens", "feature"), "3": ("axis 1",),
    }  # fmt: skip
    record = exploration.record()
    by_maker = {
        call.packet: axes_of(record, record.values[call.outputs[0]], exploration.given.signature)
        for call in record.calls
        if len(record.values[call.outputs[0]].shape) == 4 and call.kind == "compute"
    }
    assert by_maker["aten._scaled_dot_product_flash_attention_for_cpu"][1:] == (
        "head", "tokens", "feature",
    )  # fmt: skip


def test_the_id_that_chose_a_row_can_be_another() -> None:
    exploration = explored(*OPERATORS["embedding"])
    first = neuron.element(exploration, Steps(), element="0[0, 2, 3]").parts[0].chosen
    assert first == ChosenRow(4, 9, Stand("input", "input", (0, 2)))
    change = Changed(inputs=(InputElement("input", (0, 2), 8.0),))
    other = neuron.element(exploration, Steps(), element="0[0, 2, 3]", change=change).parts[0]
    assert other.chosen is not None
    assert other.chosen.id == 8
    assert other.recorded == float(OPERATORS["embedding"][0][0].weight[8, 3].detach())


def test_a_number_that_is_set_moves_what_torch_moves_and_not_the_model() -> None:
    module, x = OPERATORS["linear"]
    exploration = explored(module, TOKENS)
    change = Changed(
        edits=(SetElement("0.weight", (2, 3), 1.5),),
        inputs=(InputElement("input", (0, 1, 3), -2.0),),
    )
    with untouched(module):
        found = neuron.element(exploration, Steps(), element="0[0, 1, 2]", change=change)
        moved = neuron.moved(exploration, Steps(), change=change)
    twin: Any = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4))
    twin.load_state_dict(module.state_dict())
    other = x.clone()
    with torch.no_grad():
        twin[0].weight[2, 3] = 1.5
        other[0, 1, 3] = -2
        assert found.parts[0].recorded == pytest.approx(float(twin[0](other)[0, 1, 2]), abs=1e-6)
        was, now = module(x), twin(other)
    assert moved.was == [pytest.approx(float(was[place]), abs=1e-6) for place in moved.index]
    assert moved.now == [pytest.approx(float(now[place]), abs=1e-6) for place in moved.index]
    assert moved.distance == pytest.approx(float((was - now).abs().max()), abs=1e-6)
    assert moved.hash_before == moved.hash_after
    assert (1.5, -2.0) in [term.factors for term in terms(found.parts[0])]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (InputElement("inputs", (0, 0), 1), "did you mean 'input'"),
        (InputElement("input", (0, 7), 1), "its shape is"),
        (InputElement("input", (0, 0), 1.5), "is no number of these"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(change: InputElement, said: str) -> None:
    exploration = explored(nn.Embedding(9, 5), IDS)
    with pytest.raises(UsageError, match=said):
        neuron.moved(exploration, Steps(), change=Changed(inputs=(change,)))


@pytest.mark.parametrize("name", ["0.weight[0, 1]", "input[0, 1]"])
def test_a_number_that_was_given_says_where_it_can_be_set(name: str) -> None:
    exploration = explored(nn.Sequential(nn.Linear(3, 2)), torch.ones(1, 3))
    with pytest.raises(UsageError, match="goes into; there it can be set") as refused:
        neuron.element(exploration, Steps(), element=name)
    assert "--gradient" not in str(refused.value)


def asked(exploration: Exploration, element: str) -> dict[str, Any]:
    found = neuron.predictions(exploration, Steps(), element=element).predictions
    return {one.id.partition(" ")[0]: one for one in found}


@pytest.mark.parametrize("place", range(6))
def test_predictions_come_true_as_torch_computes_them(place: int) -> None:
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
    exploration = explored(module, TOKENS)
    element = f"0[0, 2, {place}]"
    found = asked(exploration, element)
    layer: Any = module[0]
    before = layer(TOKENS)[0, 2, place].item()
    one = found["pass"]
    settled = neuron.settle(exploration, Steps(), id=one.id, element=str(one.arguments["element"]))
    assert settled.choice == ((0,) if before > 0 else (1,))
    one = found["bias"]
    settled = neuron.settle(exploration, Steps(), id=one.id, element=str(one.arguments["element"]))
    without = F.linear(TOKENS, layer.weight)[0, 2, place].item()
    assert settled.choice == (1,)
    assert settled.answer.replace("\u2212", "-") == f"{before:.4f} → {without:.4f}"
    assert len(settled.why.split()) <= 30


def test_a_gelu_gives_another_number_and_an_embedding_has_nothing_to_predict() -> None:
    exploration = explored(*OPERATORS["linear"])
    one = asked(exploration, "0[0, 0, 0]")["pass"]
    assert neuron.settle(
        exploration, Steps(), id=one.id, element=str(one.arguments["element"])
    ).choice == (2,)
    assert asked(explored(*OPERATORS["embedding"]), "0[0, 0, 0]") == {}
    assert asked(exploration, "input[0, 0, 0]") == {}, "it is given"


def test_nothing_is_asked_of_a_change_to_a_pass_that_raises() -> None:
    broken = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(4, 1))
    given = torch.randn(1, 4)
    assert set(asked(of_pass(Forward(Model(broken)), given), "0[0, 1]")) == {"pass"}
    whole = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    exploration = explored(whole, given)
    calls = exploration.record((0,), Change()).calls  # one more or less, as the executor has it
    layer = [call.packet for call in calls].index("aten.relu") - 1
    predictions = asked(exploration, f"#{layer}[0, 1]")
    assert predictions["pass"].question.startswith(f"Will the aten.relu pass #{layer}[0, 1] on")


def test_numbers_that_json_has_not_arrive_as_what_they_are() -> None:
    module = nn.Linear(3, 1)
    exploration = explored(module, torch.tensor([[1.0, float("nan"), float("inf")]]))
    found = neuron.element(exploration, Steps(), element="output[0, 0]")
    assert found.parts[0].recorded == "NaN"
    assert {term.value for term in terms(found.parts[0])} & {"NaN", "Infinity", "-Infinity"}
    assert b"null" not in msgspec.json.encode(found.parts[0].steps[0].terms)


def test_nan_that_stays_nan_is_the_same_number() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    exploration = explored(module, torch.tensor([[1.0, float("nan"), 2.0]]))
    settled = {
        kind: neuron.settle(exploration, Steps(), id=one.id, element=one.arguments["element"])
        for kind, one in asked(exploration, "0[0, 1]").items()
    }
    assert settled["pass"].choice == (0,)
    assert "NaN, no number" in settled["pass"].why
    assert settled["bias"].choice == (0,)
    assert settled["bias"].answer == "NaN → NaN"
    assert "added to NaN, it changes nothing" in settled["bias"].why


def test_what_a_change_moves_is_not_what_was_learned_meanwhile() -> None:
    module = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4))
    exploration = explored(module, TOKENS)
    change = Changed(edits=(SetElement("0.weight", (2, 3), 1.5),))
    learns: Any = module[2]
    with torch.no_grad():
        neuron.element(exploration, Steps())
        learns.bias.add_(3.0)
        was = module(TOKENS)
        moved = neuron.moved(exploration, Steps(), change=change)
        other: Any = copy.deepcopy(module)
        other[0].weight[2, 3] = 1.5
        now = other(TOKENS)
    assert moved.was == [pytest.approx(float(was[place]), abs=1e-6) for place in moved.index]
    assert moved.now == [pytest.approx(float(now[place]), abs=1e-6) for place in moved.index]
    assert moved.distance == pytest.approx(float((was - now).abs().max()), abs=1e-6)


def test_what_an_exported_page_holds_can_be_asked() -> None:
    exploration = Exploration("cnn", given(Forward(models.cnn())))
    questions = list(neuron.exported(exploration))
    assert PageQuestion("neuron.element", {"row": 0, "element": ""}) in questions
    for question in questions[:6]:
        answerable(question).answer(exploration, Steps())


@pytest.mark.parametrize("name", sorted(models.MODELS.keys() - {"bert"}))  # it loads for long
def test_any_model_has_an_answer_or_a_reason(name: str) -> None:
    model: Model = models.MODELS[name]()
    exploration = Exploration(name, given(Forward(model)))
    try:
        found = neuron.element(exploration, Steps())
        moved = neuron.moved(exploration, Steps())
    except UsageError as error:
        unlike = ("dense real tensors", "that could be explained", "cannot be copied")
        if not any(said in str(error) for said in unlike):
            raise
        return
    assert found.parts[0].steps or found.parts[0].lacking
    assert not found.parts[0].steps or found.parts[0].rounding
    assert moved.hash_before == moved.hash_after
    for one in neuron.predictions(exploration, Steps()).predictions:
        settled = neuron.settle(
            exploration, Steps(), id=one.id, element=str(one.arguments["element"])
        )
        assert all(place < len(one.choices) for place in settled.choice)
