"""What one recorded pass is made of: values, calls, the modules that made them, and edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Literal, cast

import msgspec

Origin = Literal["input", "parameter", "buffer", "attribute", "call", "constant", "unknown"]
"""Where a value came from. A constant was made of host numbers while the pass ran
(`torch.tensor(3.0)`); an unknown tensor was there, and nothing that was seen had made it."""

Kind = Literal["compute", "view", "in-place", "random", "host"]
"""What a call does: host calls hand a value to Python (`.item()`, `.numpy()`)."""


class Statistics(msgspec.Struct, frozen=True, gc=False):
    """What the numbers of a floating value look like.

    NaN and Inf are left out of the first four, which are None where nothing else is there; `std` is
    that of the population. `zeros` is a share from 0 to 1, `nan` and `inf` are counts.
    """

    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    zeros: float
    nan: int
    inf: int


class Value(msgspec.Struct, frozen=True, gc=False):
    """A tensor at one moment of the pass. An in-place operator makes a new Value of its operand.

    Attributes:
        serial: its number in the record; values are numbered as they appear.
        shape: sizes; of a nested tensor only the number of samples (see `nested`).
        dtype: in the notation of signatures, `f32`.
        strides: in elements; None where the layout has none (sparse, nested).
        offset: of its first element in the storage, in elements.
        storage: serial of the memory that it stands in, -1 where there is none to speak of.
            Values of one storage alias.
        version: how often that storage had been written when this value was made.
        origin: where it came from; `name` is the path of an input, a parameter, a buffer.
        producer: index of the call that made it, or -1.
        base: serial of the value that it is a view of, or a later version of; -1 for none.
        nested: the shape of each sample of a nested tensor.
        nbytes: bytes that its elements take.
    """

    serial: int
    shape: tuple[int, ...]
    dtype: str
    device: str
    strides: tuple[int, ...] | None
    offset: int
    storage: int
    version: int
    origin: Origin
    name: str
    producer: int
    base: int
    nbytes: int
    layout: str = "strided"
    nested: tuple[tuple[int, ...], ...] | None = None
    grad_fn: str = ""

    @property
    def nested_shapes(self) -> tuple[tuple[int, ...], ...] | None:
        """As `nested`: the name under which the formulas of `operators/` look for it."""
        return self.nested

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape) if self.nested is None else sum(map(prod, self.nested))

    def __str__(self) -> str:
        sizes = " ".join(map(str, self.shape))
        return f"{self.dtype}[{sizes}]"


class Ref(msgspec.Struct, frozen=True, gc=False):
    """A tensor among the arguments of a call: the serial of its value."""

    value: int


def filled(value: Any, tensor: Callable[[int], Any]) -> Any:
    """An argument of a call, with `tensor(serial)` in place of each Ref."""
    kind = type(value)
    if kind is Ref:
        return tensor(value.value)
    if kind is list or kind is tuple:
        return [filled(item, tensor) for item in value]
    return value


def references(value: Any) -> Iterator[int]:
    """The serials of the tensors in an argument, in order."""
    if isinstance(value, Ref):
        yield value.value
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[Any]", value):
            yield from references(item)


class Site(msgspec.Struct, frozen=True, gc=False):
    """A place in source code: the line that was running, and the function that holds it."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Call(msgspec.Struct, frozen=True, gc=False):
    """One operator call.

    Attributes:
        index: its place in the order of the pass.
        operator: what PyTorch ran, `aten.addmm.default`.
        name: what the code wrote, `F.linear`, `@`, `.view`.
        kind: see Kind.
        module: index into the record's module calls of the innermost module that was running.
        site: index into the record's sites.
        inputs: serials of the tensors it read, in the order of its arguments.
        outputs: serials of the tensors that it returned or wrote.
        arguments, keywords: its arguments as they were given, tensors as Ref.
        macs: multiply-accumulates of its contraction, 0 where it has none, None where it has one
            that no formula covers.
        elements: elementwise and reduction work: numbers written, or read where more are read.
        bytes_read, bytes_written: of its operands and results; a view moves none.
        parameters: names of the parameters that it read.
        writes: the storages that it wrote in place.
        grad_fn: the node that autograd made for it, "" for none.
    """

    index: int
    operator: str
    name: str
    kind: Kind
    module: int
    site: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    macs: int | None
    elements: int
    bytes_read: int
    bytes_written: int
    parameters: tuple[str, ...] = ()
    writes: tuple[int, ...] = ()
    grad_fn: str = ""

    @property
    def flops(self) -> int | None:
        """2 × macs, by the convention of the field."""
        return None if self.macs is None else 2 * self.macs

    def given(self, tensor: Callable[[int], Any]) -> tuple[list[Any], dict[str, Any]]:
        """Its arguments and keywords, with `tensor(serial)` in place of each Ref."""
        arguments = [filled(value, tensor) for value in self.arguments]
        return arguments, {name: filled(value, tensor) for name, value in self.keywords.items()}

    @property
    def is_operator(self) -> bool:
        """Whether PyTorch's dispatcher ran it: `.numpy()` and `.tolist()` go past that."""
        return not self.operator.startswith("Tensor.")

    @property
    def packet(self) -> str:
        """The operator without overload, as `operators/` covers it: `aten.addmm`."""
        return self.operator.rpartition(".")[0]

    @property
    def short(self) -> str:
        """The operator without overload, and without the namespace of PyTorch's own: `addmm`,
        `torchvision.nms`; what another library calls `mul` need not multiply."""
        namespace, _, name = self.operator.partition(".")
        name = name.partition(".")[0]
        return name if namespace in ("aten", "Tensor") else f"{namespace}.{name}".rstrip(".")


class Edge(msgspec.Struct, frozen=True, gc=False):
    """Why one call must come after another.

    `data`: target reads what source made. `alias`: it is a view of, or a later version of, what
    source made. `mutation`: source wrote the storage of a value that target reads.
    """

    source: int
    target: int
    value: int
    kind: Literal["data", "alias", "mutation"]


class ModuleCall(msgspec.Struct, frozen=True):
    """One call of a module; the first one, with the path "", is the whole pass.

    Attributes:
        path: its name in the tree; `parent/Class` for a module that is not registered.
        index: how often that module had been called before.
        kind: its class.
        parent: index of the module call that made this one, -1 for the first.
        first, stop: its calls are those from `first` up to `stop`, those of its children included.
        training: its mode.
        inputs, outputs: serials of the tensors that it was given, and of those that it returned.
        direct: whether `.forward()` was called, past hooks.
    """

    path: str
    index: int
    kind: str
    parent: int
    first: int
    stop: int
    training: bool
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    direct: bool = False


class Parameter(msgspec.Struct, frozen=True, gc=False):
    """A parameter or buffer of the module, under the first of its names."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    elements: int
    nbytes: int
    trainable: bool
    buffer: bool
    aliases: tuple[str, ...] = ()
