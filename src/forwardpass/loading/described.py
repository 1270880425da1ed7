"""What rows go through before and after a model, as data: written into an artefact, and read."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forwardpass.errors import LoadError, said
from forwardpass.nouns.models import Model

Description = dict[str, Any]


def describe(
    model: Model, folder: Path
) -> tuple[Description | None, Description | None, list[str]]:
    """The encode and the decode of a model, as data; and a sentence for each that is code.

    What they read is written into `folder`. Code is not copied: it is named by where it came from.
    Raises LoadError where it came from nowhere that another process could load.
    """
    code: list[str] = []

    def of(part: str, function: Any) -> Description | None:
        if function is None:
            return None
        described = getattr(function, "described", None)
        found = described(folder) if described is not None else None
        if found is not None:
            return found
        if model.origin is None:
            raise LoadError(
                f"{model.name}'s {part} is Python code, and the model was made in this process: "
                "another one could not load it. Export a reference, such as file.py:name"
            )
        code.append(f"its {part} is Python code of {model.origin}")
        return {"kind": "code", "reference": model.origin}

    return of("encode", model.encode), of("decode", model.decode), code


def encoder(description: Description | None, folder: Path) -> Callable[[Any], Any] | None:
    """The encode of an artefact in `folder`. Raises LoadError for what this version cannot read."""
    if description is None:
        return None
    if description.get("kind") == "code":
        return _of_code(description, "encode")
    if description.get("kind") == "text":
        from forwardpass.loading.text_encoders import TextEncoder

        with _read("encode"):
            return TextEncoder.of(description, folder)
    if description.get("kind") == "picture":
        from forwardpass.loading.image_encoders import ImageEncoder

        with _read("encode"):
            return ImageEncoder.of(description)
    raise _unknown("encode", description)


def decoder(description: Description | None) -> Callable[[Any], Any] | None:
    """The decode of an artefact. Raises LoadError for what this version cannot read."""
    if description is None:
        return None
    if description.get("kind") == "code":
        return _of_code(description, "decode")
    from forwardpass.loading.label_decoders import DECODERS

    kind = DECODERS.get(str(description.get("kind")))
    if kind is None:
        raise _unknown("decode", description)
    with _read("decode"):
        return kind.of(description)


@contextmanager
def _read(part: str) -> Generator[None]:
    """Within, a description is read. Raises LoadError where it lacks what it needs."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LoadError(
            f"the artefact's {part} is damaged: {said(error)}; export the model again"
        ) from error


def _of_code(description: Description, part: str) -> Any:
    from forwardpass.loading.references import resolve

    found = resolve(str(description.get("reference")))
    return getattr(found if isinstance(found, Model) else found.model, part)


def _unknown(part: str, description: Description) -> LoadError:
    return LoadError(
        f"the artefact's {part} is of the kind {description.get('kind')!r}, which this version of "
        "forwardpass does not know; install the version that wrote it, or export the model again"
    )
