"""Proof that reading and computing the graph of an exported program runs only tensor operators.

What torch 2.13 does with the JSON of a graph (`torch._export.serde.serialize`, `torch.fx`):

- sizes are text given to `sympy.sympify`, which evaluates it as Python;
- names of values and attributes become Python source, which is executed;
- the target of a node is looked up from `torch` on, attribute by attribute, and called:
  `torch.os.system` is found that way, and `aten.save` writes files;
- the structure of inputs and outputs may import modules that it names.

So each of them must be of the form that `torch.export.save` writes. Guards, which are source as
well, are never compiled: the program is turned into a module without them.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

# Where a name stands in the JSON, by the key before it.
_NAMES: Final = frozenset({"name", "as_name"})
_TEXTS: Final = _NAMES | {"target", "as_operator", "expr_str", "in_spec", "out_spec", "class_fqn"}
_PATHS: Final = re.compile(r"\w+_name")
_PATH: Final = re.compile(r"[\w.]*")
_SYMBOL: Final = re.compile(r"[A-Za-z_]+\d*")
_NUMBER: Final = re.compile(r"-?\d{1,30}(\.\d{0,30})?(e[+-]?\d{1,3})?")
_KEY: Final = re.compile(r"[\w.\- ]*")

_SYMPY: Final = frozenset({
    "Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs",
    "floor", "ceiling", "Piecewise", "ExprCondPair", "And", "Or", "Not", "Eq", "Ne", "Lt",
    "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan",
    "StrictGreaterThan", "GreaterThan", "BooleanTrue", "BooleanFalse", "true", "false", "True",
    "False", "oo", "int_oo", "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv",
    "CeilToInt", "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow",
    "FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat",
    "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
})  # fmt: skip
_EXPRESSION: Final = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.Tuple,
    ast.BinOp, ast.UnaryOp, ast.Compare, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
    ast.USub, ast.UAdd, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_CHARACTERS: Final = re.compile(r"[\w (),.'=+\-*/%<>!]*", re.ASCII)
_LONGEST_EXPRESSION: Final = 10_000
_LARGEST_NUMBER: Final = 2**63

_OPERATOR: Final = re.compile(
    r"torch\.ops\.(?P<library>aten|prims|quantized_decomposed|torchvision)\.(?P<name>\w+)\.(?P<overload>\w+)"
)
_TOUCHES_FILES: Final = frozenset({"save", "from_file"})
_HIGHER_ORDER: Final = frozenset({
    "cond", "while_loop", "map_impl", "scan", "associative_scan", "wrap_with_set_grad_enabled",
    "wrap_with_autocast", "out_dtype", "strict_mode", "flex_attention", "invoke_subgraph",
    "tag_activation_checkpoint", "auto_functionalized", "auto_functionalized_v2",
})  # fmt: skip
_PYTHON: Final = frozenset({
    "lt", "le", "gt", "ge", "eq", "ne", "add", "sub", "mul", "truediv", "floordiv", "mod",
    "pow", "neg", "pos", "and_", "or_", "not_", "lshift", "rshift", "getitem",
})  # fmt: skip
_ON_SIZES: Final = re.compile(
    r"torch\.(sym_(int|float|max|min|not|ite|sum|fresh_size)|_sym_sqrt)|math\.trunc"
)


class UnsafeGraph(Exception):
    """Why a graph is not opened, as the end of a sentence about it."""


def check_graph(program: Mapping[str, Any]) -> set[str]:
    """Check the JSON of an exported program. Raises UnsafeGraph.

    Returns the names of the types that its inputs and outputs nest in, such as `builtins.dict`.
    """
    types: set[str] = set()
    pending: list[tuple[str, Any]] = [("", program)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            for inner, content in cast("dict[str, Any]", value).items():
                if key.endswith("_values"):  # tensor_values, sym_int_values, …: keyed by name
                    _check_name(inner)
                if inner in _TEXTS and not isinstance(content, (str, type(None))):
                    raise UnsafeGraph(f"has a {type(content).__name__} as {inner!r}; expected text")
                pending.append((inner, content))
        elif isinstance(value, list):
            pending.extend((key, item) for item in cast("list[Any]", value))
        elif isinstance(value, str):
            if key in ("in_spec", "out_spec"):
                types |= _check_structure(value, names=key == "in_spec")
            else:
                _check_text(key, value)
    return types


def check_payload_names(entries: Mapping[str, Any]) -> None:
    """Check the JSON that tells which tensor lies in which member. Raises UnsafeGraph."""
    for path, entry in entries.items():
        if not _PATH.fullmatch(path):
            raise UnsafeGraph(f"names a tensor {path!r}")
        check_graph({"entry": entry})


def _check_text(key: str, text: str) -> None:
    if key in _NAMES or key == "forward_arg_names":
        _check_name(text)
    elif key in ("target", "as_operator"):
        _check_target(text)
    elif key == "expr_str":
        _check_expression(text)
    elif key == "class_fqn":
        raise UnsafeGraph(f"takes a custom object, {text!r}")
    elif _PATHS.fullmatch(key) and not _PATH.fullmatch(text):
        raise UnsafeGraph(f"has the {key} {text!r}, which is no name")


def _check_name(text: str) -> None:
    if text and not (text.isidentifier() and text.isascii()):
        raise UnsafeGraph(f"has the name {text!r}, which is no Python name")


def _check_target(text: str) -> None:
    import torch
    from torch._ops import HigherOrderOperator, OpOverload

    library, _, name = text.rpartition(".")
    if match := _OPERATOR.fullmatch(text):
        packet = getattr(getattr(torch.ops, match["library"]), match["name"], None)
        operator = getattr(packet, match["overload"], None)
        if operator is None:
            raise UnsafeGraph(f"calls {text!r}, an operator that this PyTorch does not have")
        if isinstance(operator, OpOverload) and match["name"] not in _TOUCHES_FILES:
            return
    elif library == "torch.ops.higher_order":
        if name in _HIGHER_ORDER and isinstance(
            getattr(torch.ops.higher_order, name, None), HigherOrderOperator
        ):
            return
    elif (library == "_operator" and name in _PYTHON) or _ON_SIZES.fullmatch(text):
        return
    raise UnsafeGraph(f"calls {text!r}, which is not known to compute on tensors only")


def _check_expression(text: str) -> None:
    """A size as sympy writes it: numbers, symbols, and functions of sizes."""
    unsafe = UnsafeGraph(f"has the size {text[:80]!r}, which is more than arithmetic on sizes")
    if len(text) > _LONGEST_EXPRESSION or not _CHARACTERS.fullmatch(text):
        raise unsafe
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise unsafe from error
    symbols = {
        id(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Symbol"
        and node.args
    }
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, _EXPRESSION):
            raise unsafe
        if isinstance(node, ast.Name):
            known = node.id in _SYMPY
            if not known and (id(node) in called or not re.fullmatch(r"[a-z_]+\d+", node.id)):
                raise unsafe
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name):
            raise unsafe
        if isinstance(node, ast.Constant):
            value = node.value
            if isinstance(value, str):
                if not (id(node) in symbols and _SYMBOL.fullmatch(value)) and not _NUMBER.fullmatch(
                    value
                ):
                    raise unsafe
            elif not isinstance(value, (int, float)) or abs(value) > _LARGEST_NUMBER:
                raise unsafe
        if _is_power(node) and not _is_small_power(node):
            raise unsafe


def _is_power(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Pow", "PowByNatural", "LShift", "FloatPow")
    )


def _is_small_power(node: ast.AST) -> bool:
    """Whether a power is none of a power, and to at most 64: others could take forever."""
    inside = [part for part in ast.walk(node) if part is not node]
    exponents = node.args[1:2] if isinstance(node, ast.Call) else []
    numbers = [n.value for e in exponents for n in ast.walk(e) if isinstance(n, ast.Constant)]
    return (
        not any(_is_power(part) for part in inside)
        and len(numbers) == 1
        and isinstance(numbers[0], (int, float))
        and abs(numbers[0]) <= 64
    )


def _check_structure(text: str, *, names: bool) -> set[str]:
    """How inputs or outputs nest: lists, tuples and dicts, whose keys become names of arguments."""
    types: set[str] = set()
    try:
        _, root = json.loads(text)
        pending = [root]
        while pending:
            node = pending.pop()
            if node["type"] == "collections.defaultdict":
                raise UnsafeGraph(
                    "has a defaultdict in its inputs or outputs, which imports a module"
                )
            context = node["context"]
            if node["type"] is not None:
                types.add(str(node["type"]))
            if isinstance(context, str) and node["type"] != "collections.namedtuple":
                context = json.loads(context)
            for word in _words(context):
                if not _KEY.fullmatch(word) or (names and word and not word.isidentifier()):
                    raise UnsafeGraph(f"has the key {word!r} in its inputs or outputs")
            pending.extend(node["children_spec"])
    except (ValueError, TypeError, KeyError) as error:
        raise UnsafeGraph("has inputs or outputs whose structure cannot be read") from error
    return types


def _words(context: Any) -> Iterable[str]:
    if isinstance(context, str):
        yield context
    elif isinstance(context, list):
        for item in cast("list[Any]", context):
            yield from _words(item)
    elif isinstance(context, dict):
        raise UnsafeGraph(
            "has an object in the structure of its inputs or outputs, which may import a module"
        )
    elif context is not None and not isinstance(context, (int, float)):
        raise UnsafeGraph(f"has {type(context).__name__} in the structure of its inputs or outputs")
