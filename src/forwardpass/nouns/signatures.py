"""Signature: what goes into a model and what comes out, in one line each.

    input   = path ["?"] ":" dtype "[" axis* "]"
              ["pad" VALUE ["left"] | "=" ("valid" | "length" | "share" | "positions") "(" NAME ")"]
    axis    = "batch" | INT | NAME ["=" INT ".." INT] ["%" INT]
    output  = path ":" dtype "[" ("batch" | INT | NAME | "(" NAME ("+"|"-") INT ")//" INT)* "]"

>>> print(Input.parse("ids: i64[batch tokens=1..512] pad 0"))
ids: i64[batch tokens=1..512] pad 0
>>> Output.parse("frames: f32[batch (samples-400)//320 768]").shape(3, {"samples": 16000})
(3, 48, 768)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Final

import msgspec

from forwardpass.errors import GrammarError, nearest

DTYPES: Final = (
    "f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool", "c64", "c128",
)  # fmt: skip
DERIVATIONS: Final = ("valid", "length", "share", "positions")
_BY_ROW = ("length", "share")
"""Derivations with one number a row; the others have one for each cell."""

_PATH = r"(?:[A-Za-z_]\w*|\d+)(?:\.(?:[A-Za-z_]\w*|\d+))*"
_INPUT = re.compile(
    rf"\s*(?P<path>{_PATH})\s*(?P<optional>\?)?\s*:\s*(?P<dtype>\w+)\s*\[(?P<axes>[^\]]*)\]"
    r"\s*(?:pad\s+(?P<pad>\S+)(?:\s+(?P<left>left))?"
    r"|=\s*(?P<derivation>\w+)\s*\(\s*(?P<of>\w+)\s*\))?\s*"
)
_OUTPUT = re.compile(rf"\s*(?P<path>{_PATH})\s*:\s*(?P<dtype>\w+)\s*\[(?P<axes>[^\]]*)\]\s*")
_AXIS = re.compile(
    r"(?P<size>\d+)|(?P<name>[A-Za-z_]\w*)(?:=(?P<low>\d+)\.\.(?P<high>\d+))?(?:%(?P<multiple>\d+))?"
)
_EXTENT = re.compile(
    r"(?P<size>\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|\(\s*(?P<of>[A-Za-z_]\w*)\s*(?P<sign>[+-])\s*(?P<offset>\d+)\s*\)\s*//\s*(?P<divisor>\d+)"
)


def is_path(text: str) -> bool:
    """Whether an input or an output can be written under this name."""
    return re.fullmatch(_PATH, text) is not None


class Axis(msgspec.Struct, frozen=True):
    """One axis of an input: the batch, a fixed size, or a name whose size varies by row.

    `low`, `high` and `multiple` bound the size of a named axis, in positions.
    """

    name: str = ""
    size: int = 0
    low: int = 1
    high: int | None = None
    multiple: int = 1

    @property
    def is_batch(self) -> bool:
        return self.name == "batch"

    @property
    def is_variable(self) -> bool:
        return bool(self.name) and not self.is_batch

    def rounded(self, size: int) -> int:
        """The smallest permitted size that holds `size` positions."""
        return max(math.ceil(size / self.multiple), math.ceil(self.low / self.multiple)) * (
            self.multiple
        )

    def __str__(self) -> str:
        if not self.name:
            return str(self.size)
        bounds = "" if self.high is None else f"={self.low}..{self.high}"
        return f"{self.name}{bounds}" + (f"%{self.multiple}" if self.multiple > 1 else "")


class Input(msgspec.Struct, frozen=True, dict=True):
    """One named input of a model. `pad` is the value that fills a variable axis up, or None."""

    path: str
    dtype: str
    axes: tuple[Axis, ...]
    optional: bool = False
    pad: float | int | bool | None = None
    pad_left: bool = False
    derivation: str = ""
    derived_from: str = ""

    @classmethod
    def parse(cls, text: str) -> Input:
        """Parse one line of the grammar. Raises GrammarError."""
        match = _INPUT.fullmatch(text)
        if match is None:
            raise _refused("input", text, 'path ["?"] ":" dtype "[" axis* "]" ["pad" VALUE]')
        dtype = _known(match["dtype"], DTYPES, "dtype", text)
        axes = tuple(_axis(word, text) for word in match["axes"].split())
        if sum(axis.is_batch for axis in axes) > 1:
            raise GrammarError(f"input {text.strip()!r}: at most one axis can be `batch`")
        derivation = match["derivation"] or ""
        if derivation:
            _known(derivation, DERIVATIONS, "derived input", text)
            made = {"batch"} if derivation in _BY_ROW else {"batch", match["of"]}
            if not made <= {axis.name for axis in axes}:
                raise GrammarError(
                    f"input {text.strip()!r}: {derivation}({match['of']}) needs the axes "
                    f"[{' '.join(sorted(made))}]"
                )
            if derivation == "share" and dtype not in DTYPES[:4]:
                raise GrammarError(
                    f"input {text.strip()!r}: share({match['of']}) is a number from 0 to 1, which "
                    f"{dtype} cannot hold; give it f32, or ask for length({match['of']})"
                )
        pad = None if match["pad"] is None else _pad(match["pad"], dtype, text)
        if pad is not None and not any(axis.is_variable for axis in axes):
            raise GrammarError(f"input {text.strip()!r}: `pad` needs an axis whose size varies")
        return cls(
            path=match["path"],
            dtype=dtype,
            axes=axes,
            optional=match["optional"] is not None,
            pad=pad,
            pad_left=match["left"] is not None,
            derivation=derivation,
            derived_from=match["of"] or "",
        )

    @cached_property
    def batch_axis(self) -> int | None:
        """Position of the batch axis, None for an input that has none."""
        return next((i for i, axis in enumerate(self.axes) if axis.is_batch), None)

    @cached_property
    def row_axes(self) -> tuple[Axis, ...]:
        """The axes of one row: all but the batch."""
        return tuple(axis for axis in self.axes if not axis.is_batch)

    @cached_property
    def row_shape(self) -> tuple[int, ...] | None:
        """The shape of every row; None where it varies."""
        return None if self.variable else tuple(axis.size for axis in self.row_axes)

    @cached_property
    def variable(self) -> tuple[str, ...]:
        """Names of the axes whose size varies by row."""
        return tuple(axis.name for axis in self.axes if axis.is_variable)

    def __str__(self) -> str:
        tail = ""
        if self.derivation:
            tail = f" = {self.derivation}({self.derived_from})"
        elif self.pad is not None:
            pad = str(self.pad).lower() if isinstance(self.pad, bool) else f"{self.pad}"
            tail = f" pad {pad}" + (" left" if self.pad_left else "")
        optional = "?" if self.optional else ""
        return f"{self.path}{optional}: {self.dtype}[{' '.join(map(str, self.axes))}]{tail}"


class Extent(msgspec.Struct, frozen=True):
    """One axis of an output: a fixed size, the batch, or (name + offset) // divisor."""

    name: str = ""
    size: int = 0
    offset: int = 0
    divisor: int = 1

    def of(self, sizes: Mapping[str, int]) -> int:
        """The size of this axis, in positions, when the named axes have `sizes`."""
        return (sizes[self.name] + self.offset) // self.divisor if self.name else self.size

    def __str__(self) -> str:
        if not self.name:
            return str(self.size)
        if self.offset == 0 and self.divisor == 1:
            return self.name
        sign = "-" if self.offset < 0 else "+"
        return f"({self.name}{sign}{abs(self.offset)})//{self.divisor}"


class Output(msgspec.Struct, frozen=True, dict=True):
    """One named output of a model. Exactly one axis is the batch."""

    path: str
    dtype: str
    extents: tuple[Extent, ...]

    @classmethod
    def parse(cls, text: str) -> Output:
        """Parse one line of the grammar. Raises GrammarError."""
        match = _OUTPUT.fullmatch(text)
        if match is None:
            raise _refused("output", text, 'path ":" dtype "[" axis* "]"')
        dtype = _known(match["dtype"], DTYPES, "dtype", text)
        extents: list[Extent] = []
        at = 0
        axes = match["axes"]
        while axes[at:].strip():
            at += len(axes[at:]) - len(axes[at:].lstrip())
            found = _EXTENT.match(axes, at)
            if found is None or (axes[found.end() :] and not axes[found.end()].isspace()):
                raise GrammarError(
                    f"output {text.strip()!r}: {axes[at:].strip()!r} is not an axis; "
                    "expected `batch`, a number, a name, or (name+1)//2"
                )
            at = found.end()
            if found["size"]:
                extents.append(Extent(size=int(found["size"])))
            elif found["name"]:
                extents.append(Extent(name=found["name"]))
            else:
                if int(found["divisor"]) == 0:
                    raise GrammarError(f"output {text.strip()!r}: an axis is divided by 0")
                offset = int(found["offset"]) * (-1 if found["sign"] == "-" else 1)
                extents.append(Extent(found["of"], 0, offset, int(found["divisor"])))
        if sum(extent.name == "batch" for extent in extents) != 1:
            raise GrammarError(f"output {text.strip()!r}: exactly one axis must be `batch`")
        return cls(match["path"], dtype, tuple(extents))

    @cached_property
    def batch_axis(self) -> int:
        """Position of the batch axis."""
        return next(i for i, extent in enumerate(self.extents) if extent.name == "batch")

    @cached_property
    def variable(self) -> tuple[str, ...]:
        """Names of the input axes on which the shape of a row depends."""
        return tuple(e.name for e in self.extents if e.name and e.name != "batch")

    def shape(self, batch: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape for `batch` rows whose named axes have `sizes`."""
        named = {**sizes, "batch": batch}
        return tuple([extent.of(named) for extent in self.extents])

    def __str__(self) -> str:
        return f"{self.path}: {self.dtype}[{' '.join(map(str, self.extents))}]"


class Signature(msgspec.Struct, frozen=True, dict=True):
    """The inputs of a model and, where they were declared or inferred, its outputs."""

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...] = ()

    @classmethod
    def parse(
        cls, inputs: str | Iterable[str], outputs: str | Iterable[str] | None = None
    ) -> Signature:
        """Parse lines, or a list of lines, of inputs and of outputs. Raises GrammarError."""
        return cls(
            tuple(Input.parse(line) for line in _lines(inputs)),
            tuple(Output.parse(line) for line in _lines(outputs or ())),
        )

    def __post_init__(self) -> None:
        if not self.inputs:
            raise GrammarError("a signature needs at least one input")
        for kind, paths in (
            ("input", [i.path for i in self.inputs]),
            ("output", [o.path for o in self.outputs]),
        ):
            twice = next((path for path in paths if paths.count(path) > 1), None)
            if twice:
                raise GrammarError(f"{kind} {twice!r} is declared twice")
            inner = next((p for p in paths if any(p.startswith(f"{o}.") for o in paths)), None)
            if inner:
                raise GrammarError(
                    f"{kind} {inner!r} lies inside another {kind}: declare one of them"
                )
        variable = self.variable
        for output in self.outputs:
            unknown = next((name for name in output.variable if name not in variable), None)
            if unknown:
                raise GrammarError(
                    f"output {output}: no input has an axis {unknown!r}; "
                    f"{nearest(unknown, variable)}"
                )
        given = {n for i in self.inputs if not i.derivation for n in i.variable}
        for item in self.inputs:
            if item.derivation and item.derived_from not in given:
                raise GrammarError(
                    f"input {item}: no given input has an axis {item.derived_from!r}; "
                    f"{nearest(item.derived_from, given)}"
                )

    @cached_property
    def variable(self) -> Mapping[str, Axis]:
        """The axes whose size varies by row, by name, with the bounds stated anywhere."""
        axes: dict[str, Axis] = {}
        for axis in (a for i in self.inputs for a in i.axes if a.is_variable):
            bare = Axis(name=axis.name)
            known = axes.get(axis.name, bare)
            if bare not in (known, axis) and known != axis:
                raise GrammarError(f"axis {axis.name!r} has two bounds: `{known}` and `{axis}`")
            axes[axis.name] = axis if known == bare else known
        return axes

    @cached_property
    def given(self) -> tuple[Input, ...]:
        """The inputs that data must bring: those that are not derived from sizes."""
        return tuple(item for item in self.inputs if not item.derivation)

    def padded(self, name: str) -> bool:
        """Whether the axis `name` may be filled up: every given input that has it says how."""
        return all(item.pad is not None for item in self.given if name in item.variable)

    @cached_property
    def padded_left(self) -> frozenset[str]:
        """Names of the axes that are filled up in front."""
        return frozenset(n for item in self.given if item.pad_left for n in item.variable)

    def cells(self, sizes: Mapping[str, int]) -> int:
        """Positions that one row of these sizes takes in a batch; 1 where nothing varies.

        Inputs that vary along the same axes share their cells; others add up.
        """
        kinds = {tuple(sorted(item.variable)) for item in self.inputs if item.variable}
        return sum(math.prod(sizes[name] for name in kind) for kind in kinds) or 1

    def __str__(self) -> str:
        lines = [str(item) for item in self.inputs]
        return "\n".join(lines + [f"-> {output}" for output in self.outputs])


def _lines(text: str | Iterable[str]) -> list[str]:
    lines = text.splitlines() if isinstance(text, str) else list(text)
    return [line.strip() for line in lines if line.strip()]


def _refused(kind: str, text: str, form: str) -> GrammarError:
    example = "ids: i64[batch tokens=1..512] pad 0" if kind == "input" else "logits: f32[batch 10]"
    return GrammarError(
        f"cannot read the {kind} {text.strip()!r}: expected {form}, for example `{example}`"
    )


def _known(word: str, known: Iterable[str], kind: str, text: str) -> str:
    if word not in known:
        raise GrammarError(f"{text.strip()!r}: unknown {kind} {word!r}; {nearest(word, known)}")
    return word


def _axis(word: str, text: str) -> Axis:
    match = _AXIS.fullmatch(word)
    if match is None:
        raise GrammarError(
            f"input {text.strip()!r}: {word!r} is not an axis; "
            "expected `batch`, a number, or a name such as `tokens`, `tokens=1..512`, `height%32`"
        )
    if match["size"]:
        return Axis(size=int(match["size"]))
    low, high = int(match["low"] or 1), int(match["high"]) if match["high"] else None
    multiple = int(match["multiple"] or 1)
    if match["name"] == "batch" and (match["low"] or match["multiple"]):
        raise GrammarError(f"input {text.strip()!r}: `batch` takes no bounds")
    if low < 1 or multiple < 1 or (high is not None and high // multiple * multiple < low):
        raise GrammarError(f"input {text.strip()!r}: axis {word!r} has no permitted size")
    if high is not None and high % multiple:
        raise GrammarError(
            f"input {text.strip()!r}: axis {word!r} ends at no multiple of {multiple}; "
            f"did you mean {high // multiple * multiple}?"
        )
    return Axis(match["name"], 0, low, high, multiple)


def _pad(word: str, dtype: str, text: str) -> float | int | bool:
    """The padding as the narrowest Python number that says it; it must fit the dtype."""
    value: float | int | bool
    try:
        value = word == "true" if word in ("true", "false") else int(word)
    except ValueError:
        try:
            value = float(word)
        except ValueError:
            raise GrammarError(
                f"input {text.strip()!r}: {word!r} is not a number to pad with"
            ) from None
    if dtype == "bool":
        fits = value in (0, 1) and not isinstance(value, float)
    elif isinstance(value, bool):
        fits = False
    elif dtype[0] in "iu":
        bits = int(dtype[1:])
        low, high = (0, 2**bits) if dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        fits = isinstance(value, int) and low <= value < high
    else:
        fits = not math.isnan(value)  # a NaN would pass through most masks
    if not fits:
        raise GrammarError(f"input {text.strip()!r}: {dtype} cannot be padded with {word}")
    return value
