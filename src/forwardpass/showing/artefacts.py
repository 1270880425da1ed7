"""An Artefact: what was written, how it was proved, and what opening it may execute."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from forwardpass.nouns.artefacts import Artefact
from forwardpass.showing.wording import ORANGE, amount, facts, number, plain, steps


def shown(artefact: Artefact) -> RenderableType:
    """An Artefact as rich draws it."""
    title = Text(f"{artefact.name} {artefact.plan}", style="bold")
    return Group(plain(title), facts(_lines(artefact)))


def _lines(artefact: Artefact) -> list[tuple[str, Text | str]]:
    lowered = artefact.lowered
    size = sum(file.bytes for file in artefact.files.values())
    lines: list[tuple[str, Text | str]] = [("in", line) for line in artefact.inputs]
    lines += [("out", line) for line in artefact.outputs]
    lines += steps(artefact.steps)
    before = "" if lowered.quantized is None else "before it was quantized, "
    lines.append(
        (
            "proved",
            f"{before}computes {', '.join(lowered.tried)} as the model does: outputs move by "
            f"{number(lowered.distance)} of the largest at most",
        )
    )
    if lowered.quantized is not None:
        lines.append(
            (
                "quantized",
                f"{lowered.quantized.did}; outputs are {number(lowered.quantized.moved)} of the "
                "largest from the model's at most",
            )
        )
    lines.append(("written", f"{amount(size)}B by {lowered.route}"))
    lines += [("not by", why) for why in lowered.declined]
    rows = [("encode", artefact.encode), ("decode", artefact.decode)]
    lines += [(name, str(description["kind"])) for name, description in rows if description]
    if artefact.trust == "data":
        lines.append(("trust", "data: opening it runs no code"))
    else:
        why = "; ".join(artefact.code)
        lines.append(("trust", Text(f"! {artefact.trust}: {why}", ORANGE)))
    return lines
