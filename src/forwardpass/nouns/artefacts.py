"""Artefact: a folder NAME.fwd that holds a built Forward, and computes without its source."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from forwardpass.nouns.applied import Applied
from forwardpass.nouns.documents import Document
from forwardpass.nouns.lowered import Lowered
from forwardpass.nouns.programs import Trust

MANIFEST: Final = "artefact.json"
GRAPH: Final = "graph"
"""The folder of what the backend wrote."""
GOLDEN: Final = "golden.safetensors"
READY: Final = "ready.json"


class Sum(msgspec.Struct, frozen=True):
    """What a file must be, to the bit."""

    bytes: int
    sha256: str


class Artefact(
    Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/artefact/1"
):
    """What an artefact is; `artefact.json` in its folder.

    Attributes:
        name: what errors call the program: the class of the module that it was made from.
        plan: the steps that were applied, and the backend that it was lowered to.
        steps: what the steps of the plan did.
        trust: what opening it may execute: "data", "code" or "native".
        code: why it is no data, a sentence each; empty for data.
        inputs, outputs: the signature, a line each.
        lowered: the graph, and how it was proved.
        encode, decode: what rows go through, as its `kind` and what that needs; None without.
        sha256: the digest of the Forward that it was made from.
        rounding: by output, how far the module's own pass is from the same one in float64,
            ‖f32 − f64‖₂ ÷ ‖f64‖₂; empty where it does not run in float64.
        platform: the system and the kind of processor that it was made on.
        instructions: the vector instructions that this processor has.
        versions: of Python and the libraries that made it.
        files: all others of the folder, by their path in it.
    """

    name: str
    plan: str
    steps: tuple[Applied, ...]
    trust: Trust
    code: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    lowered: Lowered
    encode: dict[str, Any] | None
    decode: dict[str, Any] | None
    sha256: str
    rounding: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    platform: str = ""
    instructions: tuple[str, ...]
    versions: dict[str, str]
    files: dict[str, Sum]
