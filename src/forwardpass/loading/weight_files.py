"""A file that is neither code nor `.pt2`: TorchScript, or an error that says what it is."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from forwardpass.errors import LoadError
from forwardpass.loading.pickles import UnsafePickleError, opened
from forwardpass.nouns.models import Model

_WITHOUT_CODE = "give file.py:name, a function that builds the module and loads them"
_TORCH = (".pt", ".pth", ".ts", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib")
_OTHER = {
    ".onnx": "an ONNX graph, which this version cannot open; give the PyTorch module it came from",
    ".gguf": "a GGUF file of llama.cpp, which PyTorch cannot open; give the transformers folder",
    ".h5": "a Keras model; forwardpass runs PyTorch modules",
    ".keras": "a Keras model; forwardpass runs PyTorch modules",
    ".tflite": "a TensorFlow Lite model; forwardpass runs PyTorch modules",
    ".fwd": "an artefact, and this version of forwardpass cannot open artefacts",
    ".json": "a configuration; give the folder it lies in",
}


def from_other_file(path: Path, origin: str) -> Model:
    """The TorchScript module at `path`. Raises LoadError saying what any other file is."""
    kind = path.suffix.lower()
    if kind in _OTHER:
        raise LoadError(f"{path} is {_OTHER[kind]}")
    if kind == ".safetensors":
        raise _bare_safetensors(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names) and any(
            "/code/" in n for n in names
        ):
            return _torchscript(path, origin)
        if any(name.endswith("/archive_format") for name in names):
            raise LoadError(f"{path} is an exported program; rename it to {path.stem}.pt2")
    if kind not in _TORCH and not zipfile.is_zipfile(path):
        raise LoadError(
            f"{path} is no kind of model that forwardpass knows; expected a Python file, a folder, "
            "model.pt2, or TorchScript model.pt"
        )
    raise _weights_or_pickle(path)


def _torchscript(path: Path, origin: str) -> Model:
    import torch

    try:
        with warnings.catch_warnings():
            # PyTorch deprecates TorchScript; the user has the file all the same.
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise LoadError(
            f"{path} cannot be opened as TorchScript: {lines[0] if lines else error}"
        ) from error
    return Model(module, origin=origin, trust="code")


def _weights_or_pickle(path: Path) -> LoadError:
    """What a file for `torch.load` holds, without running anything in it."""
    try:
        content = opened(path, "meta")
    except UnsafePickleError:
        return LoadError(
            f"{path} is a pickle that could run code when it is opened, so it was not opened. If "
            "it is a module of your own, load it once in your code, save `module.state_dict()`, "
            "and give file.py:name, a function that builds the module and loads them; or save "
            "the module with torch.export.save as a .pt2"
        )
    tensors = _tensors(content)
    if tensors:
        return LoadError(f"{path} holds {_listed(tensors)} and no code: {_WITHOUT_CODE}")
    return LoadError(
        f"{path} holds a {type(content).__name__} without tensors, and no code; it is no model"
    )


def _bare_safetensors(path: Path) -> LoadError:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as weights:
            names = list(weights.keys())
    except (SafetensorError, OSError) as error:
        return LoadError(f"{path} is not a safetensors file: {error}")
    folder = ""
    if (path.parent / "config.json").is_file():
        folder = f", or the folder {path.parent}, which has its config.json"
    return LoadError(f"{path} holds {_listed(names)} and no code: {_WITHOUT_CODE}{folder}")


def _tensors(content: Any) -> list[str]:
    """Names of the tensors in what was loaded, those in a dict inside it too."""
    import torch

    if isinstance(content, torch.Tensor):
        return ["tensor"]
    if not isinstance(content, Mapping):
        return []
    found: list[str] = []
    for name, value in cast("Mapping[Any, Any]", content).items():
        if isinstance(value, torch.Tensor):
            found.append(str(name))
        elif isinstance(value, Mapping):
            found += [f"{name}.{inner}" for inner in _tensors(value)]
    return found


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} tensor{'' if len(names) == 1 else 's'} ({shown})"
