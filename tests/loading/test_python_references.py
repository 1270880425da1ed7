"""file.py, file.py:name, package.module:name, and everything that is no reference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from forwardpass.errors import GrammarError, LoadError, UsageError
from forwardpass.loading import load
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.fc = nn.Linear(width, 2)
    def forward(self, x):
        return self.fc(x)
"""


def write(folder: Path, text: str, name: str = "net.py") -> Path:
    path = folder / name
    path.write_text(NET + text)
    return path


def test_modules_models_and_forwards_are_taken_as_they_are() -> None:
    module = nn.Linear(2, 2)
    model = Model(module, "input: f32[batch 2]")
    forward = Forward(model)
    assert load(module).model.module is module
    assert load(model).model is model
    assert load(forward) is forward


def test_a_plan_is_split_from_the_reference(tmp_path: Path) -> None:
    path = write(tmp_path, "model = Net()")
    forward = load(f"{path} | cast(bf16) where fc @ eager(threads=2)")
    assert str(forward) == f"{path} | cast(bf16) where fc @ eager(threads=2)"
    assert forward.model.origin == str(path)
    assert forward.model.trust == "code"


def test_a_plan_alone_misses_its_reference() -> None:
    with pytest.raises(GrammarError, match="a reference is missing"):
        load("@ eager")


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (3, "not int 3"),
        (nn.Linear, r"call the class to make a module: load\(Linear\(…\)\)"),
        (torch.relu, "wrap it in the forward of a Module"),
    ],
)
def test_other_things_are_refused_with_what_came(thing: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(thing)  # type: ignore[arg-type]


def test_model_is_the_default_name(tmp_path: Path) -> None:
    path = write(tmp_path, "other = Net()\nmodel = Net(5)")
    assert load(path).model.module.fc.in_features == 5


def test_the_only_module_of_its_own_is_taken_whatever_was_imported(tmp_path: Path) -> None:
    write(tmp_path, "shared = Net(7)", "shared_net_a.py")
    path = write(tmp_path, "from shared_net_a import shared\nmine = Net()\nalias = mine")
    assert load(str(path)).model.module.fc.in_features == 3
    only_imported = write(tmp_path, "from shared_net_a import shared", "importing.py")
    assert load(str(only_imported)).model.module.fc.in_features == 7


def test_a_module_inside_a_model_is_not_another_one(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "import forwardpass as fwd\nnet = Net()\nwrapped = fwd.Model(net, 'x: f32[batch 3]')\n",
    )
    model = load(path).model
    assert str(model.signature) == "x: f32[batch 3]"
    assert model.origin == str(path)


def test_a_forward_in_a_file_keeps_its_plan_and_takes_more(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "import forwardpass as fwd\n"
        "plan = fwd.Plan.parse('| cast(bf16) @ eager(threads=2)')\n"
        "model = fwd.Forward(fwd.Model(Net()), plan)\n",
    )
    assert str(load(path).plan) == "| cast(bf16) @ eager(threads=2)"
    assert str(load(f"{path} | cast(f32)").plan) == "| cast(bf16) | cast(f32) @ eager(threads=2)"
    assert str(load(f"{path} @ eager").plan) == "| cast(bf16) @ eager"


def test_several_models_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "first = Net()\nsecond = Net()")
    with pytest.raises(LoadError, match=r"first \(Net\), second \(Net\).*net\.py:first"):
        load(path)


def test_a_file_without_model_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(
        LoadError, match=r"has no model.*Write `model = .*name the class: net\.py:Net"
    ):
        load(write(tmp_path, "x = 1"))


@pytest.mark.parametrize("name", ["instance", "Net", "make", "lazy"])
def test_names_may_hold_modules_classes_or_functions(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path,
        "import forwardpass as fwd\n"
        "instance = Net()\ndef make(width=3): return Net(width)\nlazy = lambda: fwd.Model(Net())\n",
    )
    model = load(f"{path}:{name}").model
    assert type(model.module).__name__ == "Net"
    assert model.origin == f"{path}:{name}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("instanse", "has no name 'instanse'; did you mean 'instance'"),
        ("number", "is a int, 4; expected a torch.nn.Module"),
        ("needy", "function that needs width"),
        ("Wide", "class that needs width"),
        ("broken", "calling .* raised ZeroDivisionError"),
        ("wrong", r"returned a list, \[1\]"),
    ],
)
def test_names_that_are_no_model_say_what_they_are(tmp_path: Path, name: str, said: str) -> None:
    path = write(
        tmp_path,
        "instance = Net()\nnumber = 4\ndef needy(width): return Net(width)\n"
        "class Wide(Net):\n    def __init__(self, width): super().__init__(width)\n"
        "def broken(): return 1 / 0\ndef wrong(): return [1]\n",
    )
    with pytest.raises(LoadError, match=said):
        load(f"{path}:{name}")


def test_a_path_may_hold_spaces_and_reload_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    path = write(folder, "def make(): return Net()")
    origin = load(f"{path}:make @ eager").model.origin
    code = (
        f"from forwardpass.loading import load; print(type(load({origin!r}).model.module).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Net"


def test_a_file_that_raises_says_so(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"importing .*net\.py raised ValueError: no"):
        load(write(tmp_path, "raise ValueError('no')"))


def test_modules_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "loadingpkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    write(package, "net = Net()", "nets.py")
    (package / "broken.py").write_text("1 / 0")
    (package / "needy.py").write_text("import a_library_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = load("loadingpkg.nets:net").model
    assert (model.origin, model.trust) == ("loadingpkg.nets:net", "code")
    assert isinstance(load("torch.nn:Identity").model.module, nn.Identity)
    with pytest.raises(LoadError, match=r"there is no module 'loadingpkg.nest'"):
        load("loadingpkg.nest:net")
    with pytest.raises(LoadError, match=r"importing loadingpkg.broken raised ZeroDivisionError"):
        load("loadingpkg.broken:net")
    with pytest.raises(LoadError, match="raised ModuleNotFoundError: No module named 'a_library"):
        load("loadingpkg.needy:net")
    with pytest.raises(LoadError, match="has no name 'nett'; did you mean 'net'"):
        load("loadingpkg.nets:nett")


def test_wrong_paths_say_what_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "model = Net()", "resnet.py")
    with pytest.raises(LoadError, match=r"there is no .*resnt\.py: .* nearest: resnet\.py"):
        load("resnt.py")
    with pytest.raises(LoadError, match=r"there is no nets/resnet\.py: .* has no 'nets'"):
        load("nets/resnet.py")
    with pytest.raises(LoadError, match="write hf:google/vit-base"):
        load("google/vit-base")
    with pytest.raises(LoadError, match=r"'s3:' is not a prefix .* known are pkg: and hf:"):
        load("s3://bucket/model.pt2")


def test_importing_load_is_light() -> None:
    code = "import sys; from forwardpass.loading import load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
