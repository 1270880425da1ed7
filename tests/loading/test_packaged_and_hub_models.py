"""pkg:package/path and hf:org/name@revision."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_folders import save_tiny, tiny_bert_config

from forwardpass.errors import LoadError
from forwardpass.loading import load


def test_a_package_is_found_without_running_it(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "carrierpkg"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('this package was run')")
    shutil.copytree(bert_folder, package / "inner" / "model")
    (package / "net.py").write_text("from torch import nn\nmodel = nn.Identity()\n")
    (tmp_path / "single.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = load("pkg:carrierpkg/inner/model").model
    assert (model.origin, model.trust) == ("pkg:carrierpkg/inner/model", "data")
    assert load("pkg:carrierpkg.inner/model").model.encode is not None
    model = load("pkg:carrierpkg/net.py").model
    assert (model.origin, model.trust) == ("pkg:carrierpkg/net.py", "code")
    with pytest.raises(LoadError, match=r"has no 'modle'; nearest: model"):
        load("pkg:carrierpkg/inner/modle")
    with pytest.raises(LoadError, match=r"no package 'carier_pkg' .* pip install carier-pkg"):
        load("pkg:carier_pkg/model")
    with pytest.raises(LoadError, match="'single' is a single module"):
        load("pkg:single/model")
    with pytest.raises(LoadError, match="must stay inside the package"):
        load("pkg:carrierpkg/../single.py")
    with pytest.raises(LoadError, match="expected pkg:package/path"):
        load("pkg:")


@pytest.fixture(scope="module")
def hub_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache as huggingface_hub lays it out: org/tiny with main and one old revision."""
    from transformers import BertModel

    home = tmp_path_factory.mktemp("hf")
    folder = home / "hub" / "models--org--tiny"
    torch.manual_seed(0)
    for commit, refs in (("1" * 40, ["main"]), ("2" * 40, ["v0.1"])):
        snapshot = folder / "snapshots" / commit
        save_tiny(BertModel(tiny_bert_config()), snapshot, longest=16 if refs == ["main"] else 9)
        for path in list(snapshot.iterdir()):
            blob = folder / "blobs" / f"{commit[0]}{path.name}"
            blob.parent.mkdir(parents=True, exist_ok=True)
            path.rename(blob)
            path.symlink_to(Path("../../blobs") / blob.name)
        for ref in refs:
            (folder / "refs").mkdir(exist_ok=True)
            (folder / "refs" / ref).write_text(commit)
    return home


FROM_CACHE = {
    "hf:org/tiny": "hf:org/tiny data input_ids: i64[batch tokens=1..16] pad 0",
    "hf:org/tiny@v0.1": "hf:org/tiny@v0.1 data input_ids: i64[batch tokens=1..9] pad 0",
    "hf:org/other@v9": "'hf:org/other@v9': org/other at 'v9' is not in the local cache, and the "
    "hub cannot be reached (HF_HUB_OFFLINE is set)",
}


@pytest.fixture(scope="module")
def answers(hub_home: Path) -> dict[str, str]:
    """What loading says, in another process: huggingface_hub reads its environment at import."""
    code = (
        "import sys\n"
        "from forwardpass.loading import load\n"
        "from forwardpass.errors import LoadError\n"
        "for reference in sys.argv[1:]:\n"
        "    try: model = load(reference).model\n"
        "    except LoadError as error: print(error)\n"
        "    else: print(model.origin, model.trust, model.signature.inputs[0])\n"
    )
    environment = {**os.environ, "HF_HOME": str(hub_home), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *FROM_CACHE],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    return dict(zip(FROM_CACHE, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("reference", FROM_CACHE)
def test_the_hub_from_its_cache(answers: dict[str, str], reference: str) -> None:
    assert answers[reference] == FROM_CACHE[reference]


def test_names_that_the_hub_cannot_have() -> None:
    with pytest.raises(LoadError, match="expected hf:org/name or hf:org/name@revision"):
        load("hf:a/b/c/d")
