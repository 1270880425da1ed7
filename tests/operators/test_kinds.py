"""The kinds of operators, held against what PyTorch says of them and what they do.

Each operator that moves is called on numbers that are all different, so that the result tells which
of them it has, and where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from forwardpass.operators import kinds

ATEN: Any = torch.ops.aten
TABLE = sorted(
    {name for held in vars(kinds).values() if isinstance(held, frozenset) for name in held}
)
MOVING = [name for name in TABLE if kinds.moves(name)]
# Views that show no numbers as they are: parts of complex and sparse ones, tangents, what is
# inside of nested ones. No pass pins memory, and only a machine with an accelerator can.
OTHER_VIEWS = {
    "_fw_primal", "_indices", "_make_dual", "_nested_get_values", "_nested_view_from_buffer",
    "_nested_view_from_jagged", "_sparse_broadcast_to", "_test_autograd_multiple_dispatch_view",
    "_unpack_dual", "_values", "ccol_indices", "coalesce", "col_indices", "crow_indices", "imag",
    "indices", "pin_memory", "real", "row_indices", "slice_inverse", "values", "view_as_complex",
    "view_as_real",
}  # fmt: skip
# How each is called on a tensor of four axes, those of an image; by the name alone where not here.
ARGUMENTS: dict[str, Callable[[Tensor], tuple[Any, ...]]] = {
    "_reshape_alias": lambda x: (x, [x.numel()], [1]),
    "as_strided": lambda x: (x, [2, 2], [1, 1]),
    "broadcast_to": lambda x: (x, [3, *x.shape]),
    "cat": lambda x: ([x, x],),
    "channel_shuffle": lambda x: (x, 2),
    "chunk": lambda x: (x, 2, 1),
    "column_stack": lambda x: ([x, x],),
    "concat": lambda x: ([x, x],),
    "concatenate": lambda x: ([x, x],),
    "dsplit": lambda x: (x, 2),
    "dstack": lambda x: ([x, x],),
    "expand": lambda x: (x, [3, *x.shape]),
    "expand_as": lambda x: (x, torch.empty(3, *x.shape)),
    "flatten": lambda x: (x, 1),
    "flip": lambda x: (x, [1, 3]),
    "hsplit": lambda x: (x, 2),
    "hstack": lambda x: ([x, x],),
    "linalg_diagonal": lambda x: (x,),
    "moveaxis": lambda x: (x, [0], [2]),
    "movedim": lambda x: (x, [0], [2]),
    "narrow": lambda x: (x, 1, 1, 2),
    "native_channel_shuffle": lambda x: (x, 2),
    "permute": lambda x: (x, [2, 0, 3, 1]),
    "pixel_shuffle": lambda x: (x, 2),
    "pixel_unshuffle": lambda x: (x, 2),
    "repeat": lambda x: (x, [2, 1, 1, 3]),
    "reshape": lambda x: (x, [-1]),
    "reshape_as": lambda x: (x, torch.empty(x.numel())),
    "roll": lambda x: (x, [1], [2]),
    "rot90": lambda x: (x, 1, [2, 3]),
    "row_stack": lambda x: ([x, x],),
    "select": lambda x: (x, 1, 2),
    "slice": lambda x: (x, 1, 1, None, 2),
    "split": lambda x: (x, 2, 1),
    "split_with_sizes": lambda x: (x, [1, x.shape[1] - 1], 1),
    "squeeze": lambda x: (x,),
    "stack": lambda x: ([x, x],),
    "swapaxes": lambda x: (x, 0, 2),
    "swapdims": lambda x: (x, 0, 2),
    "t": lambda x: (x[0, 0],),
    "tensor_split": lambda x: (x, 3, 1),
    "tile": lambda x: (x, [2]),
    "transpose": lambda x: (x, 0, 2),
    "unflatten": lambda x: (x, 1, [2, -1]),
    "unfold": lambda x: (x, 1, 2, 1),
    "unsqueeze": lambda x: (x, 1),
    "view": lambda x: (x, [-1]),
    "view_as": lambda x: (x, torch.empty(x.numel())),
    "vsplit": lambda x: (x, 2),
    "vstack": lambda x: ([x, x],),
}


def overloads(name: str) -> list[Any]:
    packet = getattr(ATEN, name)
    return [getattr(packet, overload) for overload in packet.overloads()]


def every() -> list[str]:
    names = {
        full.partition("::")[2].partition(".")[0]
        for full in torch._C._dispatch_get_all_op_names()
        if full.startswith("aten::")
    }
    return sorted(name for name in names if hasattr(ATEN, name))


EVERY = every()


def images() -> st.SearchStrategy[Tensor]:
    """Tensors of four axes in which every number is another one."""
    return st.builds(
        lambda batch, channels, height, width: torch.arange(
            float(batch * channels * height * width)
        ).reshape(batch, channels, height, width),
        *[st.integers(1, 3).map(lambda n, by=by: n * by) for by in (2, 4, 2, 2)],
    )


def called(name: str, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The operands of a call and its results."""
    arguments = ARGUMENTS.get(name, lambda x: (x,))(x)
    result = getattr(ATEN, name)(*arguments)
    operands = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
    return operands, [result] if isinstance(result, Tensor) else list(result)


def numbers(tensors: list[Tensor]) -> Counter[float]:
    return Counter(number for tensor in tensors for number in tensor.flatten().tolist())


@pytest.mark.parametrize("name", TABLE)
def test_every_name_of_the_table_is_an_operator(name: str) -> None:
    assert name in EVERY or (kinds.bare(f"{name}_") == name and f"{name}_" in EVERY)


def test_every_view_of_pytorch_is_of_a_kind() -> None:
    """Which operators view is in their schemas, as results that stand in an operand's memory."""
    views = {
        name
        for name in EVERY
        for operator in overloads(name)
        if any(r.alias_info and not r.alias_info.is_write for r in operator._schema.returns)
    }
    assert len(views) > 70
    known = {n for n in views if kinds.moves(n) or kinds.casts(n) or kinds.negates(n)}
    assert views - known - OTHER_VIEWS == set()


@pytest.mark.parametrize("tag", [torch.Tag.inplace_view, torch.Tag.view_copy])
def test_a_variant_is_of_the_kind_of_its_operator(tag: Any) -> None:
    """`transpose_` and `transpose_copy` are what `transpose` is."""
    names = [name for name in EVERY if any(tag in op.tags for op in overloads(name))]
    assert len(names) > 10
    for name in names:
        plain = name.removesuffix("_").removesuffix("_copy")
        assert kinds.moves(name) is kinds.moves(plain), name
        assert kinds.copies(name) is kinds.copies(plain), name


@pytest.mark.parametrize(
    ("written", "bare"),
    [
        ("aten.transpose.int", "transpose"),
        ("transpose_", "transpose"),
        ("aten.transpose_copy.int_out", "transpose"),
        ("_unsafe_view", "view"),
        ("aten.unsafe_split.Tensor", "split"),
        ("aten.add_.Tensor", "add"),
        ("_to_copy", "_to_copy"),
        ("index_copy_", "index_copy"),
        ("lift_fresh_copy", "lift_fresh"),
        ("_conj_copy", "_conj"),
        ("relu", "relu"),
    ],
)
def test_a_name_stands_for_its_variants(written: str, bare: str) -> None:
    assert kinds.bare(written) == bare


@pytest.mark.parametrize("name", MOVING)
@given(image=images())
@settings(max_examples=8, deadline=None)
def test_what_moves_gives_numbers_of_its_operands_and_no_others(name: str, image: Tensor) -> None:
    operands, results = called(name, image)
    given_, made = numbers(operands), numbers(results)
    assert made.keys() <= given_.keys()
    if kinds.keeps_numbers(name) or kinds.joins(name):
        assert made == given_
    if kinds.keeps_order(name):
        assert torch.equal(results[0].reshape(-1), operands[0].reshape(-1))
    if kinds.copies(name):
        assert torch.equal(results[0], operands[0])


def test_what_moves_is_no_wider_than_it_must_be() -> None:
    """What is said to lose, repeat or reorder numbers does."""
    x = torch.arange(192.0).reshape(2, 4, 4, 6)
    for name in MOVING:
        operands, results = called(name, x)
        (first, *_), (made, *more) = operands, results
        equal = not more and made.shape == first.shape and torch.equal(made, first)
        ordered = not more and torch.equal(made.reshape(-1), first.reshape(-1))
        if not kinds.copies(name) and name != "squeeze":
            assert not equal, name
        if not kinds.keeps_order(name):
            assert not ordered, name


@pytest.mark.parametrize("name", [name for name in TABLE if kinds.casts(name)])
def test_what_casts_gives_the_same_numbers(name: str) -> None:
    x = torch.tensor([1.0, -2.5, 0.0])
    arguments = {
        "_autocast_to_full_precision": (False, False),
        "_autocast_to_reduced_precision": (False, True, torch.float16, torch.bfloat16),
        "to": (torch.float64,),
        "type_as": (torch.empty(0, dtype=torch.float64),),
    }.get(name, ())
    keywords = {"dtype": torch.float64} if name == "_to_copy" else {}
    assert torch.equal(getattr(ATEN, name)(x, *arguments, **keywords).float(), x)


@pytest.mark.parametrize("name", [name for name in TABLE if kinds.negates(name)])
def test_what_negates_changes_signs(name: str) -> None:
    x = torch.tensor([[1 + 2j]])
    made = getattr(ATEN, name)(x)
    assert made.resolve_neg().item() in (1 - 2j, -1 - 2j)
    assert not kinds.moves(name)


def test_what_allocates_leaves_memory_as_it_is() -> None:
    """PyTorch fills with NaN what nothing has written, where it is told to be deterministic."""
    x, sizes = torch.ones(2), [3, 3]
    made = {
        "empty": lambda: ATEN.empty(sizes),
        "empty_like": lambda: ATEN.empty_like(x),
        "empty_permuted": lambda: ATEN.empty_permuted(sizes, [0, 1]),
        "empty_strided": lambda: ATEN.empty_strided(sizes, [3, 1]),
        "new_empty": lambda: ATEN.new_empty(x, sizes),
        "new_empty_strided": lambda: ATEN.new_empty_strided(x, sizes, [3, 1]),
        "resize": lambda: ATEN.resize_(torch.empty(0), sizes),
        "resize_as": lambda: ATEN.resize_as_(torch.empty(0), x),
    }
    assert set(made) == {name for name in TABLE if kinds.allocates(name)}
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for name, make in made.items():
            assert make().isnan().all(), name
    finally:
        torch.use_deterministic_algorithms(before)
    assert not kinds.allocates("zeros")


@pytest.mark.parametrize("name", [name for name in TABLE if kinds.adds_up(name)])
def test_what_adds_up_has_numbers_that_depend_on_many(name: str) -> None:
    index, source = torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.float64)
    arguments: tuple[Any, ...] = {
        "_log_softmax": (0, False), "_softmax": (0, False), "log_softmax": (0,), "softmax": (0,),
        "cumprod": (0,), "cumsum": (0,), "logcumsumexp": (0,), "logsumexp": ([0],),
        "layer_norm": ([4],), "native_layer_norm": ([4], None, None, 1e-5),
        "index_add": (0, index), "scatter_add": (0, index), "scatter_reduce": (0, index),
    }.get(name, ())  # fmt: skip

    def result(x: Tensor) -> Tensor:
        if name in ("index_add", "scatter_add"):
            return getattr(ATEN, name)(source, *arguments, x)
        if name == "scatter_reduce":
            return ATEN.scatter_reduce(source, *arguments, x, "sum")
        made = getattr(ATEN, name)(x, *arguments)
        return made if isinstance(made, Tensor) else made[0]

    x = torch.tensor([0.3, -1.2, 0.7, 2.0], dtype=torch.float64)
    rows = torch.autograd.functional.jacobian(result, x).reshape(-1, 4)
    assert int((rows != 0).sum(1).max()) == 4


@pytest.mark.parametrize("name", [name for name in EVERY if kinds.reads_shape(name)])
def test_what_reads_shapes_alone_does_not_see_numbers(name: str) -> None:
    arguments: tuple[Any, ...] = {
        "full_like": (7.0,), "randint_like": (9,), "new_empty": ([2],), "new_zeros": ([2],),
        "new_ones": ([2],), "new_full": ([2], 7.0), "new_empty_strided": ([2], [1]),
    }.get(name, ())  # fmt: skip

    def made(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return getattr(ATEN, name)(x, *arguments)

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        left, right = made(torch.zeros(3)), made(torch.ones(3))
    finally:
        torch.use_deterministic_algorithms(before)
    assert torch.equal(left.nan_to_num(), right.nan_to_num())
