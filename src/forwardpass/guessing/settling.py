"""What a form that goes through may vary in, and whether its rows meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from forwardpass.guessing.following import Met, bounds
from forwardpass.guessing.forms import UNKNOWN, Forms
from forwardpass.guessing.trying import Passes, Tried
from forwardpass.nouns.signatures import Axis, Input, Signature

_DRAWN = 16
"""The size that examples have, with which every guess is tried."""
_OTHERS = (64, 96, 32, 128, 160, 192, 224, 256)
"""Other sizes that must go through if axes are said to vary, and apart from each other."""
_STEPS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Guess:
    """What a module may take: passes with it go through.

    Attributes:
        apart: whether each row gives alone what it gives beside others.
    """

    signature: Signature
    apart: bool


def settled(passes: Passes, done: Tried) -> Guess | None:
    """The guess that a pass which went through allows. None where random numbers do not.

    An axis varies only if other sizes go through; else it keeps the size with which a pass did.
    """
    below = bounds(done.met)
    forms = _untied(passes, done.forms, below)
    names = _names(forms, done.met)
    for axes in _varying(passes, forms, names, below):
        sizes = {
            name: min(axis.rounded(_DRAWN), axis.high or _DRAWN) for name, axis in axes.items()
        }
        apart = passes.rows_apart(forms.sized(sizes), below)
        if apart is not None:
            return Guess(forms.signature(axes), apart)
    if any(item.derivation for item in forms.inputs.values()):
        return None
    for name in [name for name, size in forms.sizes.items() if size == UNKNOWN[name]]:
        forms = forms.sized({name: _OTHERS[0]})  # a size of ours that nothing asked for
    apart = passes.rows_apart(forms, below)
    return None if apart is None else Guess(forms.signature({}), apart)


def _varying(
    passes: Passes, forms: Forms, names: Mapping[str, str], below: Mapping[str, int]
) -> Iterator[dict[str, Axis]]:
    """Ways in which free axes may vary: each by itself, or all alike."""
    free = list(forms.sizes)

    def varied(axes: list[str], size: int) -> Axis | None:
        """How these vary together: in steps, or up to a bound; None where they do not."""

        def goes(n: int) -> bool:
            return passes.goes(forms.sized(dict.fromkeys(axes, n)), below)

        name = names[axes[0]]
        if goes(size):
            step = next((step for step in _STEPS if goes(size + step)), None)
            if step is not None:
                return Axis(name, multiple=step)
        if not (goes(_DRAWN) and goes(_DRAWN // 2)):
            return None
        return Axis(name, high=least(lambda n: not goes(n), _DRAWN, size) - 1)

    for groups in (
        [(name,) for name in free],
        [item.variable for item in forms.inputs.values()],
        [tuple(free)],
    ):
        found: dict[str, Axis] = {}
        sizes: dict[str, int] = {}
        for group, size in zip(groups, _OTHERS, strict=False):
            alike = [name for name in group if name not in found]
            axis = varied(alike, size) if alike else None
            if axis is not None:
                found |= dict.fromkeys(alike, axis)
                sizes |= dict.fromkeys(alike, axis.high or size)
        if found and passes.goes(forms.sized(sizes), below):
            yield found


def _untied(passes: Passes, forms: Forms, below: Mapping[str, int]) -> Forms:
    """The forms with axes of several inputs that begin alike and need not be so."""
    seen = set[str]()
    for path, item in forms.inputs.items():
        for name in item.variable:
            unused = next((n for n in UNKNOWN if n not in forms.sizes), None)
            if name in seen and unused is not None and not item.derivation:
                axes = tuple(Axis(unused) if axis.name == name else axis for axis in item.axes)
                size = forms.sizes[name]
                for other in (2 * size, size // 2):
                    untied = forms.with_inputs([Input(path, item.dtype, axes)])
                    untied = untied.sized({unused: other})
                    if passes.goes(untied, below):
                        forms, item = untied.sized({unused: size}), untied.inputs[path]
                        break
        seen.update(item.variable)
    return forms


def least(fits: Callable[[int], bool], below: int, above: int) -> int:
    """The least size in (below, above] that fits, where all larger ones do; else above + 1."""
    if not fits(above):
        return above + 1
    while above - below > 1:
        middle = (above + below) // 2
        below, above = (below, middle) if fits(middle) else (middle, above)
    return above


def _names(forms: Forms, met: Sequence[Met]) -> dict[str, str]:
    """What to call the free axes: by the layers that took them, else by the input's name."""
    named: dict[str, str] = {}
    for sources, shape, names, *_ in met:
        for path in sorted(sources & forms.inputs.keys()):
            for place, name in names.items():
                axes = forms.inputs[path].axes
                if len(axes) == len(shape):
                    axes = axes[place:][:1]
                for axis in axes if len(shape) >= -place else ():
                    if axis.is_variable and forms.sizes[axis.name] == shape[place]:
                        named.setdefault(axis.name, name)
    used: dict[str, str] = {}
    for path, item in forms.inputs.items():
        for place, axis in enumerate(item.axes):
            if axis.is_variable and axis.name not in used:
                name = named.get(axis.name, "")
                plain = f"{path.replace('.', '_')}{place}"
                used[axis.name] = name if name and name not in used.values() else plain
    return {old: new if not new[0].isdigit() else f"axis{new}" for old, new in used.items()}
