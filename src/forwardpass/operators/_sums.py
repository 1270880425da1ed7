"""What the files share: numbers out of tensors, places in broadcast shapes, products and sums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product as combinations
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation, Term

if TYPE_CHECKING:
    from torch import Tensor

Arguments = Mapping[str, Any]
Element = tuple[int, ...]


def numbers(tensor: Tensor) -> Any:
    """The tensor as nested lists of floats; a float where it has no axis.

    Raises LookupError for complex numbers, which these formulas do not explain.
    """
    if tensor.is_complex():
        raise LookupError(f"a {tensor.dtype} tensor came; the arithmetic is of real numbers only")
    return tensor.detach().double().tolist()


def at(tensor: Tensor, element: Element) -> float:
    return numbers(tensor[element])


def picked(tensor: Tensor, places: Sequence[Element]) -> list[float]:
    """The numbers at these places, fetched at once: reading one by one takes thousands of calls."""
    if not places or tensor.dim() == 0:
        return [numbers(tensor)] * len(places)
    return numbers(tensor[tuple(list(axis) for axis in zip(*places, strict=True))])


def place(name: str, *index: int | str) -> str:
    """`place("W", 7, 3)` is `W[7, 3]`; a tensor without axes has its bare name."""
    return f"{name}[{', '.join(map(str, index))}]" if index else name


def times(label: str, *factors: float) -> Term:
    """The product of the factors."""
    value = 1.0
    for factor in factors:
        value *= factor
    return Term(label, value, factors)


def summed(name: str, formula: str, terms: Iterable[Term]) -> Equation:
    kept = tuple(terms)
    return Equation(name, formula, sum((term.value for term in kept), 0.0), kept)


def only_first(operator: str, output: int) -> None:
    """Raises LookupError for outputs that are not explained: mostly what autograd keeps."""
    if output:
        raise LookupError(f"{operator}: output {output} is not explained; output 0 is")


def joined(first: Sequence[int], second: Sequence[int]) -> Element:
    """The shape that two shapes broadcast to."""
    rank = max(len(first), len(second))
    wide = [(1,) * (rank - len(shape)) + tuple(shape) for shape in (first, second)]
    return tuple(b if a == 1 else a for a, b in zip(*wide, strict=True))


def behind(element: Element, shape: Sequence[int]) -> Element:
    """The element of an operand of this shape that is broadcast to `element` of the result."""
    own = element[len(element) - len(shape) :]
    return tuple(0 if size == 1 else i for i, size in zip(own, shape, strict=True))


def operand(name: str, given: Any, element: Element) -> Term:
    """What an operand, a tensor or a number, brings to this element of the result.

    Raises LookupError for a complex number.
    """
    if hasattr(given, "shape"):
        own = behind(element, given.shape)
        return Term(place(name, *own), at(given, own))
    if isinstance(given, complex):
        raise LookupError(f"{name} is {given}; the arithmetic is of real numbers only")
    return Term(f"{float(given):g}", float(given))


def reached(element: Element, shape: Sequence[int], result: Sequence[int]) -> Iterator[Element]:
    """The elements of the result that `element`, of an operand of this shape, is broadcast to."""
    new = len(result) - len(shape)
    axes = [range(size) for size in result[:new]]
    for i, size, wide in zip(element, shape, result[new:], strict=True):
        axes.append(range(wide) if size == 1 else range(i, i + 1))
    return combinations(*axes)
