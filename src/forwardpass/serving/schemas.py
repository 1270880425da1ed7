"""Operations of the OpenAPI document, in which types stand for their schemas."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from forwardpass.nouns.signatures import Output
from forwardpass.serving.messages import About

ERROR: Final = msgspec.defstruct("Error", [("error", str), ("row", int | None, None)])
"""Why a request is refused, and the place of the row that it is about."""


def operation(
    summary: str, answer: Any, body: Any = None, example: Any = None, refusal: Any = ERROR,
    status: int = 503,
) -> dict[str, Any]:  # fmt: skip
    """An operation of the OpenAPI document; without a body it is refused with this status alone."""
    why = {"description": "Why not", "content": _json(refusal)}
    statuses = (400, 404, 413, 415, 422, 429, 503) if body is not None else (status,)
    told: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "The answer", "content": _json(answer)},
            **{str(status): why for status in statuses},
        },
    }
    if body is not None:
        told["requestBody"] = {"required": True, "content": _json(body, example)}
    return told


def _json(kind: Any, example: Any = None) -> dict[str, Any]:
    shown = {} if example is None else {"example": example}
    return {"application/json": {"schema": kind, **shown}}


def answer(about: About, title: str) -> Any:
    """The type of what a row is answered: its outputs, where no decode makes other columns."""
    if about.decodes or not about.outputs:
        return dict[str, Any]
    outputs = [Output.parse(line) for line in about.outputs]
    fields = [(f"output{n}", _nested(output)) for n, output in enumerate(outputs)]
    names = {field: output.path for (field, _), output in zip(fields, outputs, strict=True)}
    return msgspec.defstruct(f"{title}.answer", fields, rename=names)


def _nested(output: Output) -> Any:
    kind: Any = float | None  # NaN and infinities are null
    if output.dtype in ("c64", "c128"):
        kind = list[kind]
    elif output.dtype == "bool" or output.dtype[0] in "iu":
        kind = bool if output.dtype == "bool" else int
    for extent in reversed(output.extents):
        if extent.name != "batch":
            size = None if extent.name else extent.size
            kind = Annotated[list[kind], Meta(min_length=size, max_length=size)]
    return kind
