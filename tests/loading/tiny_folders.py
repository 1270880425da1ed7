"""Small real folders of transformers, written by the library itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from forwardpass.nouns.rows import Rows

WORDS = (
    "the", "a", "cat", "dog", "bird", "sat", "ran", "flew", "on", "over", "under", "mat",
    "hill", "sky", "quickly", "slowly", "red", "blue", "green", "one", "two", "three", "four",
    "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip
TEXTS = [
    "the cat sat on the mat",
    "A Dog ran",
    "the red bird flew over the green hill under the blue sky slowly one two three four five",
    "",
    "ten",
]


def rows(**columns: object) -> Rows:
    count = len(next(iter(columns.values())))  # type: ignore[arg-type]
    return Rows(columns, np.arange(count))  # type: ignore[arg-type]


def tiny_tokenizer(
    *, side: str = "right", pad: bool = True, special: bool = True, longest: int = 16
):
    """Whole words to ids, with [CLS] … [SEP] around them where `special`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        **({"pad_token": "[PAD]"} if pad else {}),
        **({} if special else {"eos_token": "[SEP]"}),
        padding_side=side,
        model_max_length=longest,
        model_input_names=inputs if special else ["input_ids", "attention_mask"],
    )


def tiny_bert_config(**more: object):
    from transformers import BertConfig

    return BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        **more,
    )


def save_tiny(network: torch.nn.Module, folder: Path, **tokenizer: object) -> Path:
    network.save_pretrained(folder)
    tiny_tokenizer(**tokenizer).save_pretrained(folder)  # type: ignore[arg-type]
    return folder
