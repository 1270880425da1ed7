"""A folder: which library wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from forwardpass.errors import LoadError
from forwardpass.loading.damage import require_content
from forwardpass.nouns.models import Model

_READ = (".json", ".safetensors", ".bin", ".model")


def from_folder(folder: Path, origin: str) -> Model:
    """The model in a folder of transformers or sentence-transformers. Raises LoadError."""
    names = sorted(entry.name for entry in folder.iterdir())
    for name in names:
        if name.endswith(_READ) and (folder / name).is_file():
            require_content(folder / name)
    from forwardpass.loading.cross_encoders import from_cross_encoder, is_cross_encoder

    if "config.json" in names and is_cross_encoder(folder):
        return from_cross_encoder(folder, origin)
    if "modules.json" in names:
        from forwardpass.loading.sentence_encoders import from_sentence_folder

        return from_sentence_folder(folder, origin)
    if "config.json" in names:
        from forwardpass.loading.transformers_folders import from_transformers_folder

        return from_transformers_folder(folder, origin)
    if not names:
        raise LoadError(f"the folder {folder} is empty; expected a model with its config.json")
    if "adapter_config.json" in names:
        raise LoadError(
            f"{folder} holds an adapter (PEFT) without its base model; merge them in a file.py "
            "(`peft`'s merge_and_unload) and load that"
        )
    inside = [name for name in names if (folder / name / "config.json").is_file()]
    files = [name for name in names if name.endswith((".py", ".pt2", ".pt"))]
    hint = ""
    if inside or files:
        hint = f"; did you mean {folder / (inside or files)[0]}?"
    raise LoadError(
        f"the folder {folder} has neither config.json (transformers) nor modules.json "
        f"(sentence-transformers); it holds {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
        f"{hint}"
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises LoadError where it is not JSON."""
    require_content(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{path} cannot be read as JSON: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file. Raises LoadError."""
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise LoadError(f"{path} holds a {type(content).__name__}; expected an object")
    return cast("dict[str, Any]", content)
