"""Small random models of many architectures of the transformers library; all of them are sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Made = tuple[nn.Module, dict[str, torch.Tensor]]
IDS = torch.randint(2, 50, (2, 7), generator=torch.Generator().manual_seed(3))
TEXT = {"input_ids": IDS, "attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3])}
PIXELS = {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))}
SOUND = {"input_values": torch.randn(2, 800, generator=torch.Generator().manual_seed(3))}
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2}
ENCODER = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, **LAYERS}
VISION = {"hidden_size": 16, "image_size": 32, "patch_size": 8, **LAYERS}
STAGES = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
CONVOLUTIONS = {
    "conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2),
    "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, **ENCODER,
}  # fmt: skip
SIDES = {
    f"{side}_{part}": size
    for side in ("encoder", "decoder")
    for part, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
}

_WAYS: dict[str, tuple[str, dict[str, Any], dict[str, torch.Tensor]]] = {
    "DistilBertModel": (
        "DistilBertConfig",
        {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
        TEXT,
    ),
    "RobertaModel": ("RobertaConfig", ENCODER, TEXT),
    "AlbertModel": ("AlbertConfig", {"embedding_size": 8, **ENCODER}, TEXT),
    "ElectraModel": ("ElectraConfig", {"embedding_size": 8, **ENCODER}, TEXT),
    "BertForMaskedLM": ("BertConfig", ENCODER, TEXT),
    "BertForTokenClassification": ("BertConfig", ENCODER, TEXT),
    "BartModel": ("BartConfig", {"vocab_size": 50, "d_model": 16, **SIDES}, TEXT),
    "LlamaForCausalLM": ("LlamaConfig", {"num_key_value_heads": 1, **ENCODER}, TEXT),
    "XLNetModel": (
        "XLNetConfig",
        {"vocab_size": 50, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
        TEXT,
    ),
    "RwkvModel": (
        "RwkvConfig",
        {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "context_length": 16},
        {"input_ids": IDS},
    ),
    "CLIPVisionModel": ("CLIPVisionConfig", {"intermediate_size": 32, **VISION}, PIXELS),
    "Dinov2Model": ("Dinov2Config", VISION, PIXELS),
    "SwinModel": (
        "SwinConfig",
        {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1],
         "num_heads": [1, 2], "window_size": 4},
        PIXELS,
    ),
    "ConvNextModel": ("ConvNextConfig", STAGES, PIXELS),
    "SegformerModel": (
        "SegformerConfig",
        {"num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16, **STAGES},
        PIXELS,
    ),
    "MobileNetV2Model": (
        "MobileNetV2Config",
        {"depth_multiplier": 0.1, "min_depth": 8, "image_size": 32},
        PIXELS,
    ),
    "Wav2Vec2Model": ("Wav2Vec2Config", CONVOLUTIONS, SOUND),
    "HubertModel": ("HubertConfig", CONVOLUTIONS, SOUND),
}  # fmt: skip


def _of(name: str) -> Callable[[], Made]:
    def build() -> Made:
        import transformers

        config, arguments, inputs = _WAYS[name]
        return getattr(transformers, name)(getattr(transformers, config)(**arguments)), inputs

    return build


ARCHITECTURES: dict[str, Callable[[], Made]] = {name: _of(name) for name in _WAYS}
