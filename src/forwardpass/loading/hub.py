"""`hf:org/name@revision`: a model of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from forwardpass.errors import LoadError, missing_extra

_NAME = re.compile(r"hf:(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
_NEEDED = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.safetensors"]
_PARTS = ["[1-9]_*/pytorch_model.bin"]  # small layers of sentence encoders, often in the old format
_OTHER_RUNTIMES = ["onnx/*", "openvino/*", "original/*", "coreml/*", "*.onnx", "*.gguf"]


def downloaded(reference: str) -> Path:
    """The folder of a model of the hub: from the local cache, else downloaded into it.

    Only configuration, tokenizer and safetensors are fetched; `pytorch_model.bin` where there are
    no safetensors. Raises LoadError.
    """
    match = _NAME.fullmatch(reference)
    if match is None:
        raise LoadError(f"{reference!r}: expected hf:org/name or hf:org/name@revision")
    try:
        import huggingface_hub
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise missing_extra("huggingface_hub", "transformers", "a reference hf:…") from error

    def fetch(*more: str) -> Path:
        wanted: dict[str, Any] = {
            "revision": match["revision"],
            "allow_patterns": [*_NEEDED, *_PARTS, *more],
            "ignore_patterns": _OTHER_RUNTIMES,
        }
        return Path(huggingface_hub.snapshot_download(match["repository"], **wanted))

    at = f" at {match['revision']!r}" if match["revision"] else ""
    try:
        folder = fetch()
        if not any(folder.glob("*.safetensors")) and not any(folder.glob("0_*/*.safetensors")):
            folder = fetch("*.bin")
    except LocalEntryNotFoundError as error:
        raise LoadError(
            f"{reference!r}: {match['repository']}{at} is not in the local cache, "
            "and the hub cannot be reached"
            + (" (HF_HUB_OFFLINE is set)" if huggingface_hub.constants.HF_HUB_OFFLINE else "")
        ) from error
    except GatedRepoError as error:
        raise LoadError(
            f"{reference!r}: this model is gated; ask for access on its page, then run `hf auth "
            "login`"
        ) from error
    except RevisionNotFoundError as error:
        raise LoadError(
            f"{reference!r}: the model has no revision {match['revision']!r}"
        ) from error
    except RepositoryNotFoundError as error:
        raise LoadError(
            f"{reference!r}: the hub has no such model, or it is private; "
            "check the name, or run `hf auth login`"
        ) from error
    except HFValidationError as error:
        raise LoadError(f"{reference!r} is not a name of the hub: {error}") from error
    except OSError as error:
        raise LoadError(
            f"{reference!r} could not be downloaded: {type(error).__name__}: {error}"
        ) from error
    return folder
