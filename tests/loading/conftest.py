from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_folders import save_tiny, tiny_bert_config
from torch import nn
from torch.export import Dim, export, save


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base BERT with a tokenizer of at most 16 tokens."""
    from transformers import BertModel

    torch.manual_seed(0)
    return save_tiny(BertModel(tiny_bert_config()), tmp_path_factory.mktemp("bert"))


class Masked(nn.Module):
    """Linear over masked tokens, with a parameter, a buffer and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.register_buffer("scale", torch.tensor([1.0, 2.0]))
        self.shift = torch.arange(2.0)

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.fc(x) * self.scale + self.shift
        return {"y": (y * mask[..., None]).sum(1), "first": x[:, 0]}


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    batch, tokens = Dim("batch"), Dim("tokens", min=3, max=64)
    shapes = {"x": {0: batch, 1: tokens}, "mask": {0: batch, 1: tokens}}
    made = export(
        Masked(), (torch.randn(3, 6, 4),), {"mask": torch.ones(3, 6)}, dynamic_shapes=shapes
    )
    path = tmp_path_factory.mktemp("programs") / "masked.pt2"
    save(made, path)
    return path
