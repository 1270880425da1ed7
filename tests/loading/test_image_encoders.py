"""Image processors as data: the same pixel values to the bit, or code."""

from __future__ import annotations

import base64
import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_folders import rows

from forwardpass.loading.described import describe, encoder
from forwardpass.loading.image_encoders import ImageEncoder, Processor
from forwardpass.nouns.models import Model

PICTURES = [
    np.random.default_rng(n).integers(0, 256, (height, width, 3), np.uint8)
    for n, (height, width) in enumerate([(480, 640), (50, 20), (224, 224), (31, 400), (9, 9)])
]


def processor(kind: str, **settings: Any) -> Any:
    module, name = kind.split(".")
    found = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    return getattr(found, f"{name}ImageProcessorPil")(**settings)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("vit.ViT", {}),
        ("vit.ViT", {"size": {"height": 33, "width": 48}, "resample": 3, "do_rescale": False}),
        ("vit.ViT", {"do_normalize": False, "do_resize": False}),
        ("deit.DeiT", {}),
        ("clip.CLIP", {"size": {"shortest_edge": 30}, "crop_size": {"height": 40, "width": 25}}),
        ("siglip.Siglip", {"size": {"height": 24, "width": 24}}),
        ("convnext.ConvNext", {"size": {"shortest_edge": 224}}),
        ("convnext.ConvNext", {"size": {"shortest_edge": 384}}),
        ("vit.ViT", {"size": {"shortest_edge": 40, "longest_edge": 60}}),
        ("vit.ViT", {"size": {"max_height": 40, "max_width": 60}}),
    ],
    ids=str,
)
def test_a_recipe_gives_the_same_pixels_to_the_bit(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    own = ImageEncoder(Processor(processor(kind, **settings)))
    description = own.described(tmp_path)
    assert description is not None
    again = encoder(description, tmp_path)
    assert again is not None
    for picture in PICTURES:
        expected, came = (one(rows(image=[picture]))["pixel_values"] for one in (own, again))
        np.testing.assert_array_equal(came, expected)
        assert came.dtype == np.float32
    assert again.described(tmp_path) == description


def test_what_does_more_than_it_says_is_code(tmp_path: Path) -> None:
    import torch

    def flipped(self: Any, image: Any, *args: Any, **kwargs: Any) -> Any:
        return type(self).__mro__[1].rescale(self, image, *args, **kwargs)[:, :, ::-1]

    vit = processor("vit.ViT")
    own = type(vit)
    other = type("Mirrored", (own,), {"rescale": flipped})()
    assert ImageEncoder(Processor(vit)).described(tmp_path) is not None
    encode = ImageEncoder(Processor(other))
    assert encode.described(tmp_path) is None
    model = Model(torch.nn.Linear(2, 2), "x: f32[batch 2]", encode=encode, origin="net.py")
    description, _, code = describe(model, tmp_path)
    assert description == {"kind": "code", "reference": "net.py"}
    assert code == ["its encode is Python code of net.py"]


def test_a_picture_may_come_as_the_content_of_a_file(tmp_path: Path) -> None:
    encode = ImageEncoder(Processor(processor("vit.ViT")))
    held = io.BytesIO()
    Image.fromarray(PICTURES[0]).save(held, "PNG")
    text = base64.b64encode(held.getvalue()).decode()
    expected = encode(rows(image=[PICTURES[0]]))["pixel_values"]
    for given in (
        held.getvalue(), text, f"data:image/png;base64,{text}", PICTURES[0].astype(np.int64),
    ):  # fmt: skip
        np.testing.assert_array_equal(encode(rows(image=[given]))["pixel_values"], expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("no base64!", "no base64"),
        (base64.b64encode(b"no picture").decode(), "no image that Pillow reads"),
        (b"", "no image that Pillow reads"),
        (np.full((4, 4, 3), 256), "beyond 0 to 255"),
        (np.zeros((4, 4), np.uint8), r"an array \[4, 4\]"),
        (7, "got int"),
    ],
    ids=str,
)
def test_what_is_no_picture_is_refused(given: Any, said: str) -> None:
    encode = ImageEncoder(Processor(processor("vit.ViT")))
    with pytest.raises((TypeError, ValueError), match=said):
        encode(rows(image=[given]))
