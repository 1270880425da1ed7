"""Crafted `.pt2` files, which must never run: each way in which opening one runs code."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from forwardpass.building.backends import aot
from forwardpass.errors import LoadError
from forwardpass.loading import load
from forwardpass.nouns.lowered import Lowered


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that exists only if something ran."""
    return tmp_path / "it_ran"


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def crafted(
    source: Path,
    target: Path,
    change: dict[str, bytes | Callable[[bytes], bytes]],
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """A copy of a `.pt2` with other or more members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        root = old.namelist()[0].split("/")[0]
        left = dict(change)
        for name in old.namelist():
            made = left.pop(name.removeprefix(root + "/"), None)
            data = old.read(name)
            new.writestr(
                name, data if made is None else made if isinstance(made, bytes) else made(data)
            )
        for name, made in left.items():
            new.writestr(f"{root}/{name}", made if isinstance(made, bytes) else made(b""))
    return target


def in_json(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return changed


def pickled(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(marker), buffer)
    return buffer.getvalue()


def assert_refused(path: Path, marker: Path, said: str) -> None:
    with pytest.raises(LoadError, match=said) as caught:
        load(path)
    assert not marker.exists()
    assert "If you trust the file, load it in your own code" in str(caught.value)


def test_the_payload_does_run_when_torch_opens_the_file(
    program: Path, tmp_path: Path, marker: Path
) -> None:
    """The reason for all this; should PyTorch close it, the proof may become simpler."""
    path = crafted(program, tmp_path / "x.pt2", {"data/sample_inputs/model.pt": pickled(marker)})
    with contextlib.suppress(AssertionError, TypeError):  # what came out is no inputs
        torch.export.load(path)
    assert marker.exists()


@pytest.mark.parametrize(
    "member", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt"]
)
def test_pickled_members_must_load_as_weights(
    program: Path, tmp_path: Path, marker: Path, member: str
) -> None:
    path = crafted(program, tmp_path / "x.pt2", {member: pickled(marker)})
    assert_refused(
        path, marker, f"member {member!r} is a pickle that does not load with weights_only"
    )


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_tensors_marked_as_pickles(program: Path, tmp_path: Path, marker: Path, kind: str) -> None:
    config = f"data/{kind}/model_{kind}_config.json"
    member = f"data/{kind}/" + ("weight_0" if kind == "weights" else "tensor_0")

    def mark(content: Any) -> None:
        entry = next(e for e in content["config"].values() if member.endswith(e["path_name"]))
        entry["use_pickle"] = True

    path = crafted(program, tmp_path / "x.pt2", {config: in_json(mark), member: pickled(marker)})
    assert_refused(path, marker, f"member {member!r} is a pickle")


@pytest.mark.parametrize("prefix", ["opaque_obj", "custom_obj"])
def test_custom_objects(program: Path, tmp_path: Path, marker: Path, prefix: str) -> None:
    def add(content: Any) -> None:
        entry = dict(
            next(iter(content["config"].values())), path_name=f"{prefix}_0", use_pickle=True
        )
        content["config"]["thing"] = entry

    change = {
        "data/constants/model_constants_config.json": in_json(add),
        f"data/constants/{prefix}_0": pickle.dumps(Payload(marker)),
    }
    path = crafted(program, tmp_path / "x.pt2", change)
    assert_refused(path, marker, f"'data/constants/{prefix}_0' is a custom object")


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("data/aotinductor/model/net.so", "is machine code"),
        ("data/aotinductor/model/net.wrapper.cpp", "is machine code"),
        ("extra/notes.so", "is machine code"),
        ("data/surprise", "is none that an exported program has"),
    ],
)
def test_members_that_do_not_belong(
    program: Path, tmp_path: Path, marker: Path, member: str, said: str
) -> None:
    path = crafted(program, tmp_path / "x.pt2", {member: b"\x7fELF"})
    assert_refused(path, marker, f"{member!r} {said}")


def test_pickles_are_known_by_content_too(program: Path, tmp_path: Path, marker: Path) -> None:
    for data in (pickled(marker), pickle.dumps(Payload(marker))):
        path = crafted(program, tmp_path / "x.pt2", {"extra/notes.txt": data})
        assert_refused(path, marker, r"'extra/notes.txt' is a pickle")
    path = crafted(program, tmp_path / "y.pt2", {"extra/notes.txt": b"plain notes"})
    assert load(path).model.trust == "data"


def node_of(content: Any) -> Any:
    return content["graph_module"]["graph"]["nodes"][0]


def rename(content: Any, old: str, new: str) -> None:
    """Rename a value everywhere."""
    text = json.dumps(content).replace(json.dumps(old), json.dumps(new))
    content.clear()
    content.update(json.loads(text))


def sized(expression: str) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        meta = content["graph_module"]["graph"]["tensor_values"]["x"]
        meta["sizes"][0] = {"as_expr": {"expr_str": expression, "hint": {"as_int": 3}}}

    return change


def structured(key: str, node: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        content["graph_module"]["module_call_graph"][0]["signature"][key] = json.dumps([1, node])

    return change


def called(target: str) -> Callable[[Any], None]:
    return lambda content: node_of(content).update(
        target=target, inputs=[{"name": "", "arg": {"as_string": "touch MARKER"}, "kind": 1}]
    )


def hidden(content: Any) -> None:
    """A target as an argument, in a dict whose key looks like metadata."""
    argument = {"as_string_to_argument": {"metadata": {"as_operator": "torch.os.system"}}}
    node_of(content)["inputs"].append({"name": "k", "arg": argument, "kind": 2})


RUNS = "__import__('os').system('touch MARKER')"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (sized(RUNS), "has the size .* more than arithmetic on sizes"),
        (sized("Symbol('s0').__class__"), "has the size"),
        (sized("Symbol(\"__import__('os')\")"), "has the size"),
        (sized("exit()"), "has the size"),
        (sized("Pow(Pow(Integer(10), Integer(60)), Integer(60))"), "has the size"),
        (sized("10**10**10"), "has the size"),
        (
            called("torch.os.system"),
            "calls 'torch.os.system', which is not known to compute on tensors",
        ),
        (called("torch.ops.aten.save.default"), "calls 'torch.ops.aten.save.default'"),
        (called("torch.ops.aten.from_file.default"), "calls 'torch.ops.aten.from_file.default'"),
        (called("_operator.methodcaller"), "calls '_operator.methodcaller'"),
        (called("torch.load"), "calls 'torch.load'"),
        (called("torch.ops.higher_order.call_torchbind"), "calls"),
        (called("torch.ops.image.write_file.default"), "calls"),
        (hidden, "calls 'torch.os.system'"),
        (lambda c: rename(c, "x", f"x={RUNS}"), "which is no Python name"),
        (lambda c: rename(c, "linear", f"linear\n    {RUNS}\n    y"), "which is no Python name"),
        (lambda c: node_of(c).update(name=["x"]), "has a list as 'name'"),
        (lambda c: rename(c, "fc.weight", f'fc"]; {RUNS}; x["'), "parameter_name .* is no name"),
        (
            structured(
                "in_spec", {"type": "builtins.dict", "context": f'["{RUNS}"]', "children_spec": []}
            ),
            "in its inputs or outputs",
        ),
        (
            structured(
                "out_spec",
                {"type": "collections.defaultdict", "context": "{}", "children_spec": []},
            ),
            "defaultdict",
        ),
        (
            structured(
                "out_spec",
                {"type": "builtins.dict", "context": '{"__enum__": true}', "children_spec": []},
            ),
            "may import a module",
        ),
    ],
)
def test_graphs_that_would_run_code(
    program: Path, tmp_path: Path, marker: Path, change: Callable[[Any], None], said: str
) -> None:
    def craft(content: Any) -> None:
        change(content)
        text = json.dumps(content).replace("MARKER", str(marker))
        content.clear()
        content.update(json.loads(text))

    path = crafted(program, tmp_path / "x.pt2", {"models/model.json": in_json(craft)})
    assert_refused(path, marker, said)


def test_guards_are_not_compiled(program: Path, tmp_path: Path, marker: Path) -> None:
    guard = f"open({str(marker)!r}, 'w').close() is None or L['x'].size()[0] > 0"
    change = in_json(lambda content: content.update(guards_code=[guard]))
    model = load(crafted(program, tmp_path / "x.pt2", {"models/model.json": change})).model
    model.module(x=torch.ones(2, 3, 4), mask=torch.ones(2, 3))
    assert not marker.exists()


def test_archives_that_are_not_as_torch_writes_them(
    program: Path, tmp_path: Path, marker: Path
) -> None:
    path = crafted(program, tmp_path / "packed.pt2", {}, zipfile.ZIP_DEFLATED)
    assert_refused(path, marker, "is compressed")
    twice = crafted(program, tmp_path / "twice.pt2", {})
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("masked/data/sample_inputs/model.pt", pickled(marker))
    assert_refused(twice, marker, "is there twice")
    outside = crafted(program, tmp_path / "outside.pt2", {})
    with zipfile.ZipFile(outside, "a") as archive:
        archive.writestr("other/data/sample_inputs/model.pt", pickled(marker))
    assert_refused(outside, marker, "lies outside 'masked/'")
    old = tmp_path / "old.pt2"
    with zipfile.ZipFile(old, "w") as archive:
        archive.writestr("version", "8.2")
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", pickled(marker))
    assert_refused(old, marker, "format of torch 2.7 and before")


def test_other_files_with_the_name(tmp_path: Path) -> None:
    path = tmp_path / "x.pt2"
    path.write_bytes(b"not a zip")
    with pytest.raises(LoadError, match=r"is not a .pt2 archive"):
        load(path)
    torch.save({"w": torch.ones(1)}, path)
    with pytest.raises(LoadError, match="not an exported program"):
        load(path)


def test_what_pytorch_cannot_open_says_why(program: Path, tmp_path: Path) -> None:
    def drop(content: Any) -> None:
        del node_of(content)["inputs"][0]

    path = crafted(program, tmp_path / "x.pt2", {"models/model.json": in_json(drop)})
    with pytest.raises(LoadError, match=r"cannot be opened by PyTorch .*: SerializeError: Failed"):
        load(path)


def test_a_pickle_in_a_package_of_machine_code_must_be_data(tmp_path: Path, marker: Path) -> None:
    """`aoti_load_package` unpickles what does not load otherwise; ours refuses before."""
    member = "data/constants/model.pt"
    package = tmp_path / "graph.pt2"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("archive/archive_format", b"pt2")
        archive.writestr("archive/data/aotinductor/model/code.so", b"\x7fELF")
        archive.writestr(f"archive/{member}", pickled(marker))
    with pytest.raises(LoadError, match=f"member {member!r} is a pickle that does not load"):
        aot.open(tmp_path, Lowered((), (), "f32", "torch.export"))
    assert not marker.exists()
