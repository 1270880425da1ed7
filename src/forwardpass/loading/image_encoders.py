"""Pictures in, pixel values out: the `encode` of a folder with an image processor."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from forwardpass.errors import LoadError, missing_extra
from forwardpass.loading.picture_recipes import Picture, PictureRecipe, Pixels
from forwardpass.nouns.rows import Rows
from forwardpass.reading.pictures import picture_of

_TRIED: Final = ((96, 64), (80, 120), (33, 257), (400, 300), (224, 224), (385, 384), (5, 7), (1, 1))
"""Heights and widths of the pictures on which two ways to pixel values are compared."""


class Processor:
    """An image processor of transformers, from one picture to its pixel values.

    Args:
        processor: as that library loads it.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, picture: Picture) -> Pixels:
        """The pixel values of a picture."""
        made = self.processor(
            images=picture, return_tensors="np", input_data_format="channels_last"
        )
        return np.asarray(made["pixel_values"][0], dtype=np.float32)

    @property
    def name(self) -> str:
        """The class of the processor."""
        return type(self.processor).__name__


class ImageEncoder:
    """Rows with a picture in the column `image` → `pixel_values`.

    A picture is uint8 [height width 3], or the content of a file that Pillow reads, as bytes or in
    base64.

    Args:
        pixels: what makes the pixel values of a picture.
    """

    def __init__(self, pixels: Callable[[Picture], Pixels]) -> None:
        self.pixels = pixels

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> ImageEncoder:
        """What `described` said. Raises MissingExtraError, and KeyError or msgspec.ValidationError
        for what is no recipe."""
        import importlib.util

        if importlib.util.find_spec("PIL") is None:
            raise missing_extra("pillow", "images", "an artefact that takes pictures")
        return cls(PictureRecipe.read(description["recipe"]))

    def described(self, folder: Path) -> dict[str, Any] | None:
        """This encoder as data; None where no recipe gives the same pixel values to the bit.

        What a processor says of itself need not be all that it does, so pictures are tried.
        """
        recipe = self.pixels
        if isinstance(self.pixels, Processor):
            recipe = PictureRecipe.of(self.pixels.processor)
        if not isinstance(recipe, PictureRecipe):
            return None
        random = np.random.default_rng(0)
        for shape in _TRIED:
            picture = random.integers(0, 256, (*shape, 3), np.uint8)
            one, other = _tried(self.pixels, picture), _tried(recipe, picture)
            if not (one is other is None or np.array_equal(one, other)):  # pyright: ignore[reportArgumentType]
                return None
        return {"kind": "picture", "recipe": recipe.described()}

    def __call__(self, rows: Rows) -> dict[str, Any]:
        """`pixel_values`, float32 [rows 3 height width], or a list of arrays where sizes differ."""
        pictures = [_picture(value) for value in rows["image"]]
        pixels = [self.pixels(picture) for picture in pictures]
        if len({p.shape for p in pixels}) == 1:
            return {"pixel_values": np.stack(pixels)}
        return {"pixel_values": pixels}

    def signature(self) -> str:
        """The input in the notation; its size is found by trying two pictures."""
        tried = [
            self.pixels(np.zeros(shape, np.uint8)).shape for shape in ((96, 64, 3), (80, 120, 3))
        ]
        if any(len(shape) != 3 for shape in tried):
            name = getattr(self.pixels, "name", type(self.pixels).__name__)
            raise LoadError(
                f"{name} makes pixel values of the shape {list(tried[0])} of one picture; expected "
                "[channels height width]. Give file.py:name with an encode of your own"
            )
        channels, height, width = tried[0]
        if tried[0] == tried[1]:
            return f"pixel_values: f32[batch {channels} {height} {width}]"
        return f"pixel_values: f32[batch {channels} height width]"


def _tried(pixels: Callable[[Picture], Pixels], picture: Picture) -> Pixels | None:
    """The pixel values, None where a picture is refused."""
    try:
        return pixels(picture)
    except Exception:  # noqa: BLE001 - what one refuses, the other has to refuse
        return None


def _picture(value: Any) -> Picture:
    """The pixels, be they given or the content of a file. Raises TypeError and ValueError."""
    if isinstance(value, str):
        value = _content(value)
    if isinstance(value, bytes):
        value = picture_of(value)
        if isinstance(value, str):
            raise ValueError(f"column 'image': {value}")
    if not isinstance(value, np.ndarray) or value.ndim != 3 or value.shape[2] != 3:
        what = (
            f"an array {list(value.shape)}"
            if isinstance(value, np.ndarray)
            else type(value).__name__
        )
        raise TypeError(
            f"column 'image': got {what}, expected a picture [height width 3] of uint8, or the "
            "content of a file, as bytes or in base64"
        )
    if value.dtype.kind in "iu" and value.dtype != np.uint8:  # numbers of JSON, say
        if value.size and not 0 <= value.min() <= value.max() <= 255:
            raise ValueError("column 'image': numbers beyond 0 to 255, expected uint8")
        value = value.astype(np.uint8)
    return value


def _content(text: str) -> bytes:
    """What is in base64, alone or in a `data:` URL. Raises ValueError."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(
            "column 'image': a text that is no base64; send the content of a file in base64"
        ) from error
