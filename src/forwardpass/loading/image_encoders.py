"""Pictures in, pixel values out: the `encode` of a folder with an image processor."""

from __future__ import annotations

from typing import Any

import numpy as np

from forwardpass.errors import LoadError
from forwardpass.nouns.rows import Rows

Pixels = np.ndarray[Any, np.dtype[np.float32]]


class ImageEncoder:
    """Rows with a picture in the column `image`, uint8 [height width 3] → `pixel_values`.

    Args:
        processor: an image processor of transformers.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, rows: Rows) -> dict[str, Any]:
        """`pixel_values`, float32 [rows 3 height width], or a list of arrays where sizes differ."""
        pictures = [_picture(value) for value in rows["image"]]
        pixels = [self.pixels(picture) for picture in pictures]
        if len({p.shape for p in pixels}) == 1:
            return {"pixel_values": np.stack(pixels)}
        return {"pixel_values": pixels}

    def pixels(self, picture: np.ndarray[Any, Any]) -> Pixels:
        """One picture, uint8 [height width 3], as the model takes it: f32 [3 height width]."""
        made = self.processor(
            images=picture, return_tensors="np", input_data_format="channels_last"
        )
        return np.asarray(made["pixel_values"][0], dtype=np.float32)

    def signature(self) -> str:
        """The input in the notation; its size is found by trying two pictures."""
        tried = [
            self.pixels(np.zeros(shape, np.uint8)).shape for shape in ((96, 64, 3), (80, 120, 3))
        ]
        if any(len(shape) != 3 for shape in tried):
            raise LoadError(
                f"{type(self.processor).__name__} makes pixel values of the shape "
                f"{list(tried[0])} of one picture; expected [channels height width]. Give "
                "file.py:name with an encode of your own"
            )
        channels, height, width = tried[0]
        if tried[0] == tried[1]:
            return f"pixel_values: f32[batch {channels} {height} {width}]"
        return f"pixel_values: f32[batch {channels} height width]"


def _picture(value: Any) -> np.ndarray[Any, Any]:
    if not isinstance(value, np.ndarray) or value.ndim != 3 or value.shape[2] != 3:
        what = (
            f"an array {list(value.shape)}"
            if isinstance(value, np.ndarray)
            else type(value).__name__
        )
        raise TypeError(f"column 'image': got {what}, expected a picture [height width 3] of uint8")
    return value
