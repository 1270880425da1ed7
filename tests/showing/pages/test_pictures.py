"""The pictures of the docs are of the page as it is; `make pictures` takes them anew.

Pictures are held against each other coarsely: fonts differ from machine to machine, and so do the
seconds that stand in some views.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from browsing import answers, at
from conftest import ROOT, Opens
from PIL import Image
from test_path_view import PATH, unsure

from forwardpass.exploring.explorations import Exploration

PICTURES = {
    1: "map", 2: "play", 3: "neuron", 4: "values", 5: "path", 6: "modes", 7: "batch", 8: "what_if",
    9: "ship",
}  # fmt: skip
SIZE = {"width": 1440, "height": 900}
COARSE = (72, 45)
FAR = 10.0
"""Shades of 256 by which a coarse picture may differ from another one, in the mean."""


def coarse(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L").resize(COARSE, Image.Resampling.BOX), np.float64)


def file_of(name: str) -> Path:
    return ROOT / "docs" / "images" / f"page_{name}.png"


@pytest.mark.timeout(300)
def test_the_pictures_of_the_docs_are_of_the_page_as_it_is(
    live: Opens, digits: Exploration
) -> None:
    old: list[str] = []
    for place, name in PICTURES.items():
        if place == PATH:  # of a model whose code branches
            page = live(unsure(), theme="light", view=PATH)
        elif place in (1, PATH + 1):
            page = live(digits, theme="light", row=1)
        page.set_viewport_size(SIZE)  # pyright: ignore[reportArgumentType]
        at(page, place)
        answers(page)
        page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        if os.environ.get("TAKE_PICTURES"):
            taken.quantize(128).save(file_of(name), optimize=True)
        there = Image.open(file_of(name))
        far = float(np.abs(coarse(there) - coarse(taken)).mean())
        if there.size != taken.size or far > FAR:
            old.append(f"{file_of(name).name}, {far:.1f} shades off")
    assert not old, f"{', '.join(old)}: `make pictures`, and look at them"
