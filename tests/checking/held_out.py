"""Models that nobody here wrote: families of the transformers library, small and random.

Each is built from the configuration that its library gives it, with all sizes made small, and gets
what it takes: text with a mask, an image, a sound.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

Made = tuple[nn.Module, dict[str, Tensor]]

_CALLED = {
    32: (
        "hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "embed_dim",
        "max_source_positions", "image_size",
    ),
    64: (
        "intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim",
        "hidden_dim", "d_inner", "n_inner", "max_position_embeddings", "n_positions", "n_ctx",
    ),
    2: (
        "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers",
        "decoder_layers", "num_encoder_layers", "num_decoder_layers", "num_key_value_heads",
        "type_vocab_size", "eos_token_id",
    ),
    4: (
        "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
        "decoder_attention_heads", "num_experts", "num_local_experts", "n_routed_experts",
    ),
    8: (
        "head_dim", "d_head", "d_kv", "patch_size", "state_size",
    ),
    16: (
        "moe_intermediate_size", "num_mel_bins",
    ),
    99: (
        "vocab_size",
    ),
    5: (
        "num_labels",
    ),
    0: (
        "pad_token_id",
    ),
    1: (
        "bos_token_id",
    ),
}  # fmt: skip
SIZES = {name: size for size, names in _CALLED.items() for name in names}
"""What configurations call their sizes."""

FAMILIES = (
    "aimv2_vision_model", "albert", "apertus", "arcee", "aria_text", "bart", "beam", "beit",
    "bert", "bert-generation", "big_bird", "bigbird_pegasus", "biogpt", "bitnet", "blenderbot",
    "blenderbot-small", "bloom", "camembert", "canine", "chinese_clip_vision_model",
    "clip_text_model", "clip_vision_model", "cohere", "cohere2", "cohere2_moe", "convbert",
    "cpmant", "ctrl", "cwm", "data2vec-audio", "data2vec-text", "data2vec-vision", "deberta",
    "deberta-v2", "deepseek_v4", "deit", "diffllama", "dinov2", "dinov2_with_registers",
    "dinov3_vit", "distilbert", "doge", "dpr", "dpt", "electra", "ernie", "ernie4_5", "esm",
    "eurobert", "exaone4", "falcon_mamba", "flaubert", "flint", "fnet", "focalnet", "fsmt",
    "gemma", "gemma2", "gemma3_text", "glm", "glm4", "glmasr_encoder", "glpn", "gpt-sw3",
    "gpt2", "gpt_bigcode", "gpt_neox", "gpt_neox_japanese", "gpt_oss", "granite",
    "granite_docling_text", "granite_swa", "granitemoe", "granitemoe_swa", "granitemoeshared",
    "gte", "helium", "higgs_audio_v2", "hrm_text", "hubert", "hunyuan_v1_dense",
    "hunyuan_v1_moe", "hyperclovax", "ibert", "ijepa", "imagegpt", "internlm3",
    "internvl_vision", "iquestcoder", "jais2", "jetmoe", "jina_embeddings_v3", "layoutlm",
    "lfm2", "llama", "llama4_text", "longformer", "longt5", "m2m_100", "mamba", "marian",
    "markuplm", "mbart", "megatron-bert", "minimax", "minimax_m3_vl_text", "ministral",
    "ministral3", "mistral", "mixtral", "mlcd", "mlcd_vision_model", "mobilebert",
    "mobilenet_v1", "mobilenet_v2", "mobilevit", "modernbert", "modernbert-decoder",
    "molmo2_text", "moshi", "moss_transcribe_diarize_audio", "mpnet", "mpt", "mra", "mt5",
    "muse_glimmer_text", "mvp", "nanochat", "nemotron", "nllb-moe", "nomic_bert",
    "nystromformer", "olmo", "olmo2", "olmo3", "olmo_hybrid", "openai-gpt",
    "openai_privacy_filter", "opt", "pegasus", "pegasus_x", "persimmon", "phi", "phi3",
    "phimoe", "pixio", "pixtral", "plbart", "pvt_v2", "qianfan_ocr_vision", "qwen2",
    "qwen2_audio_encoder", "qwen2_moe", "qwen3", "qwen3_vl_moe_text", "qwen3_vl_text", "radio",
    "rembert", "roberta", "roberta-prelayernorm", "roformer", "rwkv", "sam3_vit_model",
    "sam_hq_vision_model", "sam_vision_model", "sapiens2", "seed_oss", "segformer", "sew",
    "sew-d", "siglip_vision_model", "smollm3", "splinter", "squeezebert", "stablelm",
    "starcoder2", "swiftformer", "switch_transformers", "t5", "tapas", "tipsv2_text_model",
    "tipsv2_vision_model", "ultrabert", "umt5", "unispeech", "unispeech-sat", "vaultgemma",
    "visual_bert", "vit", "vit_mae", "vit_msn", "vitdet", "voxtral_encoder",
    "voxtral_realtime_encoder", "wav2vec2", "wav2vec2-conformer", "wavlm", "xglm", "xlm",
    "xlm-roberta", "xlm-roberta-xl", "yolos", "yoso", "zaya",
)  # fmt: skip
"""Those that such sizes fit, and that take a few inputs that everybody knows."""

REAL: dict[str, dict[str, str]] = {
    "canine": {"pad-leak": "a strided convolution takes characters together, padded ones, too"},
    "convbert": {"pad-leak": "a convolution in its attention reads tokens that the mask hides"},
    "nystromformer": {"pad-leak": "a convolution over its values reads tokens that the mask hides"},
    "yoso": {"pad-leak": "its sums over hashed tokens take those that the mask hides"},
    "esm": {"unused": "a head for contacts, which only predict_contacts calls"},
    "markuplm": {"unused": "a layer that no code calls"},
    "mra": {"unused": "without its CUDA kernel the attention gives zeros"},
    "wav2vec2-conformer": {"unused": "a convolution for positions that no code calls"},
}
"""What these families really have, and which rule says so. Of the leaks `moves_by_padding` tells
without this package."""


def built(family: str) -> Made:
    """A family as it is initialised, in eval mode, and a batch of four rows."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    kind = CONFIG_MAPPING[family]
    usual = kind()
    sizes = {k: v for k, v in SIZES.items() if _is_number(getattr(usual, k, None))}
    name = MODEL_MAPPING_NAMES[family]
    torch.manual_seed(0)
    module = getattr(transformers, name if isinstance(name, str) else name[0])(kind(**sizes))
    return module.eval(), inputs_of(module)


def _is_number(size: Any) -> bool:
    return size is None or isinstance(size, int)


def inputs_of(module: Any) -> dict[str, Tensor]:
    """Four rows of what a model takes, two of them padded where it takes text."""
    generator = torch.Generator().manual_seed(1)
    wanted = module.main_input_name
    if wanted == "pixel_values":
        size = getattr(module.config, "image_size", 32)
        side = size if isinstance(size, int) else 32
        channels = getattr(module.config, "num_channels", 3)
        return {wanted: torch.randn(4, channels, side, side, generator=generator)}
    if wanted == "input_values":
        return {wanted: torch.randn(4, 1600, generator=generator)}
    if wanted == "input_features":
        return {wanted: torch.randn(4, 16, 64, generator=generator)}
    ids = torch.randint(3, 98, (4, 12), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 8:] = mask[3, 5:] = 0
    takes = inspect.signature(module.forward).parameters
    if "attention_mask" not in takes or module.config.model_type == "rwkv":  # it reads no mask
        given = {wanted: ids}
    else:
        given = {wanted: ids * mask, "attention_mask": mask}
    if "decoder_input_ids" in takes:
        given["decoder_input_ids"] = ids.flip(0)[:, :6]
    return given


def moves_by_padding(module: nn.Module, inputs: dict[str, Tensor]) -> float:
    """How far outputs of real tokens move, in shares of their scale, when only the ids under the
    mask are replaced."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    with torch.no_grad():
        one = module(**inputs).last_hidden_state
        other = module(**inputs | {"input_ids": ids.masked_fill(~mask, 7)}).last_hidden_state
    return ((one - other)[mask].abs().max() / one.abs().max()).item()
