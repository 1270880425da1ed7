"""The house: which room may import which, how long a file may be, and what a file may be called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "forwardpass"
FILES = sorted(SOURCE.rglob("*.py"))

# From the top of the house down: a room imports only from those before it.
ROOMS = (
    "errors",
    "durable",
    "starting",
    "nouns",
    "tensors",
    "reading",
    "loading",
    "operators",
    "code",
    "measuring",
    "keeping",
    "recording",
    "writing",
    "validating",
    "building",
    "probing",
    "guessing",
    "explaining",
    "batching",
    "executing",
    "preparing",
    "comparing",
    "profiling",
    "checking",
    "exporting",
    "tuning",
    "running",
    "serving",
    "scaling",
    "exploring",
    "showing",
    "cli",
    "__main__",
)
LONGEST = 400
DRAWERS = {"util", "utils", "helper", "helpers", "misc", "common", "tools", "shared"}
# Heavy and optional, or heavy and not needed by most: imported where they are used.
OPTIONAL = {
    "transformers",
    "PIL",
    "huggingface_hub",
    "sklearn",
    "sentence_transformers",
    "ray",
    "matplotlib",
}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Each module that the file imports, whether inside a function, and the line.

    What stands under `if TYPE_CHECKING:` counts as well: it is a dependency of the reader.
    """

    def within(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name, inside, child.lineno
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name(path)}:{child.lineno}: a relative import"
                for alias in child.names:
                    yield f"{child.module}.{alias.name}", inside, child.lineno
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from within(child, inside or function)

    yield from within(ast.parse(path.read_text(encoding="utf-8")), False)


def own(module: str) -> str | None:
    """The room of a module of ours."""
    parts = module.split(".")
    return parts[1] if parts[0] == "forwardpass" and len(parts) > 1 else None


def trespasses(path: Path) -> Iterator[str]:
    here = room(path)
    for module, inside, line in imports(path):
        there = own(module)
        if there is None or there == here or here == "__init__":
            continue
        if here == "nouns" and inside:
            continue  # a noun's one-line method may import its verb's room
        if there not in ROOMS or ROOMS.index(there) >= ROOMS.index(here):
            yield f"{name(path)}:{line}: {here} imports {module}"


def test_every_file_stands_in_a_room() -> None:
    strays = [name(p) for p in FILES if room(p) not in {*ROOMS, "__init__"}]
    assert not strays, f"no room of that name: {strays}"


def test_a_room_imports_only_from_rooms_above_it() -> None:
    found = [line for path in FILES for line in trespasses(path)]
    assert not found, "\n".join(found)


def test_the_exemption_is_one_line_in_a_noun() -> None:
    """A method of a noun that imports a verb's room does nothing but call it."""
    for path in sorted((SOURCE / "nouns").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            body = node.body if isinstance(node, ast.FunctionDef) else []
            rooms = {own(f"{n.module}.") for n in body if isinstance(n, ast.ImportFrom)}
            if rooms - {None, "nouns"}:
                calls = [n for n in body if not isinstance(n, ast.ImportFrom | ast.Expr)]
                assert len(calls) == 1, f"{name(path)}:{body[0].lineno}: more than one line"


def test_a_name_of_a_class_means_one_thing() -> None:
    """An underscore before it makes no other word of it."""
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name.strip("_"), []).append(f"{name(path)}:{node.lineno}")
    twice = {word: places for word, places in homes.items() if len(places) > 1}
    assert not twice, f"a word for one thing only: {twice}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_is_longer_than_the_wall(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{name(path)} has {lines} lines: split it by noun"


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    drawers = [name(p) for p in FILES if {p.stem.strip("_"), *p.parts} & DRAWERS]
    assert not drawers, f"name it after what it holds: {drawers}"


def test_optional_libraries_are_imported_inside_functions() -> None:
    found = [
        f"{name(path)}:{line}: {module}"
        for path in FILES
        for module, inside, line in imports(path)
        if not inside and module.split(".")[0] in OPTIONAL
    ]
    assert not found, "\n".join(found)


def test_torch_stays_out_of_nouns_reading_and_batching() -> None:
    """The nouns may name torch's types for the checker, and nothing more."""
    for path in FILES:
        if room(path) not in ("errors", "nouns", "reading", "batching"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:  # module level, outside `if TYPE_CHECKING:`
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                roots = {n.split(".")[0] for n in [*names, getattr(node, "module", None) or ""]}
                assert "torch" not in roots, f"{name(path)}:{node.lineno}: imports torch"


def test_there_is_one_clock() -> None:
    """Whoever measures takes the time from measuring.clocks, where a test can give another."""
    found = [
        f"{name(path)}:{node.lineno}: time.{node.attr}"
        for path in FILES
        if name(path) != "measuring/clocks.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) != ("time", "sleep")
        and node.value.id == "time"
    ]
    assert not found, "\n".join(found)
    named = [path for path in FILES for module, *_ in imports(path) if module.startswith("time.")]
    assert not named, f"import time, not names of it: {[name(path) for path in named]}"


def test_no_file_names_a_place_on_one_machine() -> None:
    marks = ("/home/", "/root/", "/Users/", "/work/", "C:\\")
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not any(mark in text for mark in marks), f"{name(path)} names a path of one machine"


OF_TREES = {
    "modules", "named_modules", "children", "named_children", "named_parameters", "buffers",
    "named_buffers", "state_dict", "get_submodule", "get_parameter", "get_buffer", "eval", "train",
    "apply", "_apply", "register_buffer", "register_parameter", "add_module", "zero_grad",
}  # fmt: skip
"""Methods of nn.Module in whose place an attribute of the user's may stand; `parameters`, too."""
OWN_MODULES = {
    "loading/cross_encoders.py", "loading/exported_programs.py", "loading/sentence_encoders.py",
    "loading/transformers_folders.py", "loading/adapters.py", "exploring/examples.py",
}  # fmt: skip
"""Files that make modules of libraries, or of ours, and prepare these."""


def test_a_module_of_the_users_is_asked_by_its_stores_alone() -> None:
    """tensors/modules.py knows how; a method of nn.Module may be an attribute of the user's."""
    found = [
        f"{name(path)}:{node.lineno}: .{node.func.attr}()"
        for path in FILES
        if name(path) not in {*OWN_MODULES, "tensors/modules.py"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (
            node.func.attr in OF_TREES
            or (node.func.attr == "parameters" and ast.unparse(node.func.value) != "state")
        )
    ]
    assert not found, "ask tensors.modules:\n" + "\n".join(found)
