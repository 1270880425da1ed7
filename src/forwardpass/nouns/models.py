"""Model: what is computed — a program, its signature, and the way from rows in to rows out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forwardpass.errors import UsageError
from forwardpass.nouns.programs import Program, Trust
from forwardpass.nouns.signatures import Signature

if TYPE_CHECKING:
    from torch import nn

    from forwardpass.nouns.rows import Rows


class Encoded(dict[str, Any]):
    """What an encoder may return to say which rows it had to cut at the maximum length.

    A dict of arrays like any other; `truncated` holds the indices of the rows that were cut.
    """

    def __init__(self, arrays: Mapping[str, Any], truncated: Collection[int] = ()) -> None:
        super().__init__(arrays)
        self.truncated = frozenset(truncated)


@dataclass(frozen=True, eq=False, init=False)
class Model:
    """A module with its Signature, and how rows become inputs and outputs become rows.

    Args:
        module: any `torch.nn.Module`, which is never changed; or a Program.
        inputs: the inputs in the notation of `Signature`, as lines or as a list. Without them
            they are taken from the data: columns named as the arguments of `forward`.
        outputs: the outputs likewise; without them they are inferred from probes.
        encode: `encode(rows) -> {path: array}` for many rows at once. An array has the rows along
            axis 0; rows of different length are a list of arrays, without padding. Without
            `encode`, columns named as the inputs are taken. Its attribute `text_columns`, where it
            has one, names columns that it takes as text even where CSV has nothing but numbers.
        decode: `decode(outputs) -> {column: values}`, one value a row. `outputs` holds CPU tensors
            with the rows along axis 0, or a list of tensors where their size varies by row.
        collate: for inputs that the notation cannot say (graphs, ragged lists):
            `collate(items) -> tensor | tuple | dict`, what `forward` takes for these items.
            Items are what `encode` returns as a list, or rows as dicts without `encode`.
        uncollate: `uncollate(outputs, count) -> {column: values}`, one value an item.
        size: `size(item) -> int`, what an item costs in cells; 1 each without it.
        origin: the reference from which another process can load the same model; that of the
            Program where nothing is said.
        trust: "data", "code" or "native": what reading this model could have executed; likewise.
    """

    program: Program
    signature: Signature | None
    encode: Callable[[Rows], Any] | None
    decode: Callable[[dict[str, Any]], Mapping[str, Any]] | None
    collate: Callable[[Sequence[Any]], Any] | None
    uncollate: Callable[[Any, int], Mapping[str, Any]] | None
    size: Callable[[Any], int] | None
    origin: str | None
    trust: Trust

    def __init__(
        self,
        module: nn.Module | Program,
        inputs: str | Iterable[str] | Signature | None = None,
        outputs: str | Iterable[str] | None = None,
        *,
        encode: Callable[[Rows], Any] | None = None,
        decode: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        collate: Callable[[Sequence[Any]], Any] | None = None,
        uncollate: Callable[[Any, int], Mapping[str, Any]] | None = None,
        size: Callable[[Any], int] | None = None,
        origin: str | None = None,
        trust: Trust | None = None,
    ) -> None:
        is_module = callable(getattr(module, "forward", None))
        if isinstance(module, type) or not (is_module or isinstance(module, Program)):
            raise UsageError(
                f"Model(module=…) takes a torch.nn.Module, not {_described(module)}; "
                "call the class to make a module, or wrap the function in a Module's forward"
            )
        if (collate is None) != (uncollate is None):
            raise UsageError("Model(collate=…, uncollate=…) go together: give both or neither")
        if collate is not None and inputs is not None:
            raise UsageError(
                "Model takes `inputs` or `collate`: it is collate that makes the inputs"
            )
        if size is not None and collate is None:
            raise UsageError("Model(size=…) goes with `collate`; named axes carry their sizes")
        if outputs is not None and inputs is None:
            raise UsageError("Model(outputs=…) needs `inputs`, whose axes the outputs refer to")
        if isinstance(inputs, Signature) and outputs is not None:
            raise UsageError(
                "Model(inputs=Signature, outputs=…): the outputs go into the Signature"
            )
        signature = inputs
        if inputs is not None and not isinstance(inputs, Signature):
            signature = Signature.parse(inputs, outputs)
        put = object.__setattr__
        program: Any = _of_module(module, origin, trust or "code") if is_module else module
        put(self, "program", program)
        put(self, "origin", origin or program.origin)
        put(self, "trust", trust or program.trust)
        put(self, "signature", signature)
        put(self, "encode", encode)
        put(self, "decode", decode)
        put(self, "collate", collate)
        put(self, "uncollate", uncollate)
        put(self, "size", size)

    def with_signature(self, signature: Signature) -> Model:
        """The same model with another signature: one that was inferred from data, say."""
        return Model(
            self.program, signature, encode=self.encode, decode=self.decode,
            origin=self.origin, trust=self.trust,
        )  # fmt: skip

    @property
    def module(self) -> nn.Module:
        """The module. Raises UsageError for an artefact, which has none."""
        if self.program.module is None:
            instead = getattr(self.program, "instead", "the model that it was made from")
            raise UsageError(
                f"{self.name} is an artefact and holds no module: it computes, and cannot be "
                f"looked into; give {instead}"
            )
        return self.program.module

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that `encode` takes as text."""
        return tuple(getattr(self.encode, "text_columns", ()))

    @property
    def name(self) -> str:
        """How people call it: where it came from, else the class of its module."""
        return self.origin or self.program.name

    def __repr__(self) -> str:
        inputs = "" if self.signature is None else "; ".join(map(str, self.signature.inputs))
        return f"Model({self.name}: {inputs or 'inputs from the data'})"


def _of_module(module: Any, origin: str | None, trust: Trust) -> Program:
    from forwardpass.loading.programs import ModuleProgram

    return ModuleProgram(module, origin, trust)


def _described(value: object) -> str:
    return (
        f"the class {value.__name__!r}" if isinstance(value, type) else repr(type(value).__name__)
    )
