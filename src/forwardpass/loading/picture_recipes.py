"""What an image processor does to a picture, as numbers; done by Pillow and NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, cast

import msgspec
import numpy as np

Picture = np.ndarray[Any, Any]
"""uint8 [height width 3]."""
Pixels = np.ndarray[Any, np.dtype[np.float32]]
"""float32 [channels height width]."""


@dataclass(frozen=True)
class PictureRecipe:
    """Resized, cut, rescaled, normalized, in this order; None is left out.

    Attributes:
        resize: the size, as processors of transformers have it: `height` and `width`; or
            `shortest_edge`, with a `longest_edge` that the other one does not exceed; or
            `max_height` and `max_width`, within which it fits.
        resample: the filter, by Pillow's number.
        crop: height and width of the middle that is cut out; what is smaller gets zeros around it.
        factor: that values are multiplied by.
        mean, std: by channel; values become (value − mean) ÷ std.
    """

    resize: dict[str, int] | None
    resample: int
    crop: tuple[int, int] | None
    factor: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @classmethod
    def of(cls, processor: Any) -> PictureRecipe | None:
        """What an image processor of transformers says of itself; None where it says nothing of the
        kind. Whether that is all that it does is to be tried."""

        def said(name: str, where: str) -> Any:
            return getattr(processor, name, None) if getattr(processor, where, False) else None

        try:
            resize, crop = said("size", "do_resize"), said("crop_size", "do_center_crop")
            resize = None if resize is None else {k: int(v) for k, v in dict(resize).items()}
            crop = None if crop is None else (int(crop["height"]), int(crop["width"]))
            share = getattr(processor, "crop_pct", None)
            if share and resize and "shortest_edge" in resize:
                resize, crop = _shared(resize["shortest_edge"], float(share))
            mean, std = (
                _channels(said(name, "do_normalize")) for name in ("image_mean", "image_std")
            )
            factor, resample = said("rescale_factor", "do_rescale"), processor.resample
            return cls(
                resize, 2 if resample is None else int(resample), crop,
                None if factor is None else float(factor), mean, std,
            )  # fmt: skip
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    @classmethod
    def read(cls, description: Mapping[str, Any]) -> PictureRecipe:
        """What `described` said. Raises msgspec.ValidationError."""
        return msgspec.convert(description, cls, strict=False)

    def described(self) -> dict[str, Any]:
        """This recipe as data."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))

    def __call__(self, picture: Picture) -> Pixels:
        """The pixel values of a picture."""
        from PIL import Image

        pixels = picture
        if self.resize is not None:
            height, width = _size(self.resize, picture.shape[0], picture.shape[1])
            resized = Image.fromarray(picture).resize(
                (width, height), Image.Resampling(self.resample)
            )
            pixels = np.asarray(resized)
        if self.crop is not None:
            pixels = _middle(pixels, self.crop)
        if self.factor is not None:
            pixels = (pixels.astype(np.float64) * self.factor).astype(np.float32)
        pixels = pixels.astype(np.float32)
        if self.mean is not None and self.std is not None:
            pixels = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _shared(edge: int, share: float) -> tuple[dict[str, int], tuple[int, int] | None]:
    """What ConvNeXt's processors do with the share of a picture that is to be seen: small pictures
    are resized so that this share is left when they are cut, large ones are warped."""
    if edge < 384:
        return {"shortest_edge": int(edge / share)}, (edge, edge)
    return {"height": edge, "width": edge}, None


def _channels(values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    return tuple(float(v) for v in values) if isinstance(values, list | tuple) else (float(values),)


def _size(wanted: Mapping[str, int], height: int, width: int) -> tuple[int, int]:
    """Height and width of a resized picture."""
    if "height" in wanted:
        return wanted["height"], wanted["width"]
    if "max_height" in wanted:
        scale = min(wanted["max_height"] / height, wanted["max_width"] / width)
        return int(height * scale), int(width * scale)
    short, long = min(height, width), max(height, width)
    edge: float = wanted["shortest_edge"]
    most = wanted.get("longest_edge")
    if most is not None and long / short * edge > most:
        edge = most * short / long
    if round(edge) == short:
        return height, width
    new, other = round(edge), int(edge * long / short)
    return (new, other) if height <= width else (other, new)


def _middle(pixels: Picture, size: tuple[int, int]) -> Picture:
    """The middle of a picture, with zeros around one that is smaller."""
    around = [
        (ceil(more / 2), more // 2)
        for more in (max(0, n - was) for n, was in zip(size, pixels.shape, strict=False))
    ]
    pixels = np.pad(pixels, [*around, (0, 0)])
    top, left = ((was - n) // 2 for n, was in zip(size, pixels.shape, strict=False))
    return pixels[top : top + size[0], left : left + size[1]]
