"""An adapter beside the weights (`adapter_config.json`): merged into them by peft."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forwardpass.errors import LoadError, missing_extra
from forwardpass.loading.damage import loading, require_content

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"


@contextmanager
def without_adapter(folder: Path) -> Generator[Path]:
    """The same folder without its adapter, which transformers would attach without merging it.

    Raises LoadError where there is an adapter, and peft is not installed or cannot read it.
    """
    if not (folder / _CONFIG).is_file():
        yield folder
        return
    if importlib.util.find_spec("peft") is None:
        raise missing_extra("peft", "peft", f"the adapter in {folder} (adapter_config.json)")
    if not (folder / _WEIGHTS).is_file():
        raise LoadError(
            f"{folder} has {_CONFIG} and no {_WEIGHTS}; without it the model is another one. Save "
            "the adapter again as safetensors, or remove its configuration"
        )
    require_content(folder / _WEIGHTS)
    with tempfile.TemporaryDirectory() as place:
        for path in folder.iterdir():
            if path.is_file() and not path.name.startswith("adapter_"):
                _linked(path.resolve(), Path(place) / path.name)
        yield Path(place)


def _linked(path: Path, place: Path) -> None:
    try:
        place.symlink_to(path)
    except OSError:  # Windows asks for a right to make links
        shutil.copyfile(path, place)


def merged(module: Any, folder: Path) -> Any:
    """`module` with the adapter in `folder` merged into its weights; as it is without one.

    Raises LoadError for an adapter that does not fit: none of it may be left out.
    """
    if not (folder / _CONFIG).is_file():
        return module
    from safetensors import safe_open

    peft: Any = importlib.import_module("peft")
    with loading(f"the adapter in {folder}"):
        with safe_open(folder / _WEIGHTS, framework="pt") as weights:
            stored = set(weights.keys())
        adapted: Any = peft.PeftModel.from_pretrained(module, str(folder))
        known = set(peft.get_peft_model_state_dict(adapted))
        odd = sorted(stored ^ known)
        if odd:
            raise LoadError(
                f"the adapter in {folder} does not fit the model: {odd[0]} is in "
                f"{'its weights' if odd[0] in stored else 'the model'} alone"
            )
        return adapted.merge_and_unload()
