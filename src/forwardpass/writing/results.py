"""Results: what an operator returns, and which tensor stands at which place of it."""

from __future__ import annotations

from forwardpass.writing.literals import SpelledArguments
from forwardpass.writing.scopes import Flow


def results_of(a: SpelledArguments, flow: Flow, first: bool) -> list[int] | None:
    """The serials of what the expression returns, -1 for what needs no name.

    None where the places of the tensors in the result are not known.
    """
    makes = flow.makes(a.call)
    if a.operator is None:
        return None if len(makes) > 1 else makes
    returns = a.operator._schema.returns
    kinds = [str(entry.type) for entry in returns]
    given = list(makes)
    if not any(entry.alias_info is not None and entry.alias_info.is_write for entry in returns):
        given = [
            s for s, serial in zip(makes, a.call.outputs, strict=True)
            if flow.roots[serial] == serial
        ]  # fmt: skip
    if len(kinds) == 1 and (kinds[0] == "Tensor" or first):
        return given[:1]
    if first:
        return given[:1]
    if kinds == ["List[Tensor]"]:
        return given if len(given) == len(makes) and not a.call.writes else None
    if any(kind.startswith(("List", "Optional")) for kind in kinds):
        return None
    if kinds.count("Tensor") != len(given):
        return None
    order = iter(given)
    return [next(order) if kind == "Tensor" else -1 for kind in kinds]


def gives_several(a: SpelledArguments, results: list[int]) -> bool:
    """Whether an expression gives a tuple or a list, of however many."""
    if len(results) != 1:
        return True
    return a.operator is not None and str(a.operator._schema.returns[0].type) == "List[Tensor]"
