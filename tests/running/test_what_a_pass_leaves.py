"""A row's values do not depend on rows before its batch, whatever a pass changes of its module."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_resume_refusals import cut_back
from torch import nn

import forwardpass as fwd
from forwardpass.errors import PassError, ResumeError, UsageError

Tensor = torch.Tensor
X = np.arange(480, dtype=np.float32).reshape(120, 4)
"""Rows whose sum grows: 6, 22, …, so that what is remembered of them would show."""


class Settings:
    def __init__(self) -> None:
        self.scale = 1.0


class Recent(OrderedDict[int, Tensor]):
    """A cache of a class of its own."""


class Leaving(nn.Module):
    """Holds all that a pass could leave something in."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.register_buffer("largest", torch.zeros(()))
        self.register_buffer("out", torch.zeros(64, 4))
        self.seen, self.cached, self.kept = 0, [0], None
        self.counts, self.rng = np.zeros(3), np.random.default_rng(0)
        self.recent, self.settings = Recent(), Settings()


class Counter(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return x.sum(1) + self.seen


class OfItsClass(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return x.sum(1) + OfItsClass.calls


class Maximum(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        self.largest = torch.maximum(self.largest, x.abs().max())
        return x.sum(1) / self.largest


class MaximumInPlace(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        torch.maximum(self.largest, x.abs().max(), out=self.largest)
        return x.sum(1) / self.largest


class Growing(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        self.cached.append(len(x))
        return x.sum(1) + len(self.cached)


class Caching(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        self.kept = x if self.kept is None else torch.cat([self.kept, x])
        return x @ self.kept.mean(0)


class Remembering(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        self.recent[len(self.recent)] = x
        if len(self.recent) > 2:
            self.recent.popitem(last=False)
        return x.sum(1) + torch.stack([value.mean() for value in self.recent.values()]).sum()


class Counting(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        self.counts[1] += 1
        return x.sum(1) + float(self.counts[1])


class Drawing(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1) + float(self.rng.normal())


class Configured(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        self.settings.scale *= 0.5
        return x.sum(1) * self.settings.scale


class Weights(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.linear.weight.mul_(0.9)
        return self.linear(x).sum(1)


class WeightsUnseen(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        self.linear.weight.data.mul_(0.9)
        return self.linear(x).sum(1)


class WeightsReplaced(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        self.linear.weight.data = self.linear.weight.data * 0.9
        return self.linear(x).sum(1)


class Trains(Leaving):
    """It puts its normalisation into train mode, where PyTorch announces no write."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.norm.running_mean
        assert mean is not None
        before = mean.sum().clone()
        self.norm.train()
        self.norm(torch.cat([x, x + 1]))
        return x.sum(1) + before


class InItsOwnMemory(Leaving):
    """What it returns is a buffer that the next pass writes."""

    def forward(self, x: Tensor) -> Tensor:
        self.out[: len(x)] = x * 2
        return self.out[: len(x)].sum(1, keepdim=True) + self.out[: len(x)]


class ItsBuffer(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        self.out[: len(x)] = x * 2
        return self.out[: len(x)]


class Late(Leaving):
    """Only a large row, which no sample shows, changes it."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = max(self.seen, int(x.max() > 300))
        return x.sum(1) + 1000 * self.seen


class LateSwap(Leaving):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x).sum(1)
        if x.max() > 300:
            self.linear = nn.Identity()
        return y


EVERY_PASS = {
    Counter: "attribute seen was changed",
    OfItsClass: "attribute calls was added",
    Maximum: "buffer largest was replaced",
    MaximumInPlace: "buffer largest was written",
    Growing: "attribute cached was changed",
    Caching: "attribute kept was changed",
    Remembering: "attribute recent was changed",
    Counting: "attribute counts was changed",
    Drawing: "attribute rng was changed",
    Configured: "attribute settings was changed",
    Weights: "parameter linear.weight was written",
    WeightsUnseen: "parameter linear.weight was written",
    WeightsReplaced: "parameter linear.weight was given other data",
    Trains: "buffer norm.running_mean was written",
    ItsBuffer: "buffer out was written",
    InItsOwnMemory: "buffer out was written",
}
LATER = {Late: "attribute seen was changed", LateSwap: "module linear was replaced"}


def model(kind: type[nn.Module]) -> fwd.Model:
    return fwd.Model(kind(), "x: f32[batch 4]")


def values(outputs: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(outputs["output"])


@pytest.mark.parametrize(("kind", "said"), [*EVERY_PASS.items(), *LATER.items()])
def test_rows_do_not_depend_on_those_before(kind: type[nn.Module], said: str) -> None:
    whole, report = fwd.run(model(kind), X, batch=10)
    rest, _ = fwd.run(model(kind), X[60:], batch=10)
    assert (values(whole)[60:] == values(rest)).all()
    assert said in report.put_back
    assert said in " ".join(str(report).split())
    first, _ = fwd.run(model(kind), X[:10], batch=10)
    assert (values(whole)[:10] == values(first)).all(), "samples leave nothing, either"


@pytest.mark.parametrize("kind", [*EVERY_PASS, *LATER])
def test_the_users_module_is_as_it_was(kind: type[Leaving]) -> None:
    net = kind()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fwd.run(fwd.Model(net, "x: f32[batch 4]"), X, batch=10)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert (net.seen, net.cached, net.kept, net.calls) == (0, [0], None, 0)
    assert isinstance(net.linear, nn.Linear)


def test_what_the_buffer_held_is_delivered() -> None:
    outputs, _ = fwd.run(model(ItsBuffer), X, batch=10)
    assert (values(outputs) == X * 2).all()


@pytest.mark.parametrize("kind", [Counter, Maximum, Late])
def test_a_resumed_run_is_the_same(kind: type[nn.Module], tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch": 10, "shard_rows": 30}
    whole = fwd.run(model(kind), X, tmp_path / "out", **options)
    cut_back(tmp_path / "out")
    again = fwd.run(model(kind), X, tmp_path / "out", resume=True, **options)
    assert again.resumed_rows == 60
    assert again.digest == whole.digest


def test_a_batch_that_raises_leaves_nothing() -> None:
    class Raises(Leaving):
        def forward(self, x: Tensor) -> Tensor:
            self.cached.append(1)
            if (x[:, 0] == 40).any():
                raise ValueError("poison")
            return x.sum(1) + len(self.cached)

    outputs, report = fwd.run(model(Raises), X, batch=10)
    assert report.quarantined == 1
    assert (values(outputs) == np.delete(X, 10, axis=0).sum(1) + 2).all()


def test_a_model_that_changes_nothing_says_nothing() -> None:
    class Sound(Leaving):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    _, report = fwd.run(model(Sound), X, batch=10)
    assert report.put_back == ()
    assert "put back" not in str(report)


def test_what_no_quick_look_sees_ends_the_run() -> None:
    """A layer of PyTorch's that is changed by a late row alone: nothing false is delivered."""

    class Foul(Leaving):
        def forward(self, x: Tensor) -> Tensor:
            if x.max() > 300:
                self.linear.weight.data.add_(1)
                self.linear.out_features = 7
            return self.linear(x).sum(1)

    with pytest.raises(PassError, match=r"out_features.*--stateful|--stateful"):
        fwd.run(model(Foul), X, batch=10)


# -- kept across rows ----------------------------------------------------------------------------


def test_stateful_keeps_it_in_input_order(tmp_path: Path) -> None:
    outputs, report = fwd.run(model(Counter), X, batch=10, stateful=True)
    assert (values(outputs) == X.sum(1) + np.repeat(np.arange(10, 130, 10), 10)).all()
    assert report.put_back == (), "nothing that samples changed is kept, or told"


def test_stateful_rows_of_all_lengths_stay_in_order() -> None:
    class Order(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = 0

        def forward(self, x: Tensor) -> Tensor:
            before, self.last = self.last, int(x[-1, 0])
            return torch.stack([x[:, 0], torch.full((len(x),), float(before))], 1)

    rng = np.random.default_rng(1)
    rows = [[float(row)] * int(rng.integers(1, 6)) for row in range(1, 60)]
    made = fwd.Model(Order(), "x: f32[batch length]")
    outputs, _ = fwd.run(made, {"x": rows}, batch=4, stateful=True)
    before = values(outputs)[:, 1]
    assert (before < values(outputs)[:, 0]).all()
    assert (np.diff(before) >= 0).all()


def test_stateful_cannot_be_resumed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch": 10, "shard_rows": 30}
    with pytest.raises(UsageError, match="--stateful does not go with --resume"):
        fwd.run(model(Counter), X, tmp_path / "out", stateful=True, resume=True, **options)
    fwd.run(model(Counter), X, tmp_path / "out", stateful=True, **options)
    cut_back(tmp_path / "out")
    with pytest.raises(ResumeError, match="stateful was True, is False"):
        fwd.run(model(Counter), X, tmp_path / "out", resume=True, **options)


# -- a model of transformers ---------------------------------------------------------------------


def test_big_bird_switches_its_attention_for_good() -> None:
    """One short row replaces its block-sparse attention by the full one, in the whole module."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BigBirdConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=128, block_size=4, num_random_blocks=1,
        initializer_range=0.5, sep_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    bird = transformers.BigBirdModel(config).eval()

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bird = bird

        def forward(self, ids: Tensor) -> Tensor:
            return self.bird(input_ids=ids).last_hidden_state.mean(1)

    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 40, size).tolist() for size in (64, 64, 8, 8, 64, 64, 72, 64)]
    made = fwd.Model(First(), "ids: i64[batch tokens]")
    whole, report = fwd.run(made, {"ids": rows}, batch=2)
    assert any("attention.self was replaced" in said for said in report.put_back)
    rest, _ = fwd.run(made, {"ids": rows[4:]}, batch=2)
    np.testing.assert_allclose(values(whole)[4:], values(rest), atol=1e-6)
    assert bird.attention_type == "block_sparse"
    bird.set_attention_type("original_full")
    full = bird(input_ids=torch.tensor(rows[4:5])).last_hidden_state.mean(1).detach()
    assert np.abs(values(rest)[0] - full.numpy()).max() > 1e-3, "the two differ, so the row tells"


def test_a_lazy_model_is_refused() -> None:
    """Its first pass would make its weights, others in each run."""
    with pytest.raises(UsageError, match="LazyLinear is lazy: its weight has no shape yet"):
        fwd.run(fwd.Model(nn.LazyLinear(3), "x: f32[batch 4]"), X)
