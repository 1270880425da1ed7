"""Layers of a graph that a backend can quantize: whose they are, and which of them it is to.

Names of nodes do not tell whose layer they are: exporters fold, fuse and rename, and the trace
names modules of a ModuleDict without it. Weights tell: the rows of a matrix are found among the
rows of the module's parameters, in whatever order they are, and whatever factor a folded
normalisation gave each of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import nn

from forwardpass.errors import BuildError, UsageError, nearest
from forwardpass.nouns.plans import Where
from forwardpass.tensors.modules import held_by, parts_of

Matrix = np.ndarray[Any, Any]

_MARKS: Final = 6
"""Largest elements of a row by whose places and signs it is known."""
_SAMPLES: Final = 64
"""Rows of a matrix that are looked for."""
_SHARE: Final = 0.9
"""Of these rows are found in a parameter that the matrix was made of; a few may have been rounded
into another order."""
_NAMED: Final = 3
"""Layers that a sentence names."""


class Weighted(NamedTuple):
    """A node of a graph that has weights.

    Attributes:
        node: its name in the graph.
        rows: its weights, a row for each unit that it computes.
        able: whether the backend can quantize it.
    """

    node: str
    rows: Matrix
    able: bool = True


class Chosen(NamedTuple):
    """The layers of a graph that are to be quantized.

    Attributes:
        nodes: their names, and the paths of the modules that they belong to.
        others: the same of layers that stay as they are.
    """

    nodes: dict[str, str]
    others: dict[str, str]

    def told(self, whose: str, by: Mapping[str, str], to: str, proof: str) -> Quantized:
        """What was done. Raises BuildError where nothing was.

        Args:
            whose: the library and its verb: "OpenVINO has".
            by: the nodes that the library has in fewer bits, with what it has them as; `proof`
                says `{kinds}` where these go.
        """
        if not by:
            raise BuildError(
                f"{whose} none of {len(self.nodes)} layers in {to}: nothing was quantized"
            )
        done = [path for node, path in self.nodes.items() if node in by]
        left = [path for node, path in self.nodes.items() if node not in by]
        kinds = ", ".join(f"{count} × {kind}" for kind, count in Counter(by.values()).most_common())
        return summed(done, [*left, *self.others.values()], to, proof.format(kinds=kinds))


class Quantized(NamedTuple):
    """What was made of the layers of a graph.

    Attributes:
        did: in a sentence.
        layers: that are in fewer bits, by the paths of their modules; `a or b` where it is not
            known which.
    """

    did: str
    layers: tuple[str, ...]


def chosen(
    backend: str, layers: Sequence[Weighted], module: nn.Module, where: Where | None
) -> Chosen:
    """Which layers `where` chooses by the paths of their modules; all of them without it.

    Raises BuildError where there is no layer, UsageError for a glob that matches none of them.
    """
    able = {layer.node for layer in layers if layer.able}
    if not able:
        raise BuildError(f"{backend} finds no layer with weights that it could quantize")
    owners = _owners(layers, module)
    spoken = {node: " or ".join(paths) or node for node, paths in owners.items()}
    if where is None:
        return Chosen(*_parted(spoken, able))
    known = {path for node, paths in owners.items() if node in able for path in paths}
    for glob in where.idle(known):
        raise UsageError(
            f"@ {backend} … where {', '.join(where.globs)}: {glob!r} matches no layer that "
            f"{backend} quantizes; {nearest(glob, filter(None, known))}"
        )
    # Of modules with equal weights it may not be known whose a layer is: all must be chosen
    wanted = {node for node in able if owners[node] and all(map(where, owners[node]))}
    if not wanted:
        raise UsageError(
            f"@ {backend} … where {', '.join(where.globs)} chooses no layer, or none that can be "
            f"told from others of equal weights; there are {', '.join(sorted(filter(None, known)))}"
        )
    return Chosen(*_parted(spoken, wanted))


def _parted(
    spoken: dict[str, str], wanted: Collection[str]
) -> tuple[dict[str, str], dict[str, str]]:
    inside = {node: text for node, text in spoken.items() if node in wanted}
    return inside, {node: text for node, text in spoken.items() if node not in inside}


def summed(done: Collection[str], others: Iterable[str], to: str, proof: str) -> Quantized:
    """What was done, by the paths of layers in fewer bits, and of the others."""
    left = sorted(others)
    said = f"{len(done)} of {len(done) + len(left)} layers in {to}: {proof}"
    layers = tuple(dict.fromkeys(done))
    if not left:
        return Quantized(said, layers)
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return Quantized(f"{said}; as they were stay {', '.join(left[:_NAMED])}{more}", layers)


def _owners(layers: Sequence[Weighted], module: nn.Module) -> dict[str, tuple[str, ...]]:
    """By the name of a node the paths of the modules whose weights it has; several where these are
    equal and the name does not tell which, none where no module has them."""
    lengths = {layer.rows.shape[1] for layer in layers}
    index: dict[bytes, set[str]] = defaultdict(set)
    for name, tensor in held_by(module).items():
        if tensor.dim() < 2 or not tensor.is_floating_point():
            continue
        matrix = tensor.detach().to(torch.float32).cpu()
        owner = name.split(".parametrizations.")[0].rpartition(".")[0]
        if ".parametrizations." in name:
            owner = name.split(".parametrizations.")[0]
        for way in (matrix.flatten(1), matrix.T if matrix.dim() == 2 else None):
            if way is not None and way.shape[1] in lengths:
                for mark in _marks(way.numpy()):
                    index[mark].add(owner)
    paths = {path for path, _ in parts_of(module, every_name=True)}
    return {layer.node: _owner(layer, index, paths) for layer in layers}


def _owner(
    layer: Weighted, index: dict[bytes, set[str]], paths: Collection[str]
) -> tuple[str, ...]:
    count = len(layer.rows)
    places = np.unique(np.linspace(0, count - 1, min(count, _SAMPLES)).astype(int))
    marks = list(_marks(layer.rows[places]))
    votes = Counter(owner for mark in marks for owner in index.get(mark, ()))
    found = sorted(owner for owner, number in votes.items() if number >= _SHARE * len(marks))
    named = _path_in(layer.node)
    if named in found:
        return (named,)
    within = [path for path in found if path.startswith(f"{named}.")] if named else []
    if found:
        return tuple(within or found)
    return (named,) if named in paths else ()


def _path_in(node: str) -> str:
    """The path that stands in the name of a node: `__module.module.a.b/aten::linear/MatMul` and
    `module.a.b/node_linear` have `a.b`; "" where there is none."""
    first, _, rest = node.partition("/")
    return first.removeprefix("__module.").removeprefix("module").removeprefix(".") if rest else ""


def _marks(rows: Matrix) -> Iterable[bytes]:
    """What a row is known by, whatever factor it has: where its largest elements stand, and their
    signs beside that of the largest. Rows of zeros have nothing."""
    size = np.abs(rows)
    rows, size = rows[size.max(axis=1) > 0], size[size.max(axis=1) > 0]
    top = min(_MARKS, rows.shape[1])
    places = np.argpartition(-size, top - 1, axis=1)[:, :top]
    order = np.argsort(-np.take_along_axis(size, places, 1), axis=1, kind="stable")
    places = np.take_along_axis(places, order, 1)
    signs = np.sign(np.take_along_axis(rows, places, 1))
    marks = ((places + 1) * signs * signs[:, :1]).astype(np.int64)
    length = np.full((len(marks), 1), rows.shape[1])
    return (mark.tobytes() for mark in np.hstack([length, marks]))
